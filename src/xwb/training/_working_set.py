"""How much memory training takes beside the examples, estimated before it begins."""

from __future__ import annotations

from ._curvature import MOST_FEATURES, MOST_OUTPUTS, PER_OUTPUT, SHARE
from ._fit_options import FitOptions, all_decided
from ._heads import pairs_kept
from ._minimise import group_size
from ._objective import COPIED
from ._parts import BUFFER, Layout

LIBRARIES = 50 * 2**20  # SciPy, the threads of BLAS and what malloc keeps: as measured
VECTORS = 8  # float64 vectors that L-BFGS keeps beside its pairs: points, gradients, directions
SCORES = 4  # arrays of a block's scores that the losses have at a time
CURVED = 12  # and where their curvature is computed


def working_set(options: FitOptions, task: str, rows: int, features: int, outputs: int) -> int:
    """Bytes at most, beside the examples and what the process has already.

    Args:
        task: "classification" or "regression".
        rows: of the largest part.
        features, outputs: D, and K classes or targets.

    Raises:
        OptionError: options that do not fit the task.
    """
    heads = [head for head, _ in all_decided(options, task, features, outputs)]
    kept = 8 * len(heads) * _parameters(features, (*options.hidden, outputs))
    block = min(rows, Layout(features, None if task == "classification" else outputs, False).block)
    return LIBRARIES + kept + max(_training(head, heads, features, outputs, block, rows) for head in heads)


def _training(head: FitOptions, heads: list[FitOptions], D: int, K: int, n: int, rows: int) -> int:
    """While one head is trained, or with it those that share its passes, on blocks of n rows."""
    alike = sum((one.loss, one.solver) == (head.loss, head.solver) for one in heads)
    if head.solver == "lbfgs":
        H = min(alike, group_size(K))
        size = D * K + K
        vectors = 2 * min(pairs_kept(str(head.loss), size), head.max_evaluations) + VECTORS
        state = vectors * 8 * H * size + _curvature(D, K, H, n, rows)
        return state + H * (20 * D * K + SCORES * 4 * n * K) + _certificate(D, H * K, K, n)
    if head.solver == "normal":
        return max(6 * 8 * D * D + 24 * n * D + 40 * D * K, _certificate(D, alike * K, K, n))
    widths = (D, *head.hidden, K)
    batch = 3 * 4 * min(head.batch, rows) * sum(widths) + 4 * 2 * min(BUFFER, rows * D)
    states = 10 * 4 * _parameters(D, widths[1:])
    return states + batch + max(3 * 4 * n * sum(widths), 0 if head.hidden else _certificate(D, K, K, n))


def _certificate(D: int, columns: int, K: int, n: int) -> int:
    """In float64, of heads of K outputs with so many columns together."""
    pieces = min(n, COPIED)
    return 8 * pieces * D + CURVED * 8 * pieces * columns + 40 * D * columns + 32 * K * columns


def _curvature(D: int, K: int, H: int, n: int, rows: int) -> int:
    """The guesses at the curvature of H heads, and what it takes to find them."""
    moments = 8 * (4 * D * D if D <= MOST_FEATURES else 2 * D) + 8 * n * D
    sample = n * min(1.0, max(1 / SHARE, PER_OUTPUT * K / rows))
    own = 4 * 8 * (2 * K) ** 2 if K <= MOST_OUTPUTS else 0
    return moments + int(CURVED * 4 * sample * H * K) + H * (own + 16 * D * K)


def _parameters(features: int, widths: tuple[int, ...]) -> int:
    """Of a head or a network."""
    return sum(D * M + M for D, M in zip((features, *widths), widths, strict=False))
