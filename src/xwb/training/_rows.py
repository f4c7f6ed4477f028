"""Examples ready to be learnt from: standardised features, coded targets and weights, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ..core import Array


class Rows(NamedTuple):
    """Some examples, borrowed until the next are asked for."""

    X: Array  # (n, D) float32, C order, standardised
    y: Array  # (n,) class codes from 0, or (n, K) targets in float64
    weight: Array | None  # (n,) float64, or None where all weigh 1


class Part(Protocol):
    """The examples of one part of the data, always in the same order and the same blocks.

    Attributes:
        rows: N, their number.
        features: D, how many each has.
        weight: the sum of their weights, N where there are none.
    """

    rows: int
    features: int
    weight: float

    def blocks(self) -> Iterator[Rows]:
        """All examples, in blocks whose size depends on D alone."""

    def batches(self, size: int, rng: Any) -> Iterator[Rows]:
        """All examples once, ``size`` at a time (the last batch has fewer), in an order that ``rng`` draws."""
