"""The command line as its users call it: in this process, and as processes of their own."""

from __future__ import annotations

import os

import pytest

from fem_apps.cli import main

# a small case whose state at the end depends on every step
GRADIENT_FLOW = """
kind = "aggregation-diffusion"
seed = 3
[mesh]
geometry = "rectangle"
parameters = {{ width = 4, height = 4, h = 0.2 }}
[[diffusion]]
exponent = 3
coefficient = 0.07
[[interaction]]
type = "gaussian"
strength = -0.5
width = 0.3
[initial]
type = "uniform"
mass = 4
noise = 0.1
length = 0.3
[time]
end = 40
[output]
pictures = false
checkpoint = {checkpoint}
frames = 4
"""


def environment() -> dict[str, str]:
    """Without what makes a child believe that it is a rank of this process's run."""
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("PMIX_", "OMPI_COMM", "PRTE_JOB"))
    }


def fails(capsys, monkeypatch, *arguments: str) -> str:
    """The one line that the command line says; it leaves with status 2."""
    monkeypatch.setattr("sys.argv", ["fem-apps", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fem-apps:")]
    assert len(said) == 1
    assert said[0].startswith("fem-apps: error: ")
    return said[0]
