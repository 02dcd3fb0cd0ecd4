"""Networks in a file: the factors of every block, without writing matrices out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.files import npz, write_whole
from fem_apps.surrogates.strassen_layers import Bias, Block, Factor, Layer, Network


def save_network(network: Network, path: Path) -> None:
    """Write a network; equal factors are stored once."""
    arrays: dict[str, np.ndarray] = {}
    known: dict[tuple[Any, ...], str] = {}

    def store(f: Factor) -> Any:
        if isinstance(f, int):
            return f
        key = (f.shape, f.tobytes())
        if key not in known:
            known[key] = f"f{len(known)}"
            arrays[known[key]] = f
        return known[key]

    layers = [
        {
            "inputs": layer.inputs,
            "outputs": layer.outputs,
            "activation": layer.activation,
            "blocks": [[b.source, b.target, [store(f) for f in b.factors]] for b in layer.blocks],
            "biases": [[b.target, [store(f) for f in b.factors]] for b in layer.biases],
        }
        for layer in network.layers
    ]
    head = np.frombuffer(json.dumps(layers).encode(), dtype=np.uint8)
    write_whole(path, npz({"layers": head, **arrays}))


def load_network(path: str | Path) -> Network:
    """Read what `save_network` wrote.

    Raises:
        CaseError: no such file, or no network in it.
    """
    try:
        with np.load(path, allow_pickle=False) as f:
            layers = json.loads(f["layers"].tobytes())

            def read(names: list[Any]) -> tuple[Factor, ...]:
                return tuple(n if isinstance(n, int) else f[n] for n in names)

            return Network(
                tuple(
                    Layer(
                        layer["inputs"],
                        layer["outputs"],
                        tuple(Block(s, t, read(names)) for s, t, names in layer["blocks"]),
                        tuple(Bias(t, read(names)) for t, names in layer["biases"]),
                        layer["activation"],
                    )
                    for layer in layers
                )
            )
    except (OSError, ValueError, KeyError) as e:
        raise CaseError(f"{path} holds no network: {e}") from None
