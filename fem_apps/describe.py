"""The keys of a case model as text: names, types, defaults, meanings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def lines(model: type[BaseModel], indent: int = 0, seen: tuple[type, ...] = ()) -> Iterator[str]:
    """Lines that describe a table and the tables in it."""
    pad = "  " * indent
    for name, field in model.model_fields.items():
        if name in ("folder",):
            continue
        tables = [t for t in _tables(field.annotation) if t not in seen]
        default = "required"
        if field.default is not PydanticUndefined:
            default = "none" if field.default is None else _show(field.default)
        elif field.default_factory is not None:
            default = _show(field.default_factory())  # type: ignore[call-arg]
        limits = ", ".join(_limit(m) for m in field.metadata if _limit(m))
        kind = "" if tables else f" ({_type(field.annotation)}{', ' + limits if limits else ''})"
        yield f"{pad}{name}{kind} = {default}" if not tables else f"{pad}[{name}]"
        if field.description:
            yield f"{pad}    {field.description}"
        for table in tables:
            if len(tables) > 1:
                yield f"{pad}  -- {_first_line(table)}"
            yield from lines(table, indent + 1, (*seen, table))


def _show(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _first_line(table: type[BaseModel]) -> str:
    return (table.__doc__ or table.__name__).strip().splitlines()[0]


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return (
        [t for a in get_args(annotation) for t in _tables(a)]
        if get_origin(annotation) is not None
        else []
    )


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(repr(a) for a in get_args(annotation))
    args = get_args(annotation)
    if args:
        return " | ".join(
            _type(a)
            for a in args
            if a is not type(None) and a is not Ellipsis and not hasattr(a, "description")
        )
    return getattr(annotation, "__name__", str(annotation))


def _limit(metadata: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >="}
    return ", ".join(
        f"{s} {getattr(metadata, a)}"
        for a, s in signs.items()
        if getattr(metadata, a, None) is not None
    )
