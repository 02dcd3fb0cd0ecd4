"""What compat does without DOLFINx."""

import os
import time

from fem_apps import compat


def test_unfinished_forms_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "fenics"
    cache.mkdir()
    for name in ("killed.c", "done.c", "done.c.cached", "young.c"):
        (cache / name).touch()
    old = time.time() - 3600
    for name in ("killed.c", "done.c"):
        os.utime(cache / name, (old, old))
    compat.remove_unfinished_forms()
    assert sorted(p.name for p in cache.iterdir()) == ["done.c", "done.c.cached", "young.c"]
