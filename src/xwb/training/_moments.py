"""Means and standard deviations of features in one pass, and features standardised with them."""

from __future__ import annotations

import numpy as np

from ..core import Array

TILE = 2**16  # numbers at a time: half a megabyte in float64, which stays in the processor's cache


class Moments:
    """Mean and standard deviation (1/N) of each of D features, block by block, in float64.

    Each is of x − first row, so that numbers far from 0 lose nothing: tiles of rows by their mean and their squares
    about it, put together by the formula of Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for
    computing sample variances, 1979.
    """

    def __init__(self, features: int) -> None:
        self.rows = 0
        self._first = np.zeros(features)
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)

    def add(self, X: Array) -> bool:
        """Count the rows of ``X``, (n, D) of any numbers; whether all sums are finite still."""
        if len(X) and not self.rows:
            self._first = X[0].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for tile in tiles(X):
                self._add(X[tile].astype(np.float64))
            return bool(np.isfinite(self._squares).all() and np.isfinite(self._mean + self._first).all())

    def _add(self, Z: Array) -> None:
        """Count a tile, which is overwritten."""
        n, before = len(Z), self.rows
        Z -= self._first
        mean = Z.sum(0) / n
        Z -= mean
        self.rows = before + n
        step = mean - self._mean
        self._squares += np.einsum("nd,nd->d", Z, Z) + step * step * (before * n / self.rows)
        self._mean += step * (n / self.rows)

    @property
    def mean(self) -> Array:
        """(D,)"""
        return self._first + self._mean

    @property
    def constant(self) -> Array:
        """(D,) bool: the features that have one value in all rows."""
        constant: Array = self._squares == 0
        return constant

    @property
    def scale(self) -> Array:
        """(D,) standard deviations; 1 for a constant feature."""
        scale: Array = np.sqrt(self._squares / max(1, self.rows))
        scale[(scale == 0) | self.constant] = 1
        return scale


def standardise(X: Array, mean: Array, scale: Array) -> Array:
    """(x − mean)/scale in float64, rounded to float32, (n, D); what float32 cannot hold is infinite."""
    out = np.empty(X.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for tile in tiles(X):
            Z = X[tile].astype(np.float64)
            Z -= mean
            Z /= scale
            out[tile] = Z
    return out


def tiles(X: Array) -> list[slice]:
    """Slices of the rows of ``X``, (n, D), that have about 2¹⁶ numbers each."""
    step = max(1, TILE // max(1, X.shape[1]))
    return [slice(start, start + step) for start in range(0, len(X), step)]
