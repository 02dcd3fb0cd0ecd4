"""Surrogates of forward problems and trained networks; works without DOLFINx."""
