"""Feed-forward networks whose sparse layers are sums of Kronecker products.

    x_{l+1} = act_l( W_l x_l + b_l ),    W_l = sum of blocks  F_1 (x) F_2 (x) ... ,

act_l one of ReLU, the square, ReLU^2, or none. The layers that Strassen's recursion asks for have
millions of nonzero weights and a few different ones: a block stores its factors, counts its
nonzeros, and is applied factor by factor. `Layer.matrix` writes a layer out as a sparse matrix; the
tests run networks both ways. Sizes follow the literature: weights are nonzero weights and nonzero
biases, layers are affine maps, neurons are the outputs of all layers but the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

Activation = Literal["relu", "square", "relu2"]
# an identity of that size, or a matrix
Factor = int | np.ndarray


def activate(x: Any, name: Activation | None, xp: Any = np) -> Any:
    """The activation, entry by entry."""
    if name is None:
        return x
    if name == "square":
        return x * x
    positive = xp.maximum(x, 0.0)
    return positive if name == "relu" else positive * positive


@dataclass(frozen=True)
class Block:
    """A Kronecker product from a slice of the inputs to a slice of the outputs.

    Attributes:
        source, target: first entry of each slice.
        factors: identities (their sizes) and matrices, outermost first.
    """

    source: int
    target: int
    factors: tuple[Factor, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs, inputs."""
        sizes = [(f, f) if isinstance(f, int) else f.shape for f in self.factors]
        return prod(s[0] for s in sizes), prod(s[1] for s in sizes)

    @property
    def weights(self) -> int:
        """Number of nonzeros."""
        return prod(f if isinstance(f, int) else int(np.count_nonzero(f)) for f in self.factors)

    def apply(self, x: Any, xp: Any = np) -> Any:
        """The product with x of shape (inputs of the layer, batch)."""
        rows, columns = self.shape
        batch = x.shape[1]
        y = x[self.source : self.source + columns]
        sizes = [f if isinstance(f, int) else f.shape[1] for f in self.factors]
        before = 1
        for k, f in enumerate(self.factors):
            if not isinstance(f, int):
                after = prod(sizes[k + 1 :]) * batch
                y = xp.matmul(xp.asarray(f), y.reshape(before, f.shape[1], after))
                sizes[k] = f.shape[0]
            before *= sizes[k]
        return y.reshape(rows, batch)

    def matrix(self) -> Any:
        """The block alone, as a sparse matrix."""
        out: Any = sp.identity(1, format="csr")
        for f in self.factors:
            out = sp.kron(out, sp.identity(f) if isinstance(f, int) else sp.csr_matrix(f), "csr")
        return out


@dataclass(frozen=True)
class Bias:
    """Biases of a slice of the outputs: a Kronecker product of vectors, of ones where a number."""

    target: int
    factors: tuple[Factor, ...]

    @property
    def weights(self) -> int:
        """Number of nonzeros."""
        return prod(f if isinstance(f, int) else int(np.count_nonzero(f)) for f in self.factors)

    def vector(self) -> np.ndarray:
        """The entries."""
        out: np.ndarray = np.ones(1)
        for f in self.factors:
            out = np.kron(out, np.ones(f) if isinstance(f, int) else f)
        return out


@dataclass(frozen=True)
class Layer:
    """One affine map and its activation.

    Attributes:
        inputs, outputs: widths.
        blocks: of the matrix, no two with a common entry.
        biases: of disjoint slices.
        activation: None where the layer is only affine.
    """

    inputs: int
    outputs: int
    blocks: tuple[Block, ...]
    biases: tuple[Bias, ...] = ()
    activation: Activation | None = None

    @property
    def weights(self) -> int:
        """Nonzero weights and biases."""
        return sum(b.weights for b in self.blocks) + sum(b.weights for b in self.biases)

    def apply(self, x: Any, xp: Any = np) -> Any:
        """The layer, on x of shape (inputs, batch)."""
        parts: dict[int, Any] = {}
        for b in self.blocks:
            y = b.apply(x, xp)
            parts[b.target] = parts[b.target] + y if b.target in parts else y
        for c in self.biases:
            v = xp.asarray(c.vector())[:, None]
            parts[c.target] = (
                parts[c.target] + v if c.target in parts else v + xp.zeros((1, x.shape[1]))
            )
        starts = sorted(parts)
        ends = [s + parts[s].shape[0] for s in starts]
        if [0, *ends[:-1]] == starts and ends[-1] == self.outputs:
            out = xp.concatenate([parts[s] for s in starts])
        else:  # slices that overlap or leave gaps
            out = xp.zeros((self.outputs, x.shape[1]))
            for s, e in zip(starts, ends, strict=True):
                pad = ((s, self.outputs - e), (0, 0))
                out = out + xp.pad(parts[s], pad)
        return activate(out, self.activation, xp)

    def matrix(self) -> tuple[Any, np.ndarray]:
        """W as a sparse matrix and b, written out."""
        W = sp.csr_matrix((self.outputs, self.inputs))
        for b in self.blocks:
            part = b.matrix().tocoo()
            W = W + sp.csr_matrix(
                (part.data, (part.row + b.target, part.col + b.source)), shape=W.shape
            )
        bias = np.zeros(self.outputs)
        for c in self.biases:
            v = c.vector()
            bias[c.target : c.target + len(v)] += v
        return W, bias


@dataclass(frozen=True)
class Network:
    """A feed-forward network: its layers, the last one without activation."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        for a, b in zip(self.layers, self.layers[1:], strict=False):
            assert a.outputs == b.inputs
        assert self.layers[-1].activation is None

    @property
    def inputs(self) -> int:
        """Width of the input."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Width of the output."""
        return self.layers[-1].outputs

    @property
    def weights(self) -> int:
        """Nonzero weights and biases."""
        return sum(layer.weights for layer in self.layers)

    @property
    def neurons(self) -> int:
        """Outputs of all layers but the last."""
        return sum(layer.outputs for layer in self.layers[:-1])

    @property
    def depth(self) -> int:
        """Number of affine maps."""
        return len(self.layers)

    def apply(self, x: Any, xp: Any = np) -> Any:
        """Outputs, shape (batch, outputs), of inputs of shape (batch, inputs)."""
        y = xp.asarray(x).T
        for layer in self.layers:
            y = layer.apply(y, xp)
        return y.T

    @cached_property
    def compiled(self) -> Callable[[np.ndarray], np.ndarray]:
        """`apply` in JAX and float64, compiled once for every size of batch."""
        import jax
        import jax.numpy as jnp

        run = jax.jit(lambda x: self.apply(x, jnp))

        def call(x: np.ndarray) -> np.ndarray:
            with jax.enable_x64(True):
                return np.asarray(run(jnp.asarray(x, dtype=float)))

        return call

    def __call__(self, x: np.ndarray, most: int = 1 << 25) -> np.ndarray:
        """As `apply`, in JAX and float64, in batches of at most `most` numbers a layer."""
        import jax
        import jax.numpy as jnp

        x = np.atleast_2d(x)
        step = max(1, most // max(layer.outputs for layer in self.layers))
        with jax.enable_x64(True):
            parts = [
                np.asarray(self.apply(jnp.asarray(x[i : i + step], dtype=float), jnp))
                for i in range(0, len(x), step)
            ]
        return np.concatenate(parts)
