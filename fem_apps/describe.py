"""The keys of a case model as text: names, types, defaults, meanings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

NAMES = {
    "str": "text",
    "Path": "file name",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
}


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
        brackets = ("[[", "]]") if get_origin(field.annotation) is tuple else ("[", "]")
        yield f"{pad}{name}{kind} = {default}" if not tables else f"{pad}{name.join(brackets)}"
        if field.description:
            yield f"{pad}    {field.description}"
        for table in tables:
            if len(tables) > 1:
                yield f"{pad}  -- {_first_line(table)}"
            yield from lines(table, indent + 1, (*seen, table))


def meaning(model: Any, key: str) -> str:
    """The description of a key such as "time.end", empty where there is none."""
    at, field = [model], None
    for name in key.split("."):
        if name.isdigit():
            continue
        fields = [m.model_fields[name] for m in at if name in m.model_fields]
        if not fields:
            return ""
        field = fields[0]
        at = [t for f in fields for t in _tables(f.annotation)]
    return (field.description if field is not None else None) or ""


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
    if annotation is None or annotation is type(None):
        return ""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(repr(a) for a in args)
    if origin is Annotated:
        return _type(args[0])
    if origin in (tuple, list):
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"table of {_type(args[1])}"
    if args:
        return " | ".join(t for t in map(_type, args) if t)
    return NAMES.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", "any"))


def _limit(metadata: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >="}
    return ", ".join(
        f"{s} {getattr(metadata, a)}"
        for a, s in signs.items()
        if getattr(metadata, a, None) is not None
    )
