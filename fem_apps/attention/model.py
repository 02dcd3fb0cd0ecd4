"""The `[attention]` table of a case: which field, which matrices; and the matrices as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.errors import CaseError

Matrix = float | tuple[tuple[float, ...], ...]
Variant = Literal["softmax", "unnormalised", "scaled", "l2", "sinkhorn", "linear", "sigmoid"]


class HeadTable(Table):
    """One head: a number is that multiple of the identity."""

    Q: Matrix = Field(1.0, description="query matrix, k x d")
    K: Matrix = Field(1.0, description="key matrix, k x d")
    V: Matrix = Field(1.0, description="value matrix, d x d, or k x d with W")
    W: Matrix | None = Field(None, description="output matrix of the head, d x k")


class Attention(Table):
    """The attention field Gamma_mu(x), with mu the tokens or a density."""

    variant: Variant = Field(
        "softmax",
        description="weight of y at x: softmax exp(beta<Qx,Ky>) over its integral; unnormalised "
        "without that; scaled: unnormalised times exp(-beta); l2 exp(-beta|Qx-Ky|^2) over its "
        "integral; sinkhorn: its bistochastic limit, times beta; linear beta<Qx,Ky>; sigmoid "
        "1/(1+exp(-beta<Qx,Ky>))",
    )
    beta: float = Field(1.0, ge=0, description="inverse temperature")
    Q: Matrix = Field(1.0, description="query matrix, k x d; a number: times the identity")
    K: Matrix = Field(1.0, description="key matrix, k x d")
    V: Matrix = Field(1.0, description="value matrix, d x d")
    heads: tuple[HeadTable, ...] = Field((), description="several heads, instead of Q, K, V")
    masked: bool = Field(False, description="causal: token i sees the tokens j <= i only")
    layer_norm: bool = Field(
        True, description="project on the tangent space of the unit sphere; false: all of R^d"
    )

    @model_validator(mode="after")
    def _one(self) -> Attention:
        if self.heads and self.model_fields_set & {"Q", "K", "V"}:
            raise ValueError("give either heads or Q, K, V")
        return self


@dataclass(frozen=True)
class HeadArrays:
    """One head as arrays: A = K^T Q, V (with W: W V), Q and K themselves; all d columns."""

    A: np.ndarray
    V: np.ndarray
    Q: np.ndarray
    K: np.ndarray


def heads(attention: Attention, d: int) -> tuple[HeadArrays, ...]:
    """The matrices for tokens in d dimensions.

    Raises:
        CaseError: Q and K of unlike shape, or a matrix that does not fit d.
    """
    tables = attention.heads or (HeadTable(Q=attention.Q, K=attention.K, V=attention.V, W=None),)
    out = []
    for i, table in enumerate(tables):
        where = f"attention.heads.{i}." if attention.heads else "attention."
        Q = array(table.Q, d, where + "Q")
        K = array(table.K, d, where + "K")
        V = array(table.V, d, where + "V")
        if Q.shape != K.shape:
            raise CaseError(
                f"{where}Q has shape {Q.shape[0]} x {Q.shape[1]} and {where}K "
                f"{K.shape[0]} x {K.shape[1]}: they must be alike"
            )
        for name, M in (("Q", Q), ("K", K), ("V", V)):
            if M.shape[1] != d:
                raise CaseError(
                    f"{where}{name} has {M.shape[1]} columns; the tokens have {d} dimensions"
                )
        if table.W is not None:
            W = array(table.W, d, where + "W")
            if W.shape != (d, V.shape[0]):
                raise CaseError(f"{where}W must be {d} x {V.shape[0]} for this V")
            V = W @ V
        if V.shape != (d, d):
            raise CaseError(f"{where}V must be {d} x {d}, it is {V.shape[0]} x {V.shape[1]}")
        out.append(HeadArrays(K.T @ Q, V, Q, K))
    return tuple(out)


def array(value: Matrix, d: int, name: str) -> np.ndarray:
    """A matrix of a case; a number is that multiple of the identity.

    Raises:
        CaseError: rows of unlike length.
    """
    if isinstance(value, float | int):
        return float(value) * np.eye(d)
    lengths = {len(row) for row in value}
    if len(lengths) != 1 or 0 in lengths:
        raise CaseError(f"{name}: the rows of a matrix have one length, these {sorted(lengths)}")
    return np.array(value, dtype=float)


def energy_matrix(attention: Attention, d: int) -> tuple[np.ndarray, float] | None:
    """(D, sign) of a field that is the gradient of an energy; None for others.

    That is: one head, D = beta K^T Q symmetric, and V = sign c D with c > 0.

    E(mu) = 1/2 iint exp(x.Dy) dmu dmu then rises (sign 1) or falls (-1) along the flow.
    """
    if attention.variant not in ("softmax", "unnormalised", "scaled") or attention.masked:
        return None
    (head, *more) = heads(attention, d)
    D = attention.beta * head.A
    if more or not np.allclose(D, D.T, atol=1e-12) or not np.any(D):
        return None
    k = int(np.argmax(np.abs(D)))
    c = head.V.ravel()[k] / D.ravel()[k]
    if c != 0 and np.allclose(head.V, c * D, rtol=1e-10, atol=1e-12):
        return D, float(np.sign(c))
    return None
