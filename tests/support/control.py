"""Running cases of the control layer in tests."""

import json

from mpi4py import MPI

from fem_apps.case import application, validate
from fem_apps.output.folder import close_run, open_run

WAVE = {
    "kind": "null-control",
    "equation": "wave",
    "mesh": {"geometry": "interval", "parameters": {"h": 0.05}},
    "control": {"on": ["right"]},
    "initial": {"y0": "where(x <= 0.5, 4*x, 0)"},
    "time": {"end": 2.4},
    "hum": {"filter": "two-grid", "lanczos": 30},
    "output": {"pictures": False, "fields": False},
}


def case_of(base, **changes):
    """A case with `table__key=value` changed; a value of None leaves the key out."""
    raw = json.loads(json.dumps(base))
    for name, value in changes.items():
        *tables, key = name.split("__")
        at = raw
        for t in tables:
            at = at.setdefault(t, {})
        if value is None:
            at.pop(key, None)
        else:
            at[key] = value
    return validate({"name": "test", **raw}, "test")


def run(folder, base, comm=MPI.COMM_SELF, restart=False, **changes):
    """Metrics of a case, run in a folder."""
    case = case_of(base, **changes)
    handle = open_run(comm, case, folder, overwrite=not restart, restart=restart)
    metrics = application(case.kind).run(case, handle)
    close_run(handle, case, "done", metrics)
    return metrics
