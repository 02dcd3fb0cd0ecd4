"""Finite-element applications on DOLFINx, coupled to inverse problems, control and learning.

Importing this package loads neither DOLFINx nor JAX.
"""

__version__ = "0.1.0"
