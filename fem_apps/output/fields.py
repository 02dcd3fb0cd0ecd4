"""Fields for ParaView: VTX where DOLFINx has ADIOS2, else XDMF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dolfinx
from dolfinx import fem
from mpi4py import MPI

from fem_apps import compat
from fem_apps.errors import CaseError
from fem_apps.fem.points import is_lagrange
from fem_apps.mpi import on_rank_zero

# BP4 rather than ADIOS2's newest: every ParaView with a VTX reader opens it, BP5 needs 5.12.1.
ENGINE = "BP4"


class FieldWriter:
    """Writes functions, time by time, to files that ParaView opens.

    VTX writes Lagrange functions of any degree as they are, the mesh once. Functions of another
    element than the first go to a file of their own, `fields-p2.bp` or `fields-dg0.bp`, since one
    VTX file has one element; functions that are not Lagrange are interpolated into discontinuous
    Lagrange. XDMF knows the mesh's own degree and one value a cell: the rest is interpolated.

    A continued run does not touch what is there: it writes `fields.1.bp`, then `fields.2.bp`.

    In complex builds both formats write real and imaginary parts under two names.

    Attributes:
        files: names of what is written, in the folder.
        notes: what was changed or left out, and how to open it; one line each.
    """

    def __init__(
        self, comm: MPI.Comm, folder: str | Path, functions: Sequence[Any], name: str = "fields"
    ) -> None:
        """Open the files. Collective.

        Args:
            comm: communicator of the functions' mesh.
            folder: where the files go; it exists.
            functions: of one mesh, with different names.
            name: of the first file, without suffix.

        Raises:
            CaseError: the folder cannot be read or written.
        """
        names = [u.name for u in functions]
        if len(set(names)) < len(names):
            raise ValueError(f"functions of the same name among {names}")
        self._comm, self._folder = comm, Path(folder)
        self._copies: list[tuple[Any, Any]] = []
        self._writers: list[Any] = []
        self.files: list[str] = []
        self.notes: list[str] = []
        if dolfinx.has_adios2:
            self._open_vtx(functions, name)
        else:
            self._open_xdmf(functions, name)

    def _open_vtx(self, functions: Sequence[Any], name: str) -> None:
        from dolfinx.io import VTXMeshPolicy, VTXWriter

        groups: dict[str, list[Any]] = {}
        for u in functions:
            v = self._vtx_form(u)
            e = v.function_space.ufl_element()
            groups.setdefault(f"{'dg' if e.discontinuous else 'p'}{e.degree}", []).append(v)
        stems = [name if i == 0 else f"{name}-{element}" for i, element in enumerate(groups)]
        number = self._free(stems, "bp")
        for stem, members in zip(stems, groups.values(), strict=True):
            self.files.append(f"{stem}{number}.bp")
            path = self._folder / self.files[-1]
            self._writers.append(
                VTXWriter(self._comm, path, members, engine=ENGINE, mesh_policy=VTXMeshPolicy.reuse)
            )
        self.notes.append(
            f"{', '.join(self.files)}: open the folder itself in ParaView, with the reader "
            "'ADIOS2VTXReader'"
        )

    def _open_xdmf(self, functions: Sequence[Any], name: str) -> None:
        from dolfinx.io import XDMFFile

        self._xdmf = [self._xdmf_form(u) for u in functions]
        self.files = [f"{name}{self._free([name], 'xdmf')}.xdmf"]
        self._writers = [XDMFFile(self._comm, self._folder / self.files[0], "w")]
        if functions:
            self._writers[0].write_mesh(functions[0].function_space.mesh)
        self.notes.append(
            f"this DOLFINx has no ADIOS2: {self.files[0]} is XDMF, open it in ParaView with the "
            "reader 'Xdmf3ReaderS'"
        )

    def _free(self, stems: Sequence[str], suffix: str) -> str:
        """The first of "", ".1", ".2", ... under which nothing is there yet."""

        def find() -> str:
            try:
                there = {p.name for p in self._folder.iterdir()}
            except OSError as e:
                raise CaseError(f"cannot write fields to {self._folder}: {e}") from None
            number, k = "", 0
            while any(f"{stem}{number}.{suffix}" in there for stem in stems):
                k += 1
                number = f".{k}"
            return number

        return on_rank_zero(self._comm, find)

    def _vtx_form(self, u: Any) -> Any:
        if is_lagrange(u.function_space):
            return u
        V = u.function_space
        degree = max(1, V.ufl_element().embedded_superdegree)
        return self._copy(u, ("Discontinuous Lagrange", degree, tuple(V.value_shape)))

    def _xdmf_form(self, u: Any) -> Any:
        V = u.function_space
        e = V.ufl_element()
        degree = compat.coordinate_element(V.mesh).degree
        if is_lagrange(V) and (e.degree == 0 or (e.degree == degree and not e.discontinuous)):
            return u
        return self._copy(u, ("Lagrange", degree, tuple(V.value_shape)))

    def _copy(self, u: Any, element: tuple[Any, ...]) -> Any:
        element = element if element[2] else element[:2]
        v = fem.Function(fem.functionspace(u.function_space.mesh, element), name=u.name)
        self._copies.append((u, v))
        e = u.function_space.ufl_element()
        self.notes.append(
            f"{u.name}: {e.family_name} of degree {e.degree} is written as {element[0]} of degree "
            f"{element[1]}"
        )
        return v

    def write(self, t: float) -> None:
        """Write the present values at a time. Collective."""
        for u, v in self._copies:
            v.interpolate(u)
        if dolfinx.has_adios2:
            for writer in self._writers:
                writer.write(t)
        else:
            for u in self._xdmf:
                self._writers[0].write_function(u, t)

    def close(self) -> None:
        """Finish the files. Collective."""
        for writer in self._writers:
            writer.close()
        self._writers = []

    def __enter__(self) -> FieldWriter:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()
