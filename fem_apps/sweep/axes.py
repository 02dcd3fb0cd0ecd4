"""What `--over` and `--shard` say: the keys that a sweep varies, and the values that each takes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fem_apps.errors import CaseError

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER}):({NUMBER})(?::(\d+))?(:log)?")
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Axis:
    """A key and its values, or, for `--sample`, the interval that they are drawn from.

    Attributes:
        key: of the case, such as "time.end".
        values: in the order given; empty for an interval.
        low: lower end of an interval or range.
        high: its upper end.
        log: whether it is spaced, or drawn, by the logarithm.
        whole: whether the key takes whole numbers only.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def at(self, u: np.ndarray) -> list[Any]:
        """Values at u in [0, 1): of an interval by its distribution, else one of the list."""
        if self.values:
            return [self.values[int(k)] for k in np.floor(u * len(self.values))]
        if self.whole:
            return [int(k) for k in np.floor(self.low + u * (self.high - self.low + 1))]
        if self.log:
            return [float(v) for v in self.low * (self.high / self.low) ** u]
        return [float(v) for v in self.low + u * (self.high - self.low)]


def parse_over(text: str) -> Axis:
    """`key=a,b,c`, `key=lo:hi:n`, `key=lo:hi:n:log`; for `--sample` also `key=lo:hi[:log]`.

    Raises:
        CaseError: not of this form, no values, a value twice, lo not below hi.
    """
    key, equals, said = (part.strip() for part in text.partition("="))
    where = f"--over {text!r}"
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise CaseError(f"{where}: give table.key=a,b,c or table.key=lo:hi:n[:log]")
    if not said:
        raise CaseError(f"{where}: no values; give a,b,c or lo:hi:n[:log]")
    found = RANGE.fullmatch(said)
    if found:
        return _range(key, where, *found.groups())
    if ":" in said and re.fullmatch(r"[\d.eE+:-]*(:log)?", said):
        raise CaseError(f"{where}: a range is lo:hi:n or lo:hi:n:log, with n a whole number")
    values = [_value(part.strip(), where) for part in _split(said)]
    for i, value in enumerate(values):
        if value in values[:i]:
            raise CaseError(f"{where}: the value {value!r} is there twice")
    return Axis(key, tuple(values))


def _range(key: str, where: str, lo: str, hi: str, n: str | None, log: str | None) -> Axis:
    low, high = float(lo), float(hi)
    if n is not None and int(n) < 1:
        raise CaseError(f"{where}: the range is empty; n is at least 1")
    if not low < high and not (n == "1" and low == high):
        raise CaseError(f"{where}: the range is empty: {lo} is not below {hi}")
    if log and low <= 0:
        raise CaseError(f"{where}: a logarithmic range begins above 0, not at {lo}")
    if n is None:
        return Axis(key, (), low, high, bool(log))
    count = int(n)
    spaced = np.geomspace(low, high, count) if log else np.linspace(low, high, count)
    values: list[Any] = list(map(float, spaced))
    written_whole = re.fullmatch(r"[+-]?\d+", lo) and re.fullmatch(r"[+-]?\d+", hi)
    if written_whole and all(v == int(v) for v in values):
        values = [int(v) for v in values]
    return Axis(key, tuple(values), low, high, bool(log))


def _value(text: str, where: str) -> Any:
    """A value as `--set` reads it: TOML, or a bare word."""
    if not text:
        raise CaseError(f"{where}: a value is empty; quote it if it is text: '\"\"'")
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        else:
            depth += (c in OPENING) - (c in CLOSING)
            if c == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += c
    return parts


def parse_shard(text: str | None) -> tuple[int, int]:
    """`i/n` as (i, n), 1 <= i <= n; (1, 1) for None.

    Raises:
        CaseError: not of this form, or no such part.
    """
    if text is None:
        return 1, 1
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not found:
        raise CaseError(f"--shard {text!r}: give i/n, such as 2/8")
    i, n = int(found[1]), int(found[2])
    if not 1 <= i <= n:
        raise CaseError(f"--shard {text}: there are parts 1/{max(n, 1)} to {max(n, 1)}/{max(n, 1)}")
    return i, n
