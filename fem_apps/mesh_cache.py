"""The user's cache of meshed geometries: a mesh a file, named by the hash of what made it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fem_apps.mesh_raw import RawMesh

log = logging.getLogger(__name__)

ARRAYS = ("points", "cells", "cell_tags", "facets", "facet_tags")


def cache_folder() -> Path:
    """Where meshed geometries are kept: ${XDG_CACHE_HOME:-~/.cache}/fem-apps/meshes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fem-apps" / "meshes"


def read_cache(path: Path) -> RawMesh | None:
    """The mesh kept in a file; None where there is none or it is not whole."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            fields = json.loads(str(kept["fields"]))
            arrays = {n: kept[n] for n in ARRAYS}
        fields["names"] = {n: (int(d), int(t)) for n, (d, t) in fields["names"].items()}
        fields["lattice"] = tuple(map(tuple, fields["lattice"]))
        return RawMesh(**arrays, **fields)
    except FileNotFoundError:
        return None
    except Exception as e:  # whatever a damaged archive makes numpy, zipfile or json raise
        log.warning("the cached mesh %s is damaged (%s) and is made again", path, e)
        return None


def write_cache(path: Path, raw: RawMesh) -> None:
    """Keep a mesh in a file, whole or not at all; a cache that cannot be written is none."""
    fields = asdict(raw)
    arrays = {n: fields.pop(n) for n in ARRAYS}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as f:
                np.savez(f, fields=json.dumps(fields), **arrays)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
    except OSError as e:
        log.info("the mesh is not cached: %s", e)
