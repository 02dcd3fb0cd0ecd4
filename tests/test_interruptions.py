"""A run that is interrupted five times at random moments gives the undisturbed one's numbers."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import GRADIENT_FLOW, environment

from fem_apps.output.history import read_history

CASE = GRADIENT_FLOW.format(checkpoint=0.05)
TOLERANCE = 1e-10
# a solver that begins again may need one iteration more or less
COUNTS = ("newton_iterations", "iterations")


def start(case: Path, out: Path, ranks: int, *options: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "fem_apps", "run", str(case), "--out", str(out), *options]
    if ranks > 1:
        words = ["mpirun", "-n", str(ranks), *words]
    return subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL)


def lines(history: Path) -> int:
    return len(history.read_bytes().splitlines()) if history.exists() else 0


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_five_interruptions(ranks, tmp_path):
    if ranks > 1 and shutil.which("mpirun") is None:
        pytest.skip("no mpirun")
    case = tmp_path / "case.toml"
    case.write_text(CASE)
    calm, out = tmp_path / "calm", tmp_path / "run"
    assert start(case, calm, ranks).wait(200) == 0
    steps = lines(calm / "history.csv")
    rng = random.Random(4)
    # the first comes before the first checkpoint, on all but slow machines
    moments = [2, *sorted(rng.sample(range(steps // 10, steps - 10), 4))]
    for i, moment in enumerate(moments):
        process = start(case, out, ranks, *(["--restart"] if i else []))
        while process.poll() is None and lines(out / "history.csv") < moment:
            time.sleep(0.005)
        process.send_signal(rng.choice([signal.SIGTERM, signal.SIGKILL]))
        assert process.wait(60) != 2  # which a restart would say that found nothing to continue
        time.sleep(0.5)
        assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    assert start(case, out, ranks, "--restart").wait(200) == 0
    a, b = (json.loads((p / "summary.json").read_text())["metrics"] for p in (calm, out))
    assert a.keys() == b.keys()
    for key, value in a.items():
        if key in COUNTS:
            continue
        same = b[key] == value or b[key] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE)
        assert same, key
    one, two = read_history(calm / "history.csv"), read_history(out / "history.csv")
    for key in one.keys() - set(COUNTS):
        np.testing.assert_allclose(two[key], one[key], rtol=TOLERANCE, atol=TOLERANCE, err_msg=key)
