"""How good predictions of numbers are, added up over blocks of rows in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Array
from ._metric_sums import check_matrices, number, positive, ratio, weights, without_zeros


class RegressionMetrics:
    """Predictions of M targets against their values, block by block.

    Args:
        targets: M, at least 1.

    Sums are float64, and squares are of distances from running means (Chan, Golub and LeVeque 1983, Algorithms for
    computing the sample variance), so that targets may be far from 0. A row of weight 0 is no row at all.

    Raises:
        OptionError: ``targets`` is no positive integer.
    """

    def __init__(self, targets: int) -> None:
        M = self.targets = positive("RegressionMetrics(targets)", "targets", targets)
        self._rows = self._used = 0
        self._weight = 0.0
        self._origin: Array | None = None  # the first targets: of constant ones every distance is exactly 0
        self._mean, self._squares = np.zeros((2, M))  # of the targets, from the origin and from their mean
        self._absolute_errors, self._squared_errors, self._largest_error = np.zeros((3, M))

    def add(self, predictions: Any, T: Any, weight: Any = None) -> None:
        """Count one block of rows; after an error nothing of it is counted.

        Args:
            predictions, T: (n, M), finite numbers.
            weight: (n,), finite, not negative; or None for ones.

        Raises:
            ShapeError: the shapes do not fit.
            DtypeError: no real numbers.
            DataError: a number that is not finite, a negative weight.
        """
        call = "RegressionMetrics.add(predictions, T)"
        predictions, T = np.asarray(predictions), np.asarray(T)
        check_matrices(call, predictions, T, self.targets)
        weight = weights(call, weight, len(T))
        self._rows += len(T)
        weight, (predictions, T) = without_zeros(weight, predictions, T)
        if not len(T):
            return
        self._used += len(T)
        T = T.astype(np.float64)
        s = np.ones(len(T)) if weight is None else weight
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves float64 is None in the result
            E = np.abs(predictions - T)
            self._absolute_errors += s @ E
            self._squared_errors += s @ E**2
            np.maximum(self._largest_error, E.max(0), out=self._largest_error)
            self._add_targets(T, s)

    def _add_targets(self, T: Array, s: Array) -> None:
        """Chan's update of the mean and of Σ s (T − mean)²."""
        if self._origin is None:
            self._origin = T[0].copy()
        T = T - self._origin
        weight = float(s.sum())
        mean = s @ T / weight
        apart = mean - self._mean
        together = self._weight + weight
        self._squares += s @ (T - mean) ** 2 + apart**2 * (self._weight * (weight / together))
        self._mean += apart * (weight / together)
        self._weight = together

    def result(self) -> dict[str, Any]:
        """The metrics of all rows so far, ready for JSON: Python's numbers, and None for what is undefined or infinite.

        Returns:
            * ``rows``: rows added, those of weight 0 too.
            * ``r2``: 1 − Σ (prediction − T)² / Σ (T − mean)², at most 1 (Wright 1921, Correlation and causation), the
              mean over targets; of a constant target 1 if all its predictions are exact, else 0, as in scikit-learn;
              None for fewer than two rows.
            * ``mae``, ``rmse``: the mean absolute error, and the root of the mean squared error, each the mean over
              targets of its value for one; ``max_error``: the largest absolute error of all.
            * ``per_target``, for M > 1: for each target ``target`` (its position) and the same four.
        """
        right, constant = self._squared_errors == 0, self._squares == 0
        unexplained = ratio(self._squared_errors, self._squares)
        r2 = np.where(right, 1.0, np.where(constant, 0.0, 1 - unexplained))
        if self._used < 2:
            r2 = np.full(self.targets, np.nan)
        columns = {
            "r2": r2,
            "mae": ratio(self._absolute_errors, self._weight),
            "rmse": np.sqrt(ratio(self._squared_errors, self._weight)),
            "max_error": self._largest_error if self._used else np.full(self.targets, np.nan),
        }
        result: dict[str, Any] = {"rows": self._rows}
        with np.errstate(over="ignore"):
            for name, values in columns.items():
                result[name] = number(values.max() if name == "max_error" else values.mean())
        if self.targets > 1:
            result["per_target"] = [
                {"target": m, **{name: number(values[m]) for name, values in columns.items()}}
                for m in range(self.targets)
            ]
        return result
