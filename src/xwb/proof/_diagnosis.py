"""Why a gradient is wrong: explanations are tried on the numbers, for two dY, and only one that fits them is given."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array
from ._evidence import DIRECTIONS, Change, Evidence, Said
from ._other_inputs import holds_elsewhere, right_for_other_operands, stale
from ._point import Point, fault, flat
from ._probe import moved as moved_by
from ._report import Diagnosis, Row

LOW_PRECISIONS = {"float32": 24, "float16": 11, "bfloat16": 8}  # significant bits
BITS = {np.dtype(np.float64): 53, np.dtype(np.float32): 24}
# Rows of a Jacobian are resolved by less than the gradient for a whole dY, and so is what depends on single entries.
LOOSE = 1e3
SHARE = 0.8  # "most": of outputs that are straight, of the Jacobian's rank that a missing term may have
SECONDS = 20.0  # after which no other explanation is tried for one gradient
CHANCE = 4  # the longest axis whose length may as well be a number of the formula
RANK = 400  # the most rows or columns of a Jacobian whose rank is looked at

NOT_RECOGNISED: Said = ("not recognised", "the mistake is none of those that are recognised.")


def diagnose(point: Point, rows: Sequence[Row]) -> list[Diagnosis]:
    """One diagnosis for each gradient that is wrong."""
    wrong = {i: row for i, row in zip(point.subject.checked, rows, strict=True) if not row.ok}
    if not wrong:
        return []
    kept = functools.cache(lambda: stale(point, list(wrong)))  # only where nothing else is found: it takes long
    found = []
    for i, row in wrong.items():
        evidence = Evidence(point, i, row)
        if fault(evidence.claim.grads[i], evidence.probe.arrays[i]):
            said = _first(SHAPES, evidence)
        else:
            said = _first(FIRST, evidence) or kept() or _first(LAST, evidence)
        cause, sentence = said or NOT_RECOGNISED
        found.append(Diagnosis(point.subject.names[i], cause, sentence))
    return found


def _first(attempts: Sequence[Callable[[Evidence], Said | None]], evidence: Evidence) -> Said | None:
    for attempt in attempts:
        said = attempt(evidence)
        if said or time.monotonic() - evidence.started > SECONDS:
            return said
    return None


# ------------------------------------------------------------------------------------------------------- another shape


def nothing_returned(evidence: Evidence) -> Said | None:
    if evidence.claim.grads[evidence.i] is None:
        return "zero", "backward returns None; return zeros where Y does not depend on it, or name the others as needs."
    return None


def no_numbers(evidence: Evidence) -> Said | None:
    grads = [grads[evidence.i] for grads in evidence.grads]
    if any(grad is None for grad in grads):
        return "no numbers", "it is no array of real numbers."
    if grads[0].shape == evidence.shape:
        return "dtype", f"its dtype is {np.asarray(evidence.claim.grads[evidence.i]).dtype}; return real numbers."
    return None


def another_shape(evidence: Evidence) -> Said | None:
    """A sum that is missing, a transpose, or another order of the same numbers."""
    grads = [np.asarray(grads[evidence.i]) for grads in evidence.grads]
    first, shape = grads[0], evidence.shape
    if first.T.shape == shape and evidence.are_right([grad.T for grad in grads]):
        return "transpose", f"it is transposed: return d{evidence.name}.T."
    if first.size == evidence.size and evidence.are_right([grad.reshape(shape) for grad in grads]):
        return "shape", f"the numbers are right, and their shape is not: type  d{evidence.name}.reshape({shape})"
    for axes in _some_axes(first.ndim):
        for keep in (False, True):
            summed = [grad.sum(axes, keepdims=keep) for grad in grads]
            if summed[0].shape == shape and evidence.are_right(summed):
                return "missing sum", f"the sum over {_named(axes)} of what is returned, {first.shape}, is missing."
    return None


def wrong_sum(evidence: Evidence) -> Said | None:
    """dY summed over other axes than it has to be."""
    shaped = [weights.reshape(evidence.outputs) for weights in evidence.dYs]
    for right in _some_axes(len(evidence.outputs)):
        sums = [dY.sum(right) for dY in shaped]
        if sums[0].shape != evidence.shape or not evidence.are_right(sums):
            continue
        for taken in _some_axes(len(evidence.outputs)):
            others = [dY.sum(taken) for dY in shaped]
            pairs = [
                (np.asarray(grads[evidence.i]), other) for grads, other in zip(evidence.grads, others, strict=True)
            ]
            if all(grad.shape == other.shape and np.allclose(grad, other, rtol=1e-5) for grad, other in pairs):
                return "wrong axis", f"dY is summed over {_named(taken)} instead of {_named(right)}."
    return None


# ---------------------------------------------------------------------------------------------------- without a pattern


def not_finite(evidence: Evidence) -> Said | None:
    bad = int(np.count_nonzero(~np.isfinite(evidence.grads[0][evidence.i])))
    if bad:
        return "not finite", f"{bad:,} of {evidence.size:,} entries are not finite: a division by 0, or 0 times inf."
    return None


def same_for_every_dY(evidence: Evidence) -> Said | None:
    first, second = (grads[evidence.i] for grads in evidence.grads)
    same = np.array_equal(first, second) and first.any()
    return ("ignores dY", "it is the same for every dY.") if same else None


def zero(evidence: Evidence) -> Said | None:
    return None if any(grads[evidence.i].any() for grads in evidence.grads) else ("zero", "it is 0 everywhere.")


def not_zero(evidence: Evidence) -> Said | None:
    if evidence.every_entry and not evidence.slopes.any():
        return "not zero", f"Y does not change when {evidence.name} moves, so it should be 0 everywhere."
    return None


def constant_added(evidence: Evidence) -> Said | None:
    if not evidence.every_entry or evidence.size < 3:
        return None
    differences = [given - wanted for given, wanted in zip(evidence.claimed, evidence.numeric, strict=True)]
    constant = float(np.mean(differences[0]))
    allowed = 2 * evidence.fits_within * max(float(np.abs(wanted).max()) for wanted in evidence.numeric)
    if abs(constant) > 10 * allowed and all(np.abs(d - constant).max() <= allowed for d in differences):
        return "added constant", f"{constant:.6g} is added to every entry, whatever dY is."
    return None


def not_linear(evidence: Evidence) -> Said | None:
    twice, once = evidence.back(2 * evidence.dYs[0])[evidence.i], evidence.grads[0][evidence.i]
    if not evidence.alike(twice, 2 * once, 4).all():
        return "not linear in dY", "it does not double when dY doubles; a backward pass is linear in dY."
    return None


# -------------------------------------------------------------------------------------------------------------- factors


def factor(evidence: Evidence) -> Said | None:
    """One number times the right gradient: a sign, the length of an axis, or any other."""
    factors, residuals = [], []
    for given, wanted in zip(evidence.claimed, evidence.numeric, strict=True):
        square = float(wanted @ wanted)
        if square == 0.0 or not np.isfinite(given).all():
            return None
        factors.append(float(given @ wanted) / square)
        residuals.append(float(np.abs(given - factors[-1] * wanted).max() / np.abs(wanted).max()))
    times, spread = factors[0], abs(factors[0] - factors[1]) + max(residuals)
    within = max(evidence.fits_within, evidence.row.allowed) * max(1.0, abs(times))
    if times == 0.0 or not spread <= min(0.05 * abs(times - 1), within):
        return None
    if not holds_elsewhere(evidence, times):
        return None
    if abs(times + 1) <= 2 * spread:
        return "sign", "it has the wrong sign at every entry."
    for n, axis in _lengths(evidence).items():
        if abs(1 / times - n) <= 1e-6 * n + 4 * spread * n * n:
            chance = f", or a factor {n} is lost" * (n <= CHANCE)
            words = f"the ratio is 1/{n} at every entry: a mean over {axis} stands where a sum belongs"
            return "mean for sum", f"{words}{chance}."
        if abs(times - n) <= 1e-6 * n + 4 * spread:
            chance = f", or a factor {n} is too much" * (n <= CHANCE)
            words = f"the ratio is {n} at every entry: a sum over {axis} stands where a mean belongs"
            return "sum for mean", f"{words}{chance}."
    digits = min(15, max(3, -math.floor(math.log10(spread + 1e-16))))  # those that are not rounding
    return "constant factor", f"it is {times:.{digits}g} times what it should be, at every entry."


def _lengths(evidence: Evidence) -> dict[int, str]:
    """The lengths, above 1, of the axes that a gradient or a loss may sum over, with the axes that have them."""
    named = [(n, f"axis {k} of Y") for k, n in enumerate(evidence.outputs)]
    if len(named) > 1:
        named.append((math.prod(evidence.outputs), "all of Y"))
    if not evidence.outputs:  # a loss sums over what goes in
        for name, a in zip(evidence.point.subject.names, evidence.probe.arrays, strict=True):
            named += [(n, f"axis {k} of {name}") for k, n in enumerate(np.shape(a))]
    lengths: dict[int, str] = {}
    for n, axis in named:
        if n > 1:
            lengths[n] = f"{lengths[n]} (or {axis})" if n in lengths and "(" not in lengths[n] else lengths.get(n, axis)
    return lengths


def precision(evidence: Evidence) -> Said | None:
    """Numbers of fewer bits, or errors of the size and randomness that fewer bits make."""
    returned = np.asarray(evidence.point.own.grads[evidence.i])
    entries = flat(returned)[flat(returned) != 0]
    pairs = list(zip(evidence.claimed, evidence.numeric, strict=True))
    errors = [float(np.linalg.norm(given - wanted) / (np.linalg.norm(wanted) or np.inf)) for given, wanted in pairs]
    off = evidence.claimed[0] - evidence.numeric[0]
    parts = off / np.where(evidence.numeric[0] == 0, np.inf, evidence.numeric[0])
    # Most entries are off, each by another part.
    most = float(np.median(np.abs(off))) > 0.05 * float(np.sqrt(np.mean(off**2)))
    random = evidence.every_entry and most and float(np.std(parts)) > 0.3 * abs(float(np.mean(parts)))
    for name, bits in LOW_PRECISIONS.items():
        few = bits < BITS.get(returned.dtype, 0) and entries.size and _has_bits(entries, bits)
        if few and max(errors) < 2.0 ** (4 - bits):
            return "low precision", f"its entries have no more than the {bits} significant bits of {name}."
        sized = 2.0 ** (-bits - 6) < min(errors) and max(errors) < 2.0 ** (2 - bits)
        if bits < BITS[evidence.claim.dtype] and sized and random:
            return "low precision", f"its errors are random and as large as those of {name}: a part is computed in it."
    return None


def _has_bits(entries: Array, bits: int) -> bool:
    """Whether no entry has more significant bits than this."""
    mantissa = np.frexp(entries)[0] * 2.0**bits
    return bool((mantissa == np.rint(mantissa)).all())


# -------------------------------------------------------------------------------------------------------------- entries


def too_small(evidence: Evidence) -> Said | None:
    """Where no difference is seen by what explanations are held to, any of them would fit."""
    if evidence.wrong.any():
        return None
    if evidence.claim is not evidence.point.own:
        return "low precision", f"it is right in float64, and wrong in {evidence.point.subject.dtype} alone."
    return "not recognised", "the difference is too small to say more."


def one_entry(evidence: Evidence) -> Said | None:
    """All but one are right."""
    if evidence.size < 3:
        return None
    if evidence.every_entry:
        wrong = np.flatnonzero(evidence.wrong)
        if len(wrong) != 1:
            return None
        index = tuple(int(k) for k in np.unravel_index(wrong[0], evidence.shape))
    else:
        index = evidence.row.worst
        if not index or not _others_agree(evidence, index):
            return None
    row = evidence.row
    times = (
        f"{abs(row.closed_form) and row.closed_form / row.numeric:.6g} times what it should be" if row.numeric else ""
    )
    return "one entry", f"only the entry {index} is wrong: {times or 'it should be 0'}; all others agree."


def _others_agree(evidence: Evidence, index: tuple[int, ...]) -> bool:
    """Whether the directions agree once this entry stands still."""
    i, at = evidence.i, int(np.ravel_multi_index(index, evidence.shape))
    axis = np.zeros(evidence.shape)
    axis[index] = evidence.probe.scale[i]
    slopes = evidence.probe.jacobian_times(i, axis) / axis[index]
    parts = evidence.directions[:, at]
    for given, weights, grads in zip(evidence.claimed, evidence.dYs, evidence.grads, strict=True):
        without = given - parts * grads[i][index]
        rest = (evidence.slopes - np.outer(parts, slopes)) @ weights
        if not evidence.alike(without, rest, 8).all():
            return False
    return True


def some_entries(evidence: Evidence) -> Said | None:
    """At most half are wrong, and the others right."""
    if not evidence.every_entry:
        return None
    wrong = evidence.wrong.reshape(evidence.shape)
    number = int(np.count_nonzero(wrong))
    if not 0 < number <= evidence.size / 2:
        return None
    for axis, n in enumerate(evidence.shape):
        hit = np.flatnonzero(wrong.any(axis=tuple(k for k in range(wrong.ndim) if k != axis)))
        if len(hit) == 1 and n > 1:
            zero = not any(np.take(grads[evidence.i], hit[0], axis).any() for grads in evidence.grads)
            if zero and not evidence.outputs and axis == 0:
                return "example dropped", f"the slice {int(hit[0])} on axis 0 is 0: an example has no part in it."
            return "some entries", f"only the slice {int(hit[0])} on axis {axis} is wrong{': it is 0' * zero}."
    rows = set(np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)).tolist())
    for name, array in zip(evidence.point.subject.names, evidence.probe.arrays, strict=True):
        if isinstance(array, np.ndarray) and array.dtype.kind in "iu":
            values, counts = np.unique(array, return_counts=True)
            if rows == set(values[counts > 1].tolist()):
                return "missing sum", f"the rows that {name} names more than once are wrong: assigned, not added up."
    at = tuple(int(k) for k in np.argwhere(wrong)[0])
    return "some entries", f"{number:,} of {evidence.size:,} entries are wrong, the first at {at}; the others agree."


# ------------------------------------------------------------------------------------- the right numbers somewhere else


class _Explanation(NamedTuple):
    cause: str
    sentence: str
    change: Change


def moved(evidence: Evidence) -> Said | None:
    """The right numbers at other places, or those of another gradient, or of another dY."""
    i, shape = evidence.i, evidence.shape
    for cause, sentence, change in (*_of_gradient(evidence), *_of_dY(evidence)):
        if evidence.fits(change):
            return cause, f"{sentence}."
    for axis, by in itertools.product(range(len(shape)), (1, -1)):
        inside = _inside(evidence, axis, by)
        if inside is not None and evidence.fits(_on_gradient(i, np.roll, -by, axis), inside):
            return "shift", f"it is shifted by {by} along axis {axis}, and lost at the edge."
    return None


def _of_gradient(evidence: Evidence) -> Iterator[_Explanation]:
    i, shape, names = evidence.i, evidence.shape, evidence.point.subject.names
    for a, b in itertools.combinations(range(len(shape)), 2):
        if shape[a] == shape[b]:
            words = "it is transposed" if len(shape) == 2 else f"its axes {a} and {b} are exchanged"
            yield _Explanation("transpose", words, _on_gradient(i, np.swapaxes, a, b))
    for axes in _some_axes(len(shape)):
        if all(shape[axis] > 1 for axis in axes):
            words = f"it runs backwards along {_named(axes)}: a kernel that is flipped, or should be"
            yield _Explanation("flipped", words, _on_gradient(i, np.flip, axes))
    for axis, by in itertools.product(range(len(shape)), (1, -1)):
        if shape[axis] > 1:
            words = f"it is shifted by {by} along axis {axis}"
            yield _Explanation("shift", words, _on_gradient(i, np.roll, -by, axis))
    for j in evidence.point.subject.checked:
        if j != i and evidence.grads[0][j] is not None:
            yield _Explanation("swapped", f"d{names[j]} has the value that it should have", _on_gradient(j, np.asarray))
            yield _Explanation("swapped", f"d{names[j]}.T is what it should be", _on_gradient(j, np.transpose))


def _of_dY(evidence: Evidence) -> Iterator[_Explanation]:
    i, outputs = evidence.i, evidence.outputs
    for a, b in itertools.combinations(range(len(outputs)), 2):
        if outputs[a] == outputs[b]:
            words = f"it is right for dY with its axes {a} and {b} exchanged: a sum over the wrong axis"
            yield _Explanation("wrong axis", words, _on_dY(i, np.swapaxes, a, b))
    for axis, n in enumerate(outputs):
        if n < 2:
            continue
        for by in (1, -1):
            words = f"it is right for a dY shifted by {by} along axis {axis}"
            yield _Explanation("shift", words, _on_dY(i, np.roll, by, axis))
        words = f"it is right for a dY that runs backwards along axis {axis}"
        yield _Explanation("flipped", words, _on_dY(i, np.flip, axis))
        for k in (0, n - 1):
            words = f"the {'last' if k else 'first'} slice of dY on axis {axis}"
            yield _Explanation("example dropped", f"{words} has no part in it", _on_dY(i, _without, axis, k))
            alone = f"{words} alone has a part in it: the sum over that axis is missing"
            yield _Explanation("missing sum", alone, _on_dY(i, _alone, axis, k))


def _on_gradient(i: int, change: Callable[..., Array], *how: Any) -> Change:
    return lambda grads, dY: (change(grads[i], *how), dY)


def _on_dY(i: int, change: Callable[..., Array], *how: Any) -> Change:
    return lambda grads, dY: (grads[i], change(dY, *how))


def _without(dY: Array, axis: int, k: int) -> Array:
    out = dY.copy()
    np.moveaxis(out, axis, 0)[k] = 0.0
    return out


def _alone(dY: Array, axis: int, k: int) -> Array:
    return dY - _without(dY, axis, k)


def _inside(evidence: Evidence, axis: int, by: int) -> Array | None:
    """The rows that are seen of a gradient which a shift that loses one end leaves whole."""
    if evidence.shape[axis] < 3:
        return None
    if not evidence.every_entry:
        return np.arange(DIRECTIONS // 2, DIRECTIONS)
    inside = np.ones(evidence.shape, bool)
    np.moveaxis(inside, axis, 0)[-1 if by > 0 else 0] = False
    return np.flatnonzero(inside)


# ------------------------------------------------------------------------------------------------------- the Jacobian


def kink(evidence: Evidence) -> Said | None:
    """One side is 0 where the other is not, for a function made of straight pieces."""
    if not evidence.every_entry or not _is_made_of_pieces(evidence):
        return None
    rows, right = evidence.claimed_rows(evidence.some_outputs), evidence.slopes.T[evidence.some_outputs]
    largest = float(np.abs(right).max(initial=0.0))
    off = np.abs(rows - right) > LOOSE * evidence.fits_within * largest
    zero = (np.abs(rows) <= 1e-12 * largest) | (np.abs(right) <= 1e-12 * largest)
    # Of a loss the entries of one example depend on each other.
    least = 1.0 if evidence.outputs else 0.5
    if off.any() and np.count_nonzero(off & zero) >= least * np.count_nonzero(off):
        return "kink", "where it is wrong, one of the two is 0: the other side of a kink, or a kink at another place."
    return None


def _is_made_of_pieces(evidence: Evidence) -> bool:
    """Whether the function is straight around the point, as far as this input goes, and yet no polynomial."""
    probe, i = evidence.probe, evidence.i
    if probe.degree(i) is not None:
        return False
    X, step = probe.arrays[i], 2.0**-12 * probe.direction(i)
    up, down = probe.at(i, moved_by(X, step)), probe.at(i, moved_by(X, -step))
    straight = np.abs(up - 2 * probe.Y + down) <= 16 * probe.noise + 8 * probe.unit * np.abs(probe.Y)
    return bool(np.mean(straight) >= SHARE)


def lost_factor(evidence: Evidence) -> Said | None:
    """A factor for each entry of the input, or for each output, that is the same for every dY."""
    if not evidence.every_entry or evidence.size < 2 or not evidence.outputs:
        return None
    ratios = []
    for given, wanted in zip(evidence.claimed, evidence.numeric, strict=True):
        seen = (np.abs(given) > 1e-6 * np.abs(given).max()) & (np.abs(wanted) > 1e-6 * np.abs(wanted).max())
        ratios.append(np.where(seen, wanted / np.where(seen, given, 1.0), np.nan))
    both = np.isfinite(ratios[0]) & np.isfinite(ratios[1])
    if np.count_nonzero(both) >= max(2, evidence.size // 2):
        first, second = ratios[0][both], ratios[1][both]
        other = np.abs(first - 1).max() > LOOSE * evidence.fits_within
        if other and np.allclose(first, second, rtol=LOOSE * evidence.fits_within):
            return "chain rule factor", (
                f"each entry lacks a factor that depends on {evidence.name} and not on dY, from {first.min():.4g} to "
                f"{first.max():.4g}: a factor of the chain rule is lost or wrong."
            )
    factors = []
    outputs = evidence.some_outputs
    for given, wanted in zip(evidence.claimed_rows(outputs), evidence.slopes.T[outputs], strict=True):
        square = float(given @ given)
        if square == 0.0:
            return None
        factors.append(float(given @ wanted) / square)
        if np.abs(wanted - factors[-1] * given).max() > 0.1 * LOOSE * evidence.fits_within * np.abs(wanted).max():
            return None
    if len(factors) < 2 or max(factors) - min(factors) <= 1e-3 * max(map(abs, factors)):
        return None
    return "chain rule factor", (
        "each row of the Jacobian is right but for a factor that depends on the entry of Y and is lost: it runs from "
        f"{min(factors):.4g} to {max(factors):.4g}."
    )


def wrong_sums(evidence: Evidence) -> Said | None:
    """A difference of low rank: sums over an axis that are missing, or run over another axis."""
    right = evidence.slopes
    small = max(right.shape) <= RANK and min(right.shape) >= 3
    if not evidence.every_entry or not small or not np.isfinite(right).all():
        return None
    claimed = evidence.claimed_rows(range(evidence.probe.Y.size)).T
    tolerance = LOOSE * evidence.fits_within * float(np.abs(right).max())
    if ((right == 0) & (np.abs(claimed) > tolerance)).any():
        return "wrong axis", (
            "entries of dY come in that this input does not reach: a sum over the wrong axis, or mixed up positions."
        )
    rank, whole = (int(np.linalg.matrix_rank(A, tol=tolerance)) for A in (right - claimed, right))
    if 0 < rank <= SHARE * whole:
        return "lost term", (
            f"what is missing has rank {rank}, and the Jacobian {whole}: a term that is a sum over an axis is lost."
        )
    return None


def _some_axes(ndim: int) -> list[tuple[int, ...]]:
    """One to three of so many axes."""
    return [axes for number in (1, 2, 3) for axes in itertools.combinations(range(ndim), number)]


def _named(axes: Sequence[int]) -> str:
    return f"ax{'is' if len(axes) == 1 else 'es'} {' and '.join(map(str, axes))}"


# In this order: what comes first says more. Between FIRST and LAST it is asked whether an input is that of an earlier
# call.
SHAPES = (nothing_returned, no_numbers, another_shape, wrong_sum)
FIRST = (
    not_finite,
    same_for_every_dY,
    zero,
    not_zero,
    constant_added,
    not_linear,
    factor,
    precision,
    too_small,
    one_entry,
    moved,
    right_for_other_operands,
)
LAST = (some_entries, kink, lost_factor, wrong_sums)
