"""The deepinv half of `imaging.py --only samplers`, run by the Python that FEM_APPS_TORCH_PYTHON names.

    python imaging_peer.py WEIGHTS.npz

Reads one task a line (JSON), answers with one. `UNet` is fem_apps.surrogates.unet's network in torch with the
same weights; `DRUNet` is deepinv's own, with channels that give about as many weights.
"""

from __future__ import annotations

import json
import sys
import time

import deepinv
import numpy as np
import torch
from torch.nn.functional import conv2d, interpolate, pixel_shuffle, pixel_unshuffle, silu

torch.set_num_threads(1)


class UNet(deepinv.models.Denoiser):
    """D(x, s) of fem_apps.surrogates.score, channels first."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.mean, self.sd = map(float, arrays.pop("data"))
        self.levels, self.patch, self.blocks = map(int, arrays.pop("shape"))
        # kernels (k, k, in, out) -> (out, in, k, k)
        for name, a in arrays.items():
            a = a.transpose(3, 2, 0, 1).copy() if a.ndim == 4 else a
            self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(torch.tensor(a)))

    def conv(self, name, x, stride=1):
        w = getattr(self, f"{name}_kernel")
        x = conv2d(x, w, getattr(self, f"{name}_bias"), stride, 1 if w.shape[-1] == 3 else 0)
        return x

    def block(self, name, x, features):
        h = self.conv(f"{name}_first", silu(x))
        scale, shift = (features @ getattr(self, f"{name}_level"))[:, :, None, None].chunk(2, 1)
        return x + self.conv(f"{name}_second", silu(h * (1 + scale) + shift))

    def forward(self, x, sigma, **_):
        s = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1).expand(len(x)).reshape(-1, 1, 1, 1)
        v, total = x - self.mean, s**2 + self.sd**2
        phase = 2 * torch.pi * torch.log(s[:, 0, 0]) / 4 * self.frequencies
        f = torch.cat([torch.cos(phase), torch.sin(phase)], 1)
        h = self.conv("first", pixel_unshuffle(v / torch.sqrt(total), self.patch))
        kept = []
        for k in range(self.levels):
            h = self.conv(f"shrink_{k - 1}", h, 2) if k else h
            for b in range(self.blocks):
                h = self.block(f"down_{k}_{b}", h, f)
            kept.append(h)
        for k in reversed(range(self.levels)):
            if k < self.levels - 1:
                h = interpolate(self.conv(f"grow_{k}", h), scale_factor=2) + kept[k]
            for b in range(self.blocks):
                h = self.block(f"up_{k}_{b}", h, f)
        out = pixel_shuffle(self.conv("last", h), self.patch)
        return self.sd**2 / total * v + s * self.sd / torch.sqrt(total) * out + self.mean


def main() -> None:
    """Answer until the input ends."""
    with np.load(sys.argv[1]) as f:
        arrays = {k: f[k] for k in f.files}
    kept, image, levels = (arrays.pop(k) for k in ("kept", "image", "levels"))
    networks = {"UNet": UNet(arrays)}
    batch, n = len(image), round(image.shape[1] ** 0.5)
    x = torch.tensor(image, dtype=torch.float32).reshape(batch, 1, n, n)
    mask = torch.zeros(n * n)
    mask[torch.tensor(kept)] = 1.0
    physics = deepinv.physics.Inpainting(
        (1, n, n), mask.reshape(1, n, n), noise_model=deepinv.physics.GaussianNoise(0.05)
    )
    y = physics(x)
    for line in sys.stdin:
        task = json.loads(line)
        if task["what"] == "make":  # deepinv's own network
            networks["DRUNet"] = deepinv.models.DRUNet(
                1, 1, tuple(task["channels"]), task["blocks"], pretrained=None
            ).eval()
            answer = [sum(p.numel() for p in m.parameters()) for m in networks.values()]
        elif task["what"] == "denoise":
            with torch.no_grad():
                answer = networks["UNet"](x, 0.5).reshape(batch, -1).tolist()
        elif task["what"] == "version":
            answer = f"deepinv {deepinv.__version__}, torch {torch.__version__}"
        else:
            net, steps = networks[task["network"]], task["steps"]
            if task["what"] == "ddrm":
                grid = np.geomspace(levels[0], levels[1], steps).tolist()
                sampler = deepinv.sampling.DDRM(net, sigmas=grid)
            else:
                sampler = deepinv.sampling.DPS(net, num_steps=steps, dtype=torch.float32)
            wall, cpu = time.perf_counter(), time.process_time()
            sampler(y, physics)
            answer = [(time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
