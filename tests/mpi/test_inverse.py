"""The same numbers on one rank and on all: chains, samples of a trained prior, networks."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.case import validate
from fem_apps.errors import Interrupted
from fem_apps.output.folder import Stop, open_run


def metrics(comm, raw, folder):
    from fem_apps.case import application

    case = validate(raw | {"name": "case", "output": {"pictures": False}})
    run = open_run(comm, case, folder)
    return application(case.kind).run(case, run)


def both(raw, tmp_path, monkeypatch):
    comm = MPI.COMM_WORLD
    where = comm.bcast(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(where / f"cache-{comm.rank}"))
    together = metrics(comm, raw, where / "together")
    # every rank alone, with a cache of its own
    alone = metrics(MPI.COMM_SELF, raw, where / f"alone-{comm.rank}")
    return together, alone


def agree(a, b, keys, rtol):
    for key in keys:
        np.testing.assert_allclose(a[key], b[key], rtol=rtol, err_msg=key)


def test_chains(tmp_path, monkeypatch):
    raw = {
        "kind": "bayesian-inverse",
        "problem": {"type": "conductivity", "cells": 8, "data": "synthetic", "points": 5},
        "mcmc": {"chains": 3, "draws": 10, "warmup": 4, "leaps": 4},
    }
    a, b = both(raw, tmp_path, monkeypatch)
    agree(a, b, ("map_cost", "acceptance", "effective_samples", "r_hat", "coverage"), 1e-9)


def test_chains_begun_together_are_continued_alone(tmp_path, monkeypatch):
    from fem_apps.inverse import bayesian, bayesian_chains

    comm = MPI.COMM_WORLD
    where = comm.bcast(tmp_path)
    monkeypatch.setattr(bayesian_chains, "BLOCK", 4)
    case = validate(
        {
            **{"kind": "bayesian-inverse", "name": "case", "output": {"pictures": False}},
            "problem": {"type": "conductivity", "cells": 8, "data": "synthetic", "points": 5},
            "mcmc": {"chains": 3, "draws": 10, "warmup": 6, "leaps": 4},
        }
    )
    with pytest.raises(Interrupted, match="draw 4 of 16"):
        bayesian.run(case, open_run(comm, case, where / "run", stop=Stop(15)))
    whole = bayesian.run(case, open_run(comm, case, where / "whole"))
    comm.barrier()
    if comm.rank == 0:
        run = open_run(MPI.COMM_SELF, case, where / "run", restart=True)
        assert bayesian.run(case, run) == whole


def test_samples_of_a_trained_prior(tmp_path, monkeypatch):
    raw = {
        "kind": "diffusion-prior",
        "operator": {"type": "downsampling", "factor": 2},
        "images": 3,
        "prior": {
            **{"family": "gaussian-field", "size": 8, "images": 64},
            "network": {"channels": [8], "patch": 2},
            "training": {"steps": 20, "batch": 8},
        },
        "sampler": {"steps": 4, "chains": 3},
    }
    a, b = both(raw, tmp_path, monkeypatch)
    # the network works in float32
    agree(a, b, ("psnr", "psnr_lmmse", "psnr_tv", "chi2", "coverage"), 1e-3)


def test_diffusion_prior_of_an_impedance_problem(tmp_path, monkeypatch):
    from fem_apps.inverse import bayesian_diffusion

    monkeypatch.setattr(bayesian_diffusion, "GROUP", 2)
    raw = {
        "kind": "bayesian-inverse",
        "truth": "image",
        "noise": 0.01,
        "problem": {"type": "impedance", "electrodes": 6, "h": 0.25, "pixels": 8},
        "prior": {"learnt": True},
        "mcmc": {"chains": 3, "draws": 8, "warmup": 4, "leaps": 4},
        "diffusion": {
            "prior": {
                **{"family": "level-set", "size": 8, "images": 100},
                "network": {"channels": [8], "patch": 2},
                "training": {"steps": 60, "batch": 8},
            },
            "sampler": {"method": "gibbs", "steps": 3, "chains": 4, "iterations": 2},
        },
    }
    a, b = both(raw, tmp_path, monkeypatch)
    # groups of the same members: equal to the last bit
    keys = [k for k in a if k.startswith(("mode_", "chains_", "diffusion_"))]
    assert len(keys) == 15
    assert {k: a[k] for k in keys} == {k: b[k] for k in keys}


def test_networks(tmp_path, monkeypatch):
    raw = {
        "kind": "noisier2inverse",
        "scanner": {"size": 8, "angles": 16, "detectors": 13},
        "noise": {"sigma": 1.0},
        "objects": {"train": 8, "validation": 2, "test": 2},
        "network": {"channels": [8]},
        "training": {"steps": 20, "batch": 4},
    }
    a, b = both(raw, tmp_path, monkeypatch)
    agree(a, b, ("psnr", "psnr_supervised", "psnr_noise2inverse", "psnr_fbp"), 1e-3)
