"""Wrong cases of the imaging kinds are refused by name, before any work; training continues."""

import pytest

from fem_apps.case import load
from fem_apps.errors import CaseError, Interrupted

EXAMPLE = "examples/imaging/{}.toml"


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("aristoff_bangerth", "problem.cells=30", "multiple of squares"),
        ("aristoff_bangerth", "problem.points=7", "published data"),
        ("aristoff_bangerth", "noise=0", "greater than 0"),
        ("aristoff_bangerth", "problem.type=stokes", "conductivity"),
        ("aristoff_bangerth", "mcmc.method=gibbs", "hmc"),
        ("eit", "problem.electrodes=2", "greater than or equal to 3"),
        ("eit", "truth=image", "need a table"),
        ("eit", "prior.learnt=true", "need a table"),
        ("eit_posterior", "problem.pixels=8", "unknowns a side, 8"),
        ("eit_posterior", "diffusion.sampler.method=ddrm", "linear operator"),
        ("eit_posterior", "diffusion.prior.size=18", "multiple of"),
        ("ct_posterior", "prior.size=30", "multiple of"),
        ("ct_posterior", "sampler.method=nuts", "moment-matching"),
        ("ct_posterior", "sampler.smallest=30", "below"),
        ("ct_posterior", "operator.angels=3", "unknown key"),
        ("noisier2inverse_ct", "scanner.angles=30", "multiple of 4"),
        ("noisier2inverse_ct", "noise.sigma=9.5", None),
        ("noisier2inverse_ct", "scanner.angles=8", "reaches over"),
        ("noisier2inverse_ct", 'methods=["sobolev"]', "must hold"),
        ("noisier2inverse_source", "sensors.rows=10", "multiple of 4"),
        ("noisier2inverse_source", "scanner.angles=12", "not both"),
    ],
)
def test_wrong_cases(name, override, message, request):
    path = request.config.rootpath / EXAMPLE.format(name)
    if message is None:
        load(path, [override])
        return
    with pytest.raises(CaseError, match=message):
        load(path, [override])


def test_alpha_needs_gaussian_noise(request):
    path = request.config.rootpath / EXAMPLE.format("noisier2inverse_ct")
    with pytest.raises(CaseError, match="gaussian"):
        load(path, ["alpha=0.5", "noise.law=laplace"])


def test_downsampling_must_divide(request, tmp_path):
    path = tmp_path / "case.toml"
    path.write_text('kind = "diffusion-prior"\n[operator]\ntype = "downsampling"\nfactor = 3\n')
    with pytest.raises(CaseError, match="does not divide"):
        load(path)


def test_interrupted_selection_continues_to_the_same_weights(tmp_path, monkeypatch, request):
    import jax
    import numpy as np

    from fem_apps.inverse import noisier2inverse as n2i

    path = request.config.rootpath / EXAMPLE.format("noisier2inverse_ct")
    small = ["scanner.size=8", "scanner.angles=16", "scanner.detectors=13", "noise.sigma=1"]
    small += ["objects.train=8", "objects.validation=2", "objects.test=2"]
    small += ["network.channels=[8]", "training.steps=60", "training.batch=4"]
    case = load(path, small)
    s, data = n2i.setting(case), n2i.measure(case)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    whole, _ = n2i.train(case, "noisier2inverse", s, data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    calls, state = iter([False, True]), tmp_path / "state.npz"
    with pytest.raises(Interrupted):
        n2i.train(*(case, "noisier2inverse", s, data), state_file=state, stop=lambda: next(calls))
    again, _ = n2i.train(case, "noisier2inverse", s, data, state_file=state)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob("state*"))


def test_held_out_loss_is_an_unbiased_risk(request):
    """E|A f(Bz) - (y - w/alpha)|^2 = E|A f(Bz) - A x|^2 + (1 + 1/alpha^2) E|eps|^2, any f, norm."""
    import jax
    import numpy as np

    from fem_apps.inverse import noisier2inverse as n2i
    from fem_apps.inverse.noisier2inverse_losses import make_loss

    path = request.config.rootpath / EXAMPLE.format("noisier2inverse_ct")
    for alpha, law, norm in (
        (1.0, "laplace", "l2"),
        (0.5, "gaussian", "image"),
        (2.0, "gaussian", "sobolev"),
    ):
        case = load(
            path,
            [
                *("scanner.size=8", "scanner.angles=16", "scanner.detectors=13"),
                *("noise.sigma=1", f"noise.law={law}", f"alpha={alpha}", f"norm={norm}"),
                *("objects.train=1200", "objects.validation=2", "objects.test=2"),
            ],
        )
        s, data = n2i.setting(case), n2i.measure(case)
        y, x = data["train"]
        # the clean data of the loss are projections of pixels: make y of those
        y = x @ np.asarray(s.A).T + np.asarray(s.noise.draw(jax.random.key(3), len(x)))

        def f(images):
            return jax.numpy.tanh(0.9 * images)

        key, (K, J) = jax.random.key(1), s.shape
        self_supervised = make_loss("noisier2inverse", s)(f, (y, x), key)
        supervised = make_loss("supervised", s)(f, (y, x), key)
        excess = float(self_supervised - supervised)
        covariance = s.noise.covariance.reshape(K, J, K, J)
        B = np.asarray(s.B, float)
        size = np.einsum("kjkj->kj", covariance).mean()
        if norm == "sobolev":
            for axis in ((0, 2), (1, 3)):
                D = np.diff(np.diff(covariance, axis=axis[0]), axis=axis[1])
                size += np.einsum("kjkj->kj", D).mean()
        if norm == "image":
            size = np.einsum("nm,nm->n", B @ s.noise.covariance, B).mean()
        want = (1 + 1 / alpha**2) * size
        assert abs(excess / want - 1) < 0.05, (alpha, excess, want)


@pytest.mark.parametrize(
    ("name", "small", "quarter"),
    [
        ("noisier2inverse_ct", ["scanner.size=8", "scanner.angles=16", "scanner.detectors=13"], 8),
        (
            "noisier2inverse_source",
            ["sensors.size=8", "sensors.cells=8", "sensors.rows=8", "sensors.columns=6"],
            4,
        ),
    ],
)
def test_estimates_turn_with_the_data(name, small, quarter, request):
    """The estimate of turned or reflected data is the estimate turned or reflected; any f."""
    import jax
    import numpy as np

    from fem_apps.inverse import noisier2inverse as n2i
    from fem_apps.inverse.noisier2inverse_losses import estimate
    from fem_apps.surrogates.unet import new_unet

    path = request.config.rootpath / EXAMPLE.format(name)
    small = [*small, "objects.train=4", "objects.validation=2", "objects.test=3"]
    small += ["noise.sigma=1", "network.channels=[8]"]
    for symmetries in (True, False):
        case = load(path, [*small, f"symmetries={str(symmetries).lower()}"])
        s, (y, _) = n2i.setting(case), n2i.measure(case)["test"]
        model = new_unet(case.network, 1, 1, jax.random.key(0))
        G = n2i.setting(load(path, small)).symmetries
        if name.endswith("ct"):  # those by multiples of a quarter turn
            G = G.reshape(-1, 2, G.shape[1])[::8].reshape(-1, G.shape[1])
        assert len(G) == quarter
        # squares cut along one diagonal look alike after half a turn only
        exact = G[1:] if name.endswith("ct") else G[3:4]
        one = np.asarray(estimate("noisier2inverse", s, model, y))
        images = one[:, n2i.grid_symmetries(8, 8)]
        for g in exact:
            turned = np.asarray(estimate("noisier2inverse", s, model, y[:, g]))
            apart = np.abs(images - turned[:, None]).max(axis=(0, 2)).min() / np.abs(one).max()
            assert (apart < 1e-3) == symmetries, (apart, g)


def test_antithetic_recorruptions_leave_no_product_of_data_and_w(request):
    """Linear f: the loss is |A f B y - y|^2 + |alpha A f B w + w/alpha|^2, no cross term."""
    import jax
    import numpy as np

    from fem_apps.inverse import noisier2inverse as n2i
    from fem_apps.inverse.noisier2inverse_losses import make_loss

    path = request.config.rootpath / EXAMPLE.format("noisier2inverse_ct")
    small = ["scanner.size=8", "scanner.angles=16", "scanner.detectors=13", "noise.sigma=1"]
    small += ["objects.train=8", "objects.validation=2", "objects.test=2"]
    small += ["alpha=0.5", "norm=l2", "symmetries=false"]
    for pairs in (True, False):
        case = load(path, [*small, f"antithetic={str(pairs).lower()}"])
        s, (y, _) = n2i.setting(case), n2i.measure(case)["train"]
        loss, key = make_loss("noisier2inverse", s), jax.random.key(1)
        whole, w = (float(loss(lambda v: 0.7 * v, (d, None), key)) for d in (y, 0 * y))
        want = ((0.7 * y @ np.asarray(s.B).T @ np.asarray(s.A).T - y) ** 2).mean()
        assert (abs(whole - w - want) < 1e-4 * whole) == pairs


@pytest.mark.parametrize("method", ["hmc", "pcn", "random-walk"])
@pytest.mark.parametrize("moment", [17, 43], ids=["warm-up", "draws"])
def test_interrupted_chains_continue_to_the_same_draws(method, moment, tmp_path, monkeypatch):
    """A crash between two checkpoints, and a second start from the last one."""
    import numpy as np
    from mpi4py import MPI

    from fem_apps.case import validate
    from fem_apps.inverse import bayesian, bayesian_chains
    from fem_apps.output.folder import open_run

    case = validate(
        {
            **{"kind": "bayesian-inverse", "name": "case"},
            "problem": {"type": "conductivity", "cells": 4, "squares": 4, "data": "synthetic"},
            "mcmc": {"method": method, "chains": 3, "draws": 30, "warmup": 30, "leaps": 4},
            "output": {"pictures": False, "fields": False},
        }
    )
    monkeypatch.setattr(bayesian_chains, "BLOCK", 4)
    monkeypatch.setattr(bayesian_chains, "EVERY", 0.0)

    def go(name, **how):
        metrics = bayesian.run(case, open_run(MPI.COMM_SELF, case, tmp_path / name, **how))
        with np.load(tmp_path / name / "posterior.npz") as f:
            return metrics, f["draws"]

    want, draws = go("calm")
    chain = bayesian_chains.chain

    def cut(*arguments, **keywords):
        for k, draw in enumerate(chain(*arguments, **keywords)):
            if k == moment:
                raise RuntimeError("power cut")
            yield draw

    with monkeypatch.context() as m:
        m.setattr(bayesian_chains, "chain", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            go("cut")
    with np.load(tmp_path / "cut/checkpoint/chains.npz") as f:
        assert f["draws"].shape[1] == moment // 4 * 4
    # what is kept need not be drawn again
    fresh = []
    with monkeypatch.context() as m:
        m.setattr(bayesian_chains, "chain", lambda *a, **k: _listed(chain(*a, **k), fresh))
        again, same = go("cut", restart=True)
    assert len(fresh) == 3 * (60 - moment // 4 * 4)
    np.testing.assert_array_equal(same, draws)
    assert again == want


def _listed(chain, seen):
    for draw in chain:
        seen.append(draw)
        yield draw
