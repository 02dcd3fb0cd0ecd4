"""Weak forms of the exterior Navier-Lame problem in complex UFL.

With the scattered field u in a ball without the obstacle, sigma(u) = lambda div u I + 2 mu eps(u),

    a(u, v) = int sigma(u) : conj(grad v) - rho omega^2 u . conj(v)  -  truncation,

and in a spherical layer R < r < R + d, with r~ = r + i S ((r - R)/d)^m and F = d x~/d x,

    int J (s(u) F^-T) : conj(grad v) - rho omega^2 J u . conj(v),   s(u) of g(u) = grad u F^-1.

Every complex coefficient is in the first slot of `inner`, which is not conjugated: the matrix is
complex symmetric. (Lysmer and Kuhlemeyer 1969; Bramble, Pasciak and Trenev 2010.)
"""

from __future__ import annotations

from typing import Any, Literal

import ufl
from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.fundamental.medium import Medium


class Truncation(Table):
    """How the outside of the ball is taken into account."""

    type: Literal["pml", "lysmer", "dtn", "fixed"] = Field(
        "pml",
        description="pml: absorbing layer (cells 'layer' of the mesh); lysmer: dashpots on "
        "'outer'; dtn: exact radiation by vector harmonics on 'outer'; fixed: u = 0 on 'outer'",
    )
    radius: float = Field(1.5, gt=0, description="R: where the layer begins, or of 'outer'")
    thickness: float = Field(0.5, gt=0, description="d: thickness of the layer")
    strength: float = Field(3.0, gt=0, description="S: imaginary part of r~ at the layer's end")
    power: int = Field(3, ge=1, le=6, description="m: of the profile")
    curvature: bool = Field(False, description="lysmer: with the terms of a sphere's curvature")
    degree: int = Field(8, ge=1, le=30, description="dtn: largest degree of the harmonics")

    @model_validator(mode="after")
    def _used(self) -> Truncation:
        if self.curvature and self.type != "lysmer":
            raise ValueError("curvature is of type = 'lysmer'")
        return self


def stress(g: Any, lam: Any, mu: Any) -> Any:
    """Lambda tr(g) I + mu (g + g^T)."""
    return lam * ufl.tr(g) * ufl.Identity(3) + mu * (g + g.T)


def elastic(u: Any, v: Any, lam: Any, mu: Any, rho_omega2: Any, dx: Any) -> Any:
    """Int sigma(u) : conj(grad v) - rho omega^2 u . conj(v)."""
    sigma = stress(ufl.grad(u), lam, mu)
    return ufl.inner(sigma, ufl.grad(v)) * dx - rho_omega2 * ufl.inner(u, v) * dx


def layer(u: Any, v: Any, x: Any, t: Truncation, k: Any, dx: Any) -> Any:
    """The same in the layer, with complex coordinates.

    Args:
        u: trial function.
        v: test function.
        x: spatial coordinate.
        t: radius, thickness, strength, power.
        k: constants lambda, mu, rho omega^2.
        dx: measure of the layer.
    """
    lam, mu, rho_omega2 = k
    r = ufl.sqrt(ufl.dot(x, x))
    s = (r - t.radius) / t.thickness
    stretched = r + 1j * t.strength * s**t.power
    slope = 1 + 1j * t.strength * t.power / t.thickness * s ** (t.power - 1)
    e = x / r
    P = ufl.outer(e, e)  # real: the conjugate that `outer` takes of e changes nothing
    F_inverse = P / slope + (r / stretched) * (ufl.Identity(3) - P)
    J = slope * (stretched / r) ** 2
    sigma = stress(ufl.grad(u) * F_inverse, lam, mu)
    return (
        ufl.inner(J * sigma * F_inverse.T, ufl.grad(v)) * dx - rho_omega2 * ufl.inner(J * u, v) * dx
    )


def dashpots(
    u: Any, v: Any, n: Any, medium: Medium, radius: float, curvature: bool, ds: Any
) -> Any:
    """Int (T u) . conj(v) by the Lysmer-Kuhlemeyer condition.

    T u = i omega rho [c_p u_n + c_s u_t], u_n = (u.n) n, u_t = u - u_n; with `curvature`, as a
    sphere has it, t_n = [(lambda + 2 mu)(i k_p - 1/R) + 2 lambda/R] u_n,
    t_t = mu (i k_s - 2/R) u_t.
    """
    m = medium
    along = 1j * m.k_p * m.p_modulus
    across = 1j * m.k_s * m.lame_mu
    if curvature:
        along += (2 * m.lame_lambda - m.p_modulus) / radius
        across -= 2 * m.lame_mu / radius
    u_n = ufl.dot(u, n) * n
    return along * ufl.inner(u_n, v) * ds + across * ufl.inner(u - u_n, v) * ds


def plane_wave(x: Any, k: Any, d: Any, a: Any) -> tuple[Any, Any]:
    """U = a exp(i k d.x) and its gradient; k, d, a are constants, so that waves can be changed."""
    phase = ufl.exp(1j * k * ufl.dot(d, x))
    dyad = ufl.as_matrix([[a[i] * d[j] for j in range(3)] for i in range(3)])
    return phase * a, 1j * k * phase * dyad
