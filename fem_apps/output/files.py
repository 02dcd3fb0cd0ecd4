"""Files that are whole or absent: written beside their place and moved there."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one.

    Args:
        path: the file; its folder is made.
        content: all of it.
        sync: also a crash of the machine; costs milliseconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as f:
            f.write(content)
            if sync:
                f.flush()
                os.fsync(f.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    if not sync:
        return
    with contextlib.suppress(OSError):  # not every file system lets a folder be synchronised
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def npz(arrays: dict[str, Any]) -> bytes:
    """The content of an .npz file, uncompressed."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
