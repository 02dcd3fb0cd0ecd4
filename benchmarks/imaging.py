"""Imaging: FEM log-likelihoods against a DOLFINx script, sampler steps against deepinv.

    ./run_mpi.sh python3 benchmarks/imaging.py [--small] [--rounds 7] [--only likelihood samplers]

likelihood: the Aristoff-Bangerth problem with its gradient against a straightforward script. The script compiles its forms before the loop, assembles by `assemble_matrix` into a matrix made once,
factorises by MUMPS with the symbolic part reused, and solves state and adjoint with the same factor; ours is
fem_apps.inverse.conductivity. Both give the gradient by the 64 log-conductivities.

samplers: seconds a step of DDRM and DPS on inpainting, 32 x 32, batch 16, both on the same core, by each one's
own clocks in turn; compilation is not counted. The peer is deepinv with the same U-Net and the same weights in
torch (outputs are compared first), and with its own DRUNet of about as many weights. deepinv needs a Python of
its own: name it in FEM_APPS_TORCH_PYTHON. Ours steps in float64 around a float32 network, deepinv in float32.
"""

from __future__ import annotations

from measure import arguments, ceilings, interleaved, report  # isort: skip

import json
import os
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.inverse.bayesian_posterior import Posterior, Prior
from fem_apps.inverse.conductivity import published_data, square_conductivity
from fem_apps.inverse.operators_fem import boundary_nodes, point_matrix


def script(cells, y, noise):
    """theta -> misfit and gradient, written as a DOLFINx user would."""
    model = square_conductivity(MPI.COMM_SELF, cells=cells)
    V, P = model.stiffness.V, model.P
    domain = V.mesh
    kappa = fem.Function(fem.functionspace(domain, ("DG", 0)))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    a = fem.form(kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    L = fem.form(fem.Constant(domain, 10.0) * v * ufl.dx)
    bc = fem.dirichletbc(0.0, boundary_nodes(V), V)
    state, adjoint = fem.Function(V), fem.Function(V)
    W = ufl.TestFunction(kappa.function_space)
    g = fem.form(ufl.inner(ufl.grad(state), ufl.grad(adjoint)) * W * ufl.dx)
    A = fem_petsc.create_matrix(a)
    b = fem_petsc.assemble_vector(L)
    fem.petsc.set_bc(b, [bc])
    t = np.arange(1, 14) / 14
    E = point_matrix(V, np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2))
    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("lu")
    ksp.getPC().setFactorSolverType("mumps")
    load = b.duplicate()

    def once(m):
        kappa.x.array[:] = np.exp(P @ m)
        A.zeroEntries()
        fem_petsc.assemble_matrix(A, a, [bc])
        A.assemble()
        ksp.setOperators(A)
        ksp.solve(b, state.x.petsc_vec)
        r = E @ state.x.array - y
        load.array[:] = -(E.T @ r) / noise**2
        fem.petsc.set_bc(load, [bc])
        ksp.solve(load, adjoint.x.petsc_vec)
        return 0.5 * float(r @ r) / noise**2, P.T @ (kappa.x.array * fem.assemble_vector(g).array)

    return once


def likelihood(options):
    """Print the ratio for 32, 64 and 128 squares a side."""
    tasks, speeds = ceilings(options.small)
    y, m = published_data(), np.sin(np.arange(64.0))
    for cells in (32,) if options.small else (32, 64, 128):
        prior = Prior(np.full(64, 4.0), 4 * np.eye(64))
        ours = Posterior(square_conductivity(MPI.COMM_SELF, cells=cells), y, 0.05, prior)
        peer = script(cells, y, 0.05)
        (va, ga), (vb, gb) = ours.misfit_gradient(m), peer(m)
        gap = np.linalg.norm(ga - gb) / np.linalg.norm(gb)
        assert gap < 1e-9 and abs(va - vb) < 1e-9 * abs(vb)
        times = interleaved(
            options.rounds,
            ours=lambda ours=ours: ours.misfit_gradient(m),
            script=lambda peer=peer: peer(m),
            **tasks,
        )
        report(
            "H4",
            f"{cells} x {cells} Q1",
            times,
            ours="ours",
            peer="script",
            agreement=f"gradients agree to {gap:.0e}",
            machine=speeds(times),
        )


LEVELS = (20.0, 0.01)


class Peer:
    """deepinv in a second process, started once, on the core of this one."""

    def __init__(self, python, weights):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment.pop("LD_LIBRARY_PATH", None)
        script = Path(__file__).with_name("imaging_peer.py")
        self.process = subprocess.Popen(
            [python, str(script), str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **task):
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def step_seconds(sampler, steps, batch, size):
    """Wall and CPU seconds of a step after the first, which compiles."""
    from fem_apps.inverse.samplers import levels, sample

    clocks = []
    sample(
        *(sampler, levels(steps, *LEVELS), batch, size, [0]),
        progress=lambda *_: clocks.append((perf_counter(), process_time())),
    )
    (wall, cpu), (wall_end, cpu_end) = clocks[0], clocks[-1]
    return (wall_end - wall) / (steps - 1), (cpu_end - cpu) / (steps - 1)


def samplers(options):
    """Print the ratios of DDRM and DPS."""
    python = os.environ.get("FEM_APPS_TORCH_PYTHON")
    if not python:
        print("deepinv left out: name a Python with it in FEM_APPS_TORCH_PYTHON", flush=True)
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    from fem_apps.inverse.operators import masking
    from fem_apps.inverse.samplers_guided import dps
    from fem_apps.inverse.samplers_linear import ddrm
    from fem_apps.surrogates import score
    from fem_apps.surrogates.score_images import make_images
    from fem_apps.surrogates.unet import Network, parameters

    n, batch, steps, network = 32, 16, 20 if options.small else 100, Network(channels=(32, 64, 64))
    images = make_images("ellipses", batch, n, 0)
    # drawn anew, so that no layer is near zero in the comparison
    denoise = score.new_denoiser(network, images, 0)
    leaves, tree = jax.tree.flatten(denoise)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        a + 0.03 * jax.random.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)
    ]
    denoise = jax.tree.unflatten(tree, leaves)
    x = images.reshape(batch, -1)
    A = masking(n, 0.3, 0)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(a)
        for path, a in jax.tree_util.tree_flatten_with_path(denoise.network)[0]
    }
    arrays |= {"data": np.array([denoise.mean, denoise.sd]), "image": x, "levels": np.array(LEVELS)}
    arrays |= {"shape": np.array([len(network.channels), network.patch, network.blocks])}
    arrays["kept"] = np.flatnonzero(A.dense.any(axis=0))
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "weights.npz", **arrays)
        peer = Peer(python, Path(folder) / "weights.npz")
        version = peer.ask(what="version")
        gap = np.abs(np.asarray(denoise(x, 0.5)) - np.array(peer.ask(what="denoise"))).max()
        assert gap < 1e-4, gap
        _, other = peer.ask(what="make", channels=[24, 48, 60, 76], blocks=1)
        print(f"weights: {parameters(denoise.network)}, DRUNet {other}", flush=True)
        y = x @ A.dense.T + 0.05 * np.random.default_rng(0).normal(size=(batch, A.shape[0]))
        for what, sampler in (
            ("ddrm", ddrm(denoise, A, y, 0.05)),
            ("dps", dps(denoise, A, y)),
        ):
            seen = {"ours": [], "UNet": [], "DRUNet": []}
            for _ in range(max(2, options.rounds // 2)):
                seen["ours"].append(step_seconds(sampler, steps, batch, n * n))
                for name in ("UNet", "DRUNet"):
                    seen[name].append(peer.ask(what=what, network=name, steps=steps))
            times = {k: tuple(np.min(v, axis=0)) for k, v in seen.items()}
            for name, words in (
                ("UNet", "the same network"),
                ("DRUNet", f"DRUNet, {other} weights"),
            ):
                report(
                    "H3",
                    f"{what}, {batch} images of {n} x {n}, {1 / times['ours'][0]:.1f} steps/s",
                    times,
                    ours="ours",
                    peer=name,
                    agreement=f"{words}; outputs agree to {gap:.0e}" if name == "UNet" else words,
                    versions=version,
                )
        peer.process.stdin.close()


PARTS = {"likelihood": likelihood, "samplers": samplers}

if __name__ == "__main__":
    given = arguments(__doc__, only={"nargs": "+", "choices": list(PARTS), "default": list(PARTS)})
    for part in given.only:
        PARTS[part](given)
