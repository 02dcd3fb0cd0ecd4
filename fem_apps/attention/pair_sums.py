"""Compiled sums over all pairs of tokens, d <= 4: sum_j m_j exp(beta x_i.y_j - shift) (y_j, 1).

numba has no vector exp (numba #10060), so it is written out such that LLVM vectorises it: with
z = log2(e) (beta x.y - shift) <= 0 rounded to an integer k by adding 1.5 2^52, 2^(z - k) is a
polynomial of degree 10 (relative error 3e-16), and k goes into the exponent bits. Below 2^-1020
the result is 2^-1020: no argument is too large. Nothing is stored per pair: memory O(n d).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

LOG2E = 1.4426950408889634
MAGIC = 6755399441055744.0
# 2^f on [-1/2, 1/2], interpolated at Chebyshev points
P = (
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
P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10 = P
# sums may be reordered, which makes them vectors; the exponential may not
SUMS = {"reassoc", "contract", "nsz"}


@intrinsic
def _scale(typingctx: Any, p: Any, t: Any) -> Any:
    """P 2^k, k the integer in the low bits of t."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = context.get_value_type(types.int64)
        k = builder.shl(builder.bitcast(args[1], bits), bits(52))
        sum_ = builder.add(builder.bitcast(args[0], bits), k)
        return builder.bitcast(sum_, context.get_value_type(types.float64))

    return types.float64(types.float64, types.float64), codegen


@njit(fastmath={"contract"}, error_model="numpy")
def exp2(z: float) -> float:
    """2^z for z <= 1000; 2^-1020 below that."""
    z = max(z, -1020.0)
    t = z + MAGIC
    f = z - (t - MAGIC)
    f2 = f * f
    f4 = f2 * f2
    low = (P0 + P1 * f) + f2 * (P2 + P3 * f)
    high = (P4 + P5 * f) + f2 * (P6 + P7 * f) + f4 * ((P8 + P9 * f) + f2 * P10)
    return _scale(low + f4 * high, t)


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _sums3(x, y, m, beta, shift, first, last, out):  # type: ignore[no-untyped-def]
    y0, y1, y2 = y[0], y[1], y[2]
    c, z = beta * LOG2E, -shift * LOG2E
    for i in range(first, last):
        a0, a1, a2 = c * x[0, i], c * x[1, i], c * x[2, i]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(len(m)):
            w = m[j] * exp2(z + a0 * y0[j] + a1 * y1[j] + a2 * y2[j])
            s0 += w * y0[j]
            s1 += w * y1[j]
            s2 += w * y2[j]
            s3 += w
        out[0, i], out[1, i], out[2, i], out[3, i] = s0, s1, s2, s3


@njit(cache=True, fastmath=SUMS, nogil=True, error_model="numpy")
def _sums3s(x, m, beta, shift, out):  # type: ignore[no-untyped-def]
    y0, y1, y2 = x[0], x[1], x[2]
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    c, z = beta * LOG2E, -shift * LOG2E
    for i in range(len(m)):
        a0, a1, a2 = c * y0[i], c * y1[i], c * y2[i]
        mi=m[i]
        b0,b1,b2=mi*y0[i],mi*y1[i],mi*y2[i]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(i):
            e = exp2(z + a0 * y0[j] + a1 * y1[j] + a2 * y2[j])
            o0[j]+=e*b0
            o1[j]+=e*b1
            o2[j]+=e*b2
            o3[j]+=e*mi
            w = m[j] * e
            s0 += w * y0[j]
            s1 += w * y1[j]
            s2 += w * y2[j]
            s3 += w
        w=mi*exp2(z+a0*y0[i]+a1*y1[i]+a2*y2[i])
        o0[i]+=s0+w*y0[i];o1[i]+=s1+w*y1[i];o2[i]+=s2+w*y2[i];o3[i]+=s3+w
