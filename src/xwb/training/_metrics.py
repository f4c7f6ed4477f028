"""How good scores of classes are, added up over blocks of rows in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Array, DataError
from ._metric_sums import (
    added,
    check_scores,
    codes,
    mean_defined,
    number,
    positive,
    ratio,
    total,
    weights,
    without_zeros,
)

TOP = 5  # of ImageNet's top-5 accuracy
BINS = 15  # of the calibration error, as in Guo et al. 2017
MATRIX = 256  # classes up to which K×K counts are kept: 512 KiB

# Entries per pass over the scores: the float64 copy of a part then stays in the processor's cache.
PART = 2**16


class ClassificationMetrics:
    """Scores of K classes against labels, block by block.

    Args:
        classes: K, at least 1.
        probabilities: whether softmax makes probabilities of the scores; if not, they are only compared.

    Counts are exact whatever the blocks; the other sums are float64. A row of weight 0 is no row at all, and its class
    does not occur. Once a weight was given, sums of weights stand wherever rows were counted, as with scikit-learn's
    ``sample_weight``; blocks without weights then count as ones.

    Raises:
        OptionError: ``classes`` is no positive integer.
    """

    def __init__(self, classes: int, *, probabilities: bool) -> None:
        K = self.classes = positive("ClassificationMetrics(classes, ...)", "classes", classes)
        self.probabilities = probabilities
        self._rows = 0
        # Of each class: rows labelled and predicted, labelled, predicted; or, in fewer additions, all pairs of the two.
        self._by_class = [np.zeros(K, np.int64) for _ in range(3)] if K > MATRIX else []
        self._pairs = np.zeros(K * K if K <= MATRIX else 0, np.int64)
        self._top: int | float = 0
        self._log_loss = self._brier = 0.0
        self._bin_rows, self._bin_right = np.zeros((2, BINS), np.int64)
        self._bin_confidence = np.zeros(BINS)

    def add(self, scores: Any, y: Any, weight: Any = None) -> None:
        """Count one block of rows; after an error nothing of it is counted.

        Args:
            scores: (n, K), float32 or float64; logits where there are probabilities. −inf is a class ruled out.
            y: (n,), integers in 0..K−1.
            weight: (n,), finite, not negative; or None for ones.

        Raises:
            ShapeError: the shapes do not fit.
            DtypeError: scores are not floating, labels not integers, weights no numbers.
            DataError: a label that is no class; NaN or +inf among the scores, or −inf in all of a row; a weight that
                is negative or not finite.
        """
        call = "ClassificationMetrics.add(scores, y)"
        scores, y = np.asarray(scores), np.asarray(y)
        check_scores(call, scores, y, self.classes)
        weight = weights(call, weight, len(y))
        y = codes(call, y, self.classes)
        predicted = scores.argmax(1)  # of a row with NaN, where the NaN is
        largest = scores[np.arange(len(y)), predicted]
        if not (finite := np.isfinite(largest)).all():
            n = int(np.argmin(finite))
            raise DataError(f"{call}: scores[{n}, {predicted[n]}] is {largest[n]}; the largest of a row is finite")
        self._rows += len(y)
        weight, (scores, y, predicted, largest) = without_zeros(weight, scores, y, predicted, largest)
        self._count(y, predicted, weight)
        if self.classes > TOP:
            self._top += total(_in_top(scores, y), weight)
        if self.probabilities:
            self._add_probabilities(scores, y, largest, predicted == y, weight)

    def _count(self, y: Array, predicted: Array, weight: Array | None) -> None:
        if self.classes <= MATRIX:
            self._pairs = added(self._pairs, y * self.classes + predicted, weight)
            return
        right = y == predicted
        groups = (y[right], None if weight is None else weight[right]), (y, weight), (predicted, weight)
        self._by_class = [added(sums, *group) for sums, group in zip(self._by_class, groups, strict=True)]

    def _add_probabilities(self, scores: Array, y: Array, largest: Array, right: Array, s: Array | None) -> None:
        loss, brier, confidence = _of_softmax(scores, y, largest)
        self._log_loss += total(loss, s)
        self._brier += total(brier, s)
        at = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
        self._bin_rows = added(self._bin_rows, at, s)
        self._bin_right = added(self._bin_right, at[right], None if s is None else s[right])
        self._bin_confidence += np.bincount(at, confidence if s is None else confidence * s, BINS)

    @property
    def confusion(self) -> Array | None:
        """(K, K), a copy: rows of class i (axis 0) that were predicted as class j. None for K above 256."""
        return self._pairs.reshape(self.classes, -1).copy() if self.classes <= MATRIX else None

    def result(self) -> dict[str, Any]:
        """The metrics of all rows so far, ready for JSON: Python's numbers, and None for what is undefined or infinite.

        Returns:
            * ``rows``: rows added, those of weight 0 too.
            * ``accuracy``: the share of rows whose largest score is the label's; of equal scores the first counts.
            * ``top5``, for K > 5: the share whose label is among the five largest scores; of equal scores those of
              the later classes count as larger, as in scikit-learn's ``top_k_accuracy_score``.
            * ``log_loss``, with probabilities: the mean of −log p_y (natural logarithm, not clipped).
            * ``macro_f1``: the mean F1 of the classes that occur as label or prediction, as scikit-learn's
              ``f1_score(average="macro")``.
            * ``balanced_accuracy``: the mean recall of the classes that occur as label (Brodersen et al. 2010, The
              balanced accuracy and its posterior distribution).
            * ``per_class``: for each class ``class`` (its code), ``support`` (rows so labelled), ``recall``,
              ``precision``, ``f1`` (van Rijsbergen 1979, Information Retrieval).
            * ``calibration``, with probabilities: ``expected_calibration_error``, the mean over rows of |accuracy −
              confidence| of 15 equal bins (low, high] of the largest probability (Guo et al. 2017, arXiv:1706.04599);
              ``bins``, the ones that are not empty, with ``low``, ``high``, ``count``, and the means ``confidence`` and
              ``accuracy``; ``brier``, the mean of Σ_k (p_k − [k = y])², in 0..2 (Brier 1950, Verification of forecasts
              expressed in terms of probability).
        """
        right, support, predicted = self._sums_by_class()
        rows = support.sum()
        recall, f1 = ratio(right, support), ratio(2 * right, support + predicted)
        result: dict[str, Any] = {"rows": self._rows, "accuracy": number(ratio(right.sum(), rows))}
        if self.classes > TOP:
            result["top5"] = number(ratio(self._top, rows))
        if self.probabilities:
            result["log_loss"] = number(ratio(self._log_loss, rows))
        result["macro_f1"] = mean_defined(f1)
        result["balanced_accuracy"] = mean_defined(recall)
        columns = {"recall": recall, "precision": ratio(right, predicted), "f1": f1}
        result["per_class"] = [
            {"class": k, "support": support[k].item(), **{name: number(value[k]) for name, value in columns.items()}}
            for k in range(self.classes)
        ]
        if self.probabilities:
            result["calibration"] = self._calibration(rows)
        return result

    def _sums_by_class(self) -> list[Array]:
        if self.classes > MATRIX:
            return self._by_class
        pairs = self._pairs.reshape(self.classes, -1)
        return [pairs.diagonal(), pairs.sum(1), pairs.sum(0)]

    def _calibration(self, rows: Any) -> dict[str, Any]:
        confidence, accuracy = (ratio(sums, self._bin_rows) for sums in (self._bin_confidence, self._bin_right))
        gap = np.abs(self._bin_right - self._bin_confidence).sum()
        bins = [
            {
                "low": b / BINS,
                "high": (b + 1) / BINS,
                "count": self._bin_rows[b].item(),
                "confidence": number(confidence[b]),
                "accuracy": number(accuracy[b]),
            }
            for b in np.flatnonzero(self._bin_rows).tolist()
        ]
        return {
            "expected_calibration_error": number(ratio(gap, rows)),
            "bins": bins,
            "brier": number(ratio(self._brier, rows)),
        }


def _of_softmax(scores: Array, y: Array, largest: Array) -> Array:
    """Of each row −log p_y, Σ_k (p_k − [k = y])² and max_k p_k, as the rows of a (3, n) array in float64.

    With E = exp(Z − max) and S = Σ_k E: p = E / S is never formed, and the largest p is 1 / S.
    """
    result = np.empty((3, len(y)))
    step = max(1, PART // scores.shape[1])
    for i in range(0, len(y), step):
        part = slice(i, i + step)
        rows, label = np.arange(len(y[part])), y[part]
        with np.errstate(over="ignore"):  # two scores may lie further apart than float64 reaches
            E = np.subtract(scores[part], largest[part, None], order="C", dtype=np.float64)
        own = E[rows, label]
        np.exp(E, E)
        S = np.add.reduce(E, 1)  # not a BLAS product, whose rounding depends on the rows around
        E[rows, label] -= S
        result[:, part] = np.log(S) - own, np.vecdot(E, E) / S**2, 1 / S
    return result


def _in_top(scores: Array, y: Array) -> Array:
    """Whether the label is among the `TOP` largest of its row; of equal scores the later class is the larger."""
    hit = np.empty(len(y), np.bool_)
    step = max(1, PART // scores.shape[1])
    ones = np.ones(scores.shape[1], np.float32)  # a product with it counts, twice as fast as a sum of booleans
    for i in range(0, len(y), step):
        Z, label = scores[i : i + step], y[i : i + step]
        own = Z[np.arange(len(label)), label]
        sure = (own[:, None] <= Z) @ ones <= TOP  # whatever the order of equal ones
        rest = np.flatnonzero(~sure)
        Z, own, label = Z[rest], own[rest, None], label[rest, None]
        ahead = (own < Z) | ((own == Z) & (np.arange(Z.shape[1]) > label))
        sure[rest] = ahead @ ones < TOP
        hit[i : i + step] = sure
    return hit
