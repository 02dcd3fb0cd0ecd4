"""Compiled sums over all pairs: s_i = sum_j exp(a_i.y_j + b_j - c_i) (y_j, 1), memory O(n d).

numba has no vector exp (numba #10060), so it is written out such that LLVM vectorises it: with
z = log2(e) (a.y + b - c) <= 0 rounded to an integer k by adding 1.5 2^52, 2^(z - k) is a
polynomial of degree 10 (relative error 3e-16), and k goes into the exponent bits. Below 2^-1020
the result is 2^-1020: no argument is too large. Up to d = 3 nothing is stored per pair; above,
tiles of 256 x 512 pairs go through the matrix product of BLAS twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from fem_apps.attention.circle_sums import circle_sums

LOG2E = 1.4426950408889634
MAGIC = 6755399441055744.0
# 2^f on [-1/2, 1/2], interpolated at Chebyshev points
P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10 = (
    1.0,
    0.69314718055995,
    0.24022650695910097,
    0.05550410866444771,
    0.009618129107606949,
    0.0013333558230165855,
    0.0001540353044168443,
    1.525265725977902e-05,
    1.3215442609276775e-06,
    1.0208690372639245e-07,
    7.072582572548229e-09,
)
# sums may be reordered, which makes them vectors; the exponential may not
SUMS = {"reassoc", "contract", "nsz"}
# exponents that far below c_i are as good as 0; a bound that loose needs a pass for the maxima
LOOSE = 300.0
# pairs from which circle_sums pays
ON_CIRCLE = 2**22
ROWS, COLUMNS = 256, 512
# sources whose coordinates and sums stay in a near cache
SOURCES = 2048


@intrinsic
def _scale(typingctx: Any, p: Any, t: Any) -> Any:
    """P 2^k, k the integer in the low bits of t."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = context.get_value_type(types.int64)
        k = builder.shl(builder.bitcast(args[1], bits), bits(52))
        total = builder.add(builder.bitcast(args[0], bits), k)
        return builder.bitcast(total, context.get_value_type(types.float64))

    return types.float64(types.float64, types.float64), codegen


@njit(fastmath={"contract"}, error_model="numpy")
def exp2(z):  # type: ignore[no-untyped-def]
    """2^z for z <= 1000; 2^-1020 below -1020."""
    return bounded_exp2(max(z, -1020.0))


@njit(fastmath={"contract"}, error_model="numpy")
def bounded_exp2(z):  # type: ignore[no-untyped-def]
    """2^z for -1020 <= z <= 1000."""
    t = z + MAGIC
    f = z - (t - MAGIC)
    f2 = f * f
    f4 = f2 * f2
    low = (P0 + P1 * f) + f2 * (P2 + P3 * f)
    high = (P4 + P5 * f) + f2 * (P6 + P7 * f) + f4 * ((P8 + P9 * f) + f2 * P10)
    return _scale(low + f4 * high, t)


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _sums3(a, y, b, c, out):  # type: ignore[no-untyped-def]
    """a, b, c in units of log2(e); rows of a and y are the coordinates."""
    y0, y1, y2 = y[0], y[1], y[2]
    for i in range(len(c)):
        a0, a1, a2, ci = a[0, i], a[1, i], a[2, i], c[i]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(len(b)):
            w = exp2((b[j] - ci) + a0 * y0[j] + a1 * y1[j] + a2 * y2[j])
            s0 += w * y0[j]
            s1 += w * y1[j]
            s2 += w * y2[j]
            s3 += w
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = s0, s1, s2, s3


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _symmetric3(y, m, beta, c, out):  # type: ignore[no-untyped-def]
    """The sums for a = beta y: the exponential of a pair serves both of its tokens.

    out: rows of coordinates and the plain sum, (4, n), of exp(beta y_i.y_j - c) m_j (y_j, 1).
    """
    n = len(m)
    y0, y1, y2 = y[0], y[1], y[2]
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    for start in range(0, n, SOURCES):
        block = slice(start, start + SOURCES)  # slices: no index in them may be negative
        b0, b1, b2, bm = y0[block], y1[block], y2[block], m[block]
        t0, t1, t2, t3 = o0[block], o1[block], o2[block], o3[block]
        for i in range(start, n):
            a0, a1, a2, mi = beta * y0[i], beta * y1[i], beta * y2[i], m[i]
            q0, q1, q2 = mi * y0[i], mi * y1[i], mi * y2[i]
            s0 = s1 = s2 = s3 = 0.0
            for j in range(min(len(bm), i - start)):
                e = bounded_exp2(((a0 * b0[j] - c) + a1 * b1[j]) + a2 * b2[j])
                w = bm[j] * e
                s0 += w * b0[j]
                s1 += w * b1[j]
                s2 += w * b2[j]
                s3 += w
                t0[j] += e * q0
                t1[j] += e * q1
                t2[j] += e * q2
                t3[j] += e * mi
            o0[i] += s0
            o1[i] += s1
            o2[i] += s2
            o3[i] += s3
    for i in range(n):
        w = m[i] * exp2(beta * (y0[i] ** 2 + y1[i] ** 2 + y2[i] ** 2) - c)
        o0[i] += w * y0[i]
        o1[i] += w * y1[i]
        o2[i] += w * y2[i]
        o3[i] += w


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _max3(a, y, b, out):  # type: ignore[no-untyped-def]
    y0, y1, y2 = y[0], y[1], y[2]
    for i in range(len(out)):
        a0, a1, a2 = a[0, i], a[1, i], a[2, i]
        top = -np.inf
        for j in range(len(b)):
            top = max(top, b[j] + a0 * y0[j] + a1 * y1[j] + a2 * y2[j])
        out[i] = top


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _exp_tile(S, b, c, sums):  # type: ignore[no-untyped-def]
    """S = 2^(S + b - c), and add its row sums."""
    for i in range(S.shape[0]):
        row, ci, total = S[i], c[i], 0.0
        for j in range(S.shape[1]):
            w = exp2(row[j] + (b[j] - ci))
            row[j] = w
            total += w
        sums[i] += total


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _exp_tile_both(S, c, m_rows, m_columns, rows, columns):  # type: ignore[no-untyped-def]
    """S = 2^(S - c), and add the sums of its rows and columns with masses."""
    for i in range(S.shape[0]):
        row, mi, total = S[i], m_rows[i], 0.0
        for j in range(S.shape[1]):
            w = bounded_exp2(row[j] - c)
            row[j] = w
            total += w * m_columns[j]
            columns[j] += w * mi
        rows[i] += total


def _symmetric_tiles(y: np.ndarray, m: np.ndarray, beta: float, c: float) -> np.ndarray:
    """The sums for a = beta y in many dimensions: a tile of weights serves its rows and columns.

    Half of the first products and of the exponentials are saved. beta and c in units of log2(e).

    Returns:
        (n, d + 1).
    """
    n, d = y.shape
    scaled, values = beta * y, m[:, None] * y
    out, plain, unused = np.zeros((n, d)), np.zeros(n), np.empty(ROWS)
    buffer, part = np.empty(ROWS * ROWS), np.empty((ROWS, d))
    tiles = [slice(i, min(i + ROWS, n)) for i in range(0, n, ROWS)]
    for k, rows in enumerate(tiles):
        count = rows.stop - rows.start
        for columns in tiles[: k + 1]:
            width = columns.stop - columns.start
            S = buffer[: count * width].reshape(count, width)
            np.matmul(scaled[rows], y[columns].T, out=S)
            other = plain[columns] if columns is not rows else unused[:width]
            _exp_tile_both(S, c, m[rows], m[columns], plain[rows], other)
            out[rows] += np.matmul(S, values[columns], out=part[:count])
            if columns is not rows:
                out[columns] += np.matmul(S.T, values[rows], out=part[:width])
    return np.concatenate([out, plain[:, None]], axis=1)


def multiple(a: np.ndarray, y: np.ndarray) -> float:
    """The number beta > 0 with a = beta y to rounding; 0 if there is none."""
    if a.shape != y.shape or not len(y):
        return 0.0
    square = float(y[0] @ y[0])
    beta = float(a[0] @ y[0]) / square if square > 0 else 0.0
    if beta > 0 and np.abs(a - beta * y).max() <= 1e-15 * beta * np.abs(y).max():
        return beta
    return 0.0


def compiled_sums(a: np.ndarray, y: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sum_j exp(a_i.y_j + b_j - c_i) (y_j, 1) with c_i at least the largest exponent of row i.

    Args:
        a: (n, d).
        y: (k, d).
        b: (k,).

    Returns:
        sums (n, d + 1), and c (n,): the largest exponent, or a bound at most 300 above it.
    """
    n, d = a.shape
    if d == 2 and n * len(y) >= ON_CIRCLE and (found := circle_sums(a, y, b)) is not None:
        return found
    size = np.sqrt(np.max(np.einsum("jd,jd->j", y, y), initial=0.0))
    top = np.max(b, initial=-np.inf)
    bound = np.sqrt(np.einsum("id,id->i", a, a)) * size
    spread = top - np.min(b, initial=np.inf)
    a2, b2 = a * LOG2E, b * LOG2E
    if d <= 3:
        A, Y = np.zeros((3, n)), np.zeros((3, len(y)))
        A[:d], Y[:d] = a2.T, y.T
        tight = 2 * bound.max(initial=0.0) + spread < LOOSE
        if tight and (beta := multiple(a, y)):
            reach = float(bound.max())
            sums = np.zeros((4, n))
            _symmetric3(Y, np.exp(b - top), beta * LOG2E, reach * LOG2E, sums)
            return np.concatenate([sums[:d].T, sums[3:].T], axis=1), np.full(n, reach + top)
        if tight:
            c = (bound + top) * LOG2E
        else:
            c = np.empty(n)
            _max3(A, Y, b2, c)
        out = np.empty((n, 4))
        _sums3(A, Y, b2, c, out)
        return np.concatenate([out[:, :d], out[:, 3:]], axis=1), c / LOG2E
    tight = 2 * bound.max(initial=0.0) + spread < LOOSE
    if tight and (beta := multiple(a, y)):
        reach = float(bound.max())
        sums = _symmetric_tiles(y, np.exp(b - top), beta * LOG2E, reach * LOG2E)
        return sums, np.full(n, reach + top)
    c = (bound + top) * LOG2E if tight else np.full(n, -np.inf)
    tiles = [slice(j, j + COLUMNS) for j in range(0, len(y), COLUMNS)]
    if not tight:
        for i in range(0, n, ROWS):
            rows = slice(i, i + ROWS)
            for tile in tiles:
                S = a2[rows] @ y[tile].T + b2[tile]
                np.maximum(c[rows], S.max(axis=1), out=c[rows])
    transposed = [np.ascontiguousarray(y[tile].T) for tile in tiles]
    out = np.zeros((n, d + 1))
    buffer, part = np.empty(ROWS * COLUMNS), np.empty(ROWS * d)
    for i in range(0, n, ROWS):
        rows = slice(i, min(i + ROWS, n))
        count = rows.stop - i
        total = np.zeros((count, d))
        product = part[: count * d].reshape(count, d)
        for tile, yt in zip(tiles, transposed, strict=True):
            S = buffer[: count * yt.shape[1]].reshape(count, yt.shape[1])
            np.matmul(a2[rows], yt, out=S)
            _exp_tile(S, b2[tile], c[rows], out[rows, d])
            np.matmul(S, y[tile], out=product)
            total += product
        out[rows, :d] = total
    return out, c / LOG2E
