"""The elastic medium outside the obstacles, and its incident waves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fem_apps.errors import CaseError


@dataclass(frozen=True)
class Medium:
    """Homogeneous isotropic medium: mu Lap u + (lambda+mu) grad div u + rho omega^2 u = 0.

    The time factor is exp(-i omega t). Radiating fields satisfy Kupradze's conditions
    r (d_r u_p - i k_p u_p) -> 0 and r (d_r u_s - i k_s u_s) -> 0.

    Attributes:
        lame_lambda, lame_mu: Lame parameters, mu > 0 and lambda + 2 mu / 3 > 0.
        density: rho > 0.
        omega: angular frequency; 0 is statics, where "radiating" is decay like 1/r.
    """

    lame_lambda: float = 1.0
    lame_mu: float = 1.0
    density: float = 1.0
    omega: float = 1.0

    def __post_init__(self) -> None:
        """Refuse parameters without a wave speed. Raises CaseError."""
        if not self.lame_mu > 0:
            raise CaseError(f"lame_mu = {self.lame_mu:g}: the shear modulus must be positive")
        if not 3 * self.lame_lambda + 2 * self.lame_mu > 0:
            raise CaseError(
                f"lame_lambda = {self.lame_lambda:g}: lambda + 2 mu / 3 must be positive, so "
                f"lambda > {-2 * self.lame_mu / 3:g} here"
            )
        if not self.density > 0:
            raise CaseError(f"density = {self.density:g}: must be positive")
        if not self.omega >= 0:
            raise CaseError(f"omega = {self.omega:g}: must not be negative")

    @property
    def p_modulus(self) -> float:
        """Lambda + 2 mu."""
        return self.lame_lambda + 2 * self.lame_mu

    @property
    def k_p(self) -> float:
        """Wave number of pressure waves, omega / c_p."""
        return self.omega * math.sqrt(self.density / self.p_modulus)

    @property
    def k_s(self) -> float:
        """Wave number of shear waves, omega / c_s."""
        return self.omega * math.sqrt(self.density / self.lame_mu)

    @property
    def rho_omega2(self) -> float:
        """Rho omega^2."""
        return self.density * self.omega**2

    def stress(self, gradient: np.ndarray) -> np.ndarray:
        """Lambda tr(g) I + mu (g + g^T) of gradients g[..., a, b] = d_b u_a."""
        trace = np.trace(gradient, axis1=-2, axis2=-1)
        return self.lame_lambda * trace[..., None, None] * np.eye(3) + self.lame_mu * (
            gradient + np.swapaxes(gradient, -1, -2)
        )


@dataclass(frozen=True)
class PlaneWave:
    """P: d exp(i k_p d.x), or S: p exp(i k_s d.x) with p orthogonal to d.

    Attributes:
        direction: d; made of unit length.
        polarisation: p of a shear wave, its part orthogonal to d of unit length; None: a P wave.
    """

    direction: tuple[float, float, float] = (0.0, 0.0, 1.0)
    polarisation: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse directions of length 0 and longitudinal polarisations. Raises CaseError."""
        d = np.asarray(self.direction, dtype=float)
        if d.shape != (3,) or not np.linalg.norm(d) > 0:
            raise CaseError(f"direction = {self.direction}: give three numbers, not all zero")
        if self.polarisation is not None:
            p = np.asarray(self.polarisation, dtype=float)
            size = np.linalg.norm(p)
            if p.shape != (3,) or not np.linalg.norm(np.cross(d, p)) > 1e-8 * size:
                raise CaseError(
                    f"polarisation = {self.polarisation}: a shear wave is polarised across its "
                    f"direction {self.direction}; for a pressure wave leave polarisation out"
                )

    @property
    def d(self) -> np.ndarray:
        """Unit direction."""
        d = np.asarray(self.direction, dtype=float)
        return d / np.linalg.norm(d)

    @property
    def shear(self) -> bool:
        """Whether this is an S wave."""
        return self.polarisation is not None

    @property
    def a(self) -> np.ndarray:
        """Unit amplitude: d of a P wave, p of an S wave."""
        if self.polarisation is None:
            return self.d
        p = np.asarray(self.polarisation, dtype=float)
        p = p - (p @ self.d) * self.d
        return p / np.linalg.norm(p)

    def wave_number(self, medium: Medium) -> float:
        """K_s or k_p."""
        return medium.k_s if self.shear else medium.k_p

    def displacement(self, medium: Medium, x: np.ndarray) -> np.ndarray:
        """U at points x (n, 3); shape (n, 3)."""
        return np.exp(1j * self.wave_number(medium) * (x @ self.d))[:, None] * self.a

    def gradient(self, medium: Medium, x: np.ndarray) -> np.ndarray:
        """G[., a, b] = d_b u_a at points x (n, 3); shape (n, 3, 3)."""
        k = self.wave_number(medium)
        return 1j * k * self.displacement(medium, x)[:, :, None] * self.d

    def traction(self, medium: Medium, x: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Sigma(u) n at points x with unit normals, both (n, 3); shape (n, 3)."""
        return np.einsum("nab,nb->na", medium.stress(self.gradient(medium, x)), normals)
