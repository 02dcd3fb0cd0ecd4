"""What a mesh is, in numbers for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from fem_apps import compat
from fem_apps.mesh_checks import edge_cotangents, jacobians
from fem_apps.meshing import MeshData
from fem_apps.mpi import extremes, total


def describe(data: MeshData) -> dict[str, Any]:
    """What a mesh is, for people: the same on every number of ranks. Collective.

    Returns:
        cell, order, tdim, gdim, cells, nodes, h_min and h_max (greatest distance of two vertices of
        a cell), measure (length, area or volume), names, lattice; for triangles also min_angle
        (degrees) and obtuse_edges: those whose entry of the P1 stiffness matrix is positive.
    """
    mesh = data.mesh
    tdim = mesh.topology.dim
    comm, owned = mesh.comm, mesh.topology.index_map(tdim).size_local
    shape, order = mesh.topology.cell_name(), compat.coordinate_element(mesh).degree
    dofmap = compat.geometry_dofmap(mesh)
    x = mesh.geometry.x[:, : mesh.geometry.dim]
    h_min, h_max = extremes(comm, mesh.h(tdim, np.arange(owned, dtype=np.int32)))
    summary: dict[str, Any] = {
        "cell": shape,
        "order": order,
        "tdim": tdim,
        "gdim": mesh.geometry.dim,
        "cells": mesh.topology.index_map(tdim).size_global,
        "nodes": mesh.geometry.index_map().size_global,
        "h_min": h_min,
        "h_max": h_max,
        "measure": total(comm, _measure(x[dofmap[:owned]], shape, order)),
    }
    if shape == "triangle":
        cot = edge_cotangents(x[dofmap[:, :3]])
        angles = np.degrees(np.arctan2(1.0, cot[:owned]))
        summary["min_angle"] = extremes(comm, angles)[0]
        mesh.topology.create_connectivity(tdim, 1)
        edges = mesh.topology.connectivity(tdim, 1).array
        weight = np.bincount(
            edges, weights=cot.ravel(), minlength=mesh.topology.index_map(1).size_local
        )
        mine = weight[: mesh.topology.index_map(1).size_local]
        summary["obtuse_edges"] = total(comm, int((mine < -1e-10).sum()))
    summary["names"] = {n: {"dim": d, "tag": t} for n, (d, t) in data.names.items()}
    summary["lattice"] = [list(v) for v in data.lattice]
    return summary


def _measure(x: np.ndarray, shape: str, order: int) -> float:
    """Length, area or volume of cells, by a quadrature that is exact for planar ones."""
    import basix

    degree = 8 if order > 1 else 3
    rule = basix.make_quadrature(getattr(basix.CellType, shape), degree)
    at, weights = map(np.asarray, rule)
    measure = 0.0
    for start in range(0, len(x), 50_000):
        J = jacobians(x[start : start + 50_000], shape, order, at)
        squared = np.linalg.det(np.einsum("cqik,cqil->cqkl", J, J))
        measure += float((np.sqrt(np.maximum(squared, 0.0)) @ weights).sum())
    return measure
