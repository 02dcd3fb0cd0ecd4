"""Networks built layer by layer from maps between named values, which may be carried along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from fem_apps.surrogates.strassen_layers import Activation, Bias, Block, Factor, Layer, Network


@dataclass(frozen=True)
class Register:
    """A named slice of the present layer.

    Attributes:
        start: its first entry.
        size: number of values that it stands for.
        read: row that turns its neurons of one value into that value: [1] raw, [1, -1] for
            relu(v), relu(-v). Neurons of a value are `size` apart.
    """

    start: int
    size: int
    read: np.ndarray

    @property
    def width(self) -> int:
        """Neurons."""
        return self.size * len(self.read)


RAW, PAIR = np.array([1.0]), np.array([1.0, -1.0])


class Circuit:
    """Builds a network layer by layer from maps between named registers.

    Attributes:
        registers: those of the present layer.
        layers: what has been built.
    """

    def __init__(self, **inputs: int) -> None:
        self.registers: dict[str, Register] = {}
        start = 0
        for name, size in inputs.items():
            self.registers[name] = Register(start, size, RAW)
            start += size
        self._width = start
        self.layers: list[Layer] = []

    def layer(
        self,
        made: dict[str, tuple[np.ndarray, Sequence[tuple[str, np.ndarray, tuple[Factor, ...]]]]],
        activation: Activation | None,
        biases: dict[str, tuple[np.ndarray, tuple[Factor, ...]]] | None = None,
    ) -> None:
        """Add a layer.

        Args:
            made: for each new register how its neurons read as values, and what they are sums of:
                (old register, column, factors) adds column (x) factors applied to the old values.
            activation: of the layer.
            biases: for a new register: a column and factors, see `Bias`.
        """
        blocks, offsets, new, start = [], [], {}, 0
        for name, (read, sources) in made.items():
            size = 0
            for old, column, factors in sources:
                r = self.registers[old]
                W = np.outer(column, r.read) if column.ndim == 1 else column
                b = Block(r.start, start, (W, *factors) if W.shape != (1, 1) or W[0, 0] != 1
                          else factors or (1,))  # fmt: skip
                assert b.shape[1] == r.width, (name, old, b.shape, r)
                blocks.append(b)
                size = b.shape[0]
            if biases and name in biases:
                column, factors = biases[name]
                offsets.append(Bias(start, (column, *factors)))
                size = size or prod(f if isinstance(f, int) else len(f) for f in (column, *factors))
            new[name] = Register(start, size // len(read), read)
            start += size
        self.layers.append(Layer(self._width, start, tuple(blocks), tuple(offsets), activation))
        self.registers, self._width = new, start

    def network(self) -> Network:
        """The network of all layers so far."""
        return Network(tuple(self.layers))
