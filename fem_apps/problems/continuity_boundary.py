"""What happens at the boundary: open sides with a given density outside, walls, fixed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.fem.expressions import Expression, ExpressionText, parse
from fem_apps.meshing import MeshData

DEFAULT = "default"


class Side(Table):
    """A part of the boundary."""

    type: Literal["open", "wall", "fixed"] = Field(
        "open",
        description=(
            "open: what flows out leaves, `density` flows in; wall: no flux; fixed: nodal schemes"
            " hold `density` at the nodes (others: open)"
        ),
    )
    density: ExpressionText = Field("0", description="outside, an expression of x, y, z, t")


Sides = Mapping[str, Side]


@dataclass(frozen=True)
class Part:
    """Some rows (facets or nodes) of the boundary with one rule."""

    rows: np.ndarray
    type: str
    density: Expression


def parts_of(data: MeshData, sides: Sides, tags: np.ndarray) -> list[Part]:
    """The boundary's parts, from the tag of each of its facets; `default` takes what is left.

    Raises:
        CaseError: a name that the mesh does not have.
    """
    dim = data.mesh.topology.dim - 1
    number = {data.tag(name, dim): side for name, side in sides.items() if name != DEFAULT}
    left, parts = np.ones(len(tags), dtype=bool), []
    for tag, side in number.items():
        rows = np.flatnonzero(tags == tag)
        left[rows] = False
        parts.append(Part(rows, side.type, parse(side.density)))
    rest = sides.get(DEFAULT, Side())
    return [*parts, Part(np.flatnonzero(left), rest.type, parse(rest.density))]
