"""How much memory training takes beside the examples, estimated before it begins."""

from __future__ import annotations

from ._curvature import MOST_FEATURES
from ._fit_options import FitOptions, all_decided
from ._minimise import stacked
from ._parts import BUFFER, Layout

LIBRARIES = 50 * 2**20  # SciPy, the threads of BLAS and what malloc keeps: as measured
VECTORS = 2 * 10 + 8  # float64 vectors that L-BFGS keeps: pairs, points, gradients, directions
SCORES = 4  # arrays of a block's scores that the losses have at a time


def working_set(options: FitOptions, task: str, rows: int, features: int, outputs: int) -> int:
    """Bytes at most, beside the examples and what the process has already.

    Raises:
        OptionError: options that do not fit the task.
    """
    heads = [head for head, _ in all_decided(options, task, features, outputs)]
    kept = 8 * len(heads) * _parameters(features, (*options.hidden, outputs))
    block = min(rows, Layout(features, None if task == "classification" else outputs, False).block)
    return LIBRARIES + kept + max(_of(head, heads, features, outputs, block, rows) for head in heads)


def _of(head: FitOptions, heads: list[FitOptions], D: int, K: int, n: int, rows: int) -> int:
    """While one head is trained, or with it those that share its passes."""
    alike = sum((one.loss, one.solver) == (head.loss, head.solver) for one in heads)
    in_float64 = 20 * n * D + SCORES * 8 * n * K + 40 * D * K + 32 * K * K  # a certificate
    if head.solver == "lbfgs":
        H = alike if stacked(alike, K) else 1
        curvature = (H + 3) * 8 * D * D if D <= MOST_FEATURES else 0
        state = VECTORS * 8 * H * (D * K + K) + curvature
        return state + H * (20 * D * K + SCORES * 4 * n * K) + in_float64
    if head.solver == "normal":
        return max(6 * 8 * D * D + 24 * n * D + 40 * D * K, in_float64)
    widths = (D, *head.hidden, K)
    batch = 3 * 4 * min(head.batch, rows) * sum(widths) + 4 * 2 * min(BUFFER, rows * D)
    states = 10 * 4 * _parameters(D, widths[1:])
    return states + batch + max(3 * 4 * n * sum(widths), 0 if head.hidden else in_float64)


def _parameters(features: int, widths: tuple[int, ...]) -> int:
    """Of a head or a network."""
    return sum(D * M + M for D, M in zip((features, *widths), widths, strict=False))
