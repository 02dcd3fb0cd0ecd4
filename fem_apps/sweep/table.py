"""The table of a sweep: the rows of all its shards, filtered, sorted, printed, exported."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.files import write_whole
from fem_apps.sweep import record

BEFORE, AFTER = ("id",), ("status",)
LAST = ("wall", "ranks", "error", "folder", "finished")


@dataclass(frozen=True)
class Table:
    """Rows of a sweep.

    Attributes:
        columns: id, the varied keys, status, the metrics, wall (s), ranks, error, folder, finished.
        rows: values, None where there is none; lists as JSON text.
        keys: the varied keys.
        metrics: names of the metrics.
        meta: what the record says of the sweep.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    keys: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict, repr=False)

    def column(self, name: str) -> str:
        """The full name of a column, from it or from its end after a dot: "end" for "time.end".

        Raises:
            CaseError: none or several such columns.
        """
        if name in self.columns:
            return name
        ends = [c for c in self.columns if c.endswith(f".{name}")]
        if len(ends) == 1:
            return ends[0]
        what = "no column" if not ends else f"several columns ({', '.join(ends)}) for"
        raise CaseError(f"{what} {name!r}; there are: {', '.join(self.columns)}")

    def values(self, name: str) -> list[Any]:
        """A column."""
        at = self.columns.index(self.column(name))
        return [row[at] for row in self.rows]

    def numbers(self, name: str) -> np.ndarray:
        """A column as floats, NaN where there is none.

        Raises:
            CaseError: a value is text, or no value is a number.
        """
        values = self.values(name)
        if any(isinstance(v, str) for v in values):
            raise CaseError(f"column {self.column(name)!r} is not of numbers")
        out = np.array([np.nan if v is None else float(v) for v in values])
        if not np.isfinite(out).any():
            raise CaseError(f"column {self.column(name)!r} has no number in it")
        return out


def load(place: Path) -> Table:
    """The table of a sweep: its folder, with the records of one or several shards, or one record.

    Raises:
        CaseError: no record of a sweep there.
    """
    files = record.files_in(place) if place.is_dir() else [place]
    if not files:
        raise CaseError(f"{place} is not the folder of a sweep: it has no sweep.sqlite")
    parts = [record.read(f) for f in files]
    meta = parts[0][0]
    cases = sorted((row for _, rows in parts for row in rows), key=lambda row: row["id"])
    parameters = [json.loads(row["parameters"]) for row in cases]
    metrics = [_flat(json.loads(row["metrics"] or "{}")) for row in cases]
    keys = tuple(dict.fromkeys(k for p in parameters for k in p))
    names = tuple(dict.fromkeys(k for m in metrics for k in m))
    taken = {*BEFORE, *AFTER, *LAST, *keys}
    shown = tuple(f"metrics.{n}" if n in taken else n for n in names)
    rows = [
        (
            row["id"],
            *(_cell(p.get(k)) for k in keys),
            row["status"],
            *(_cell(m.get(n)) for n in names),
            *(row[c] for c in LAST),
        )
        for row, p, m in zip(cases, parameters, metrics, strict=True)
    ]
    return Table((*BEFORE, *keys, *AFTER, *shown, *LAST), rows, keys, shown, meta)


def _flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in metrics.items():
        if key == "not_finite" and not prefix:
            continue
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def select(table: Table, where: str | None = None, sort: Sequence[str] = ()) -> Table:
    """The rows for which an SQL expression in the columns is true, sorted.

    Args:
        table: of a sweep.
        where: such as "status = 'done' and time.end < 3"; columns as `Table.column` takes them.
        sort: columns, "-" before one for falling order.

    Raises:
        CaseError: the expression is not one, or names no column.
    """
    if not where and not sort:
        return table
    names = ", ".join(_quoted(c) for c in table.columns)
    order = []
    for name in sort:
        falling = name.startswith("-") and name not in table.columns
        order.append(_quoted(table.column(name[falling:])) + (" desc" if falling else ""))
    db = sqlite3.connect(":memory:")
    try:
        db.execute(f"create table t ({names})")
        places = ", ".join("?" * len(table.columns))
        db.executemany(f"insert into t values ({places})", table.rows)
        db.execute("pragma query_only = on")
        statement = "select * from t"
        if where:
            statement += f" where ({_expression(table, where)})"
        if order:
            statement += " order by " + ", ".join(order)
        rows = db.execute(statement).fetchall()
    except sqlite3.Error as e:
        raise CaseError(f"--where {where!r}: {e}; columns: {', '.join(table.columns)}") from None
    finally:
        db.close()
    return Table(table.columns, rows, table.keys, table.metrics, table.meta)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _expression(table: Table, text: str) -> str:
    """The expression with every name of a column quoted: "time.end" is one name, not two."""

    def name(found: re.Match[str]) -> str:
        word = found[0]
        if word[0] in "'\"" or word[0].isdigit():
            return word
        if word in table.columns or sum(c.endswith(f".{word}") for c in table.columns) == 1:
            return _quoted(table.column(word))
        return word

    return re.sub(r"'[^']*'|\"[^\"]*\"|\d[\w.]*|[^\W\d][\w-]*(?:\.[\w-]+)*", name, text)


def text(table: Table, columns: Sequence[str], *, limit: int = 0) -> str:
    """Rows as aligned plain text; at most `limit` of them, 0 for all."""
    at = [table.columns.index(c) for c in columns]
    shown = table.rows[:limit] if limit else table.rows
    cells = [list(columns)] + [[_short(row[i]) for i in at] for row in shown]
    widths = [max(len(row[j]) for row in cells) for j in range(len(at))]
    numeric = [all(not isinstance(row[i], str) for row in shown) for i in at]
    lines = [
        "  ".join(
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    if len(shown) < len(table.rows):
        lines.append(f"... {len(table.rows) - len(shown)} more rows; --all, --csv or --parquet")
    return "\n".join(lines)


def default_columns(table: Table, most: int = 6) -> list[str]:
    """Columns that fit a page: id, the varied keys, status, the first metrics, wall, an error."""
    failed = any(table.values("error")) if table.rows else False
    metrics = [m for m in table.metrics if any(v is not None for v in table.values(m))]
    return ["id", *table.keys, "status", *metrics[:most], "wall", *(["error"] if failed else [])]


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    said = str(value)
    return said if len(said) <= 60 else said[:57] + "..."


def write_csv(table: Table, path: Path) -> None:
    """Export as CSV; floats read back exactly. Raises CaseError."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    _write(path, out.getvalue().encode())


def write_parquet(table: Table, path: Path) -> None:
    """Export as Parquet, with the plan of the sweep in its metadata. Raises CaseError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: list[Any] = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    arrays = []
    for values in columns:
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers and words, or whole and not
            number = all(v is None or isinstance(v, int | float) for v in values)
            plain = float if number else str
            arrays.append(pa.array([None if v is None else plain(v) for v in values]))
    about = {"fem_apps": json.dumps(table.meta)}
    found = pa.table(arrays, names=list(table.columns)).replace_schema_metadata(about)
    buffer = io.BytesIO()
    pq.write_table(found, buffer)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as e:
        raise CaseError(f"cannot write {path}: {e.strerror}") from None
