"""Random arrays for a formula: every input in the shape that its indices say, all sizes different."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import algebra
from ..core import Array, FormulaError, OptionError

if TYPE_CHECKING:
    from ..algebra import Derivation, Fit, Size, Slot

Shapes: TypeAlias = "Mapping[str, Sequence[int]]"
LAYOUTS = ("contiguous", "strided", "Fortran")
# Draws before other signs are tried: a few labels may by chance all be the one that is ignored.
DRAWS = 3
# How often sizes that leave some index no value are made larger: those that follow from others by one each time, axes
# that integers point into by FREE, since in T[k[n]+r] the whole range of r has to fit beside k.
LARGER, FREE = 8, 5


def operands(
    formula: str | Derivation,
    sizes: Mapping[str, Size] | None = None,
    *,
    shapes: Shapes | None = None,
    rng: Any = 0,
    dtype: Any = np.float64,
    layout: str = "contiguous",
    positive: Collection[str] = (),
) -> dict[str, Array]:
    """Random arrays for every input of a formula, by name.

    Args:
        formula: in index notation, or what `derive` made of it.
        sizes: by letter, ``{"n": 4, "...": (2, 3)}``; those left out are 2, 3, 4, … in order of appearance.
        shapes: of inputs, by name; they say the sizes of their letters.
        rng: a `numpy.random.Generator` or a seed.
        dtype: float32 or float64, of the inputs that have a gradient.
        layout: ``"contiguous"``, ``"strided"`` (every second entry of a larger array) or ``"Fortran"``.
        positive: inputs whose values are from 0.5 to 1.5. The others are standard normal; if the formula has no
            finite value there, first one of them and then all are positive. Integers stay within what they point
            into, and one is repeated.

    Raises:
        FormulaError: the formula cannot be read, or a size does not follow from it.
        OptionError: another layout.
    """
    if layout not in LAYOUTS:
        raise OptionError(f"layout={layout!r} is none of {', '.join(LAYOUTS)}")
    derivation = as_derivation(formula)
    fitted = fit_sizes(derivation, sizes, shapes)
    arrays = draw_until(derivation, fitted, np.random.default_rng(rng), dtype, positive)
    return {name: lay_out(array, layout) for name, array in arrays.items()}


def as_derivation(formula: str | Derivation) -> Derivation:
    """A formula read and differentiated, unless it is already."""
    return algebra.derive(formula) if isinstance(formula, str) else formula


# -- sizes -------------------------------------------------------------------------------------------------------------


def fit_sizes(derivation: Derivation, sizes: Mapping[str, Size] | None = None, shapes: Shapes | None = None) -> Fit:
    """The shapes for these sizes; open ones are 2, 3, 4, …, and larger where an index would have no value.

    Raises:
        FormulaError: sizes or shapes contradict the formula or each other, or do not say enough.
    """
    given = dict(sizes or {})
    taken = {*given.values(), *itertools.chain(*(shapes or {}).values())}
    fresh = (size for size in itertools.count(2) if size not in taken)
    open_ = {
        name: slot for name, slot in algebra.slots(derivation).items() if given.keys().isdisjoint((name, *slot.letters))
    }
    rising = list(itertools.islice(fresh, _places(open_)))
    try:
        fitted = _grown(derivation, {**given, **_assigned(open_, rising)}, open_, shapes)
    except FormulaError:  # one index may have to be smaller than another
        fitted = _grown(derivation, {**given, **_assigned(open_, rising[::-1])}, open_, shapes)
    for name, size in given.items():
        if fitted.sizes.get(name, size) != size:
            raise FormulaError(f"{name} = {size} is asked for, and the shapes given make {name} = {fitted.sizes[name]}")
    return fitted


def several_sizes(derivation: Derivation, limit: int = 300) -> list[Fit]:
    """Sizes that are all different: rising, falling, and each in turn 1 beside the others.

    Args:
        limit: of the combinations of one statement's indices; where there would be more, the largest sizes are cut.

    Raises:
        FormulaError: a size does not follow from the formula.
    """
    open_ = algebra.slots(derivation)
    number = _places(open_)
    rising = list(range(2, number + 2))
    falling = rising[::-1] if number > 1 else [4]
    ones = [[*rising[:place], 1, *rising[place:-1]] for place in range(number)]
    found: list[Fit] = []
    refused: FormulaError | None = None
    for choice, axes in ((rising, 2), (falling, 1), *((one, 2) for one in ones)):
        for most in range(max(choice, default=1), 0, -1):
            try:
                fitted = _grown(derivation, _assigned(open_, [min(size, most) for size in choice], axes), open_, None)
            except FormulaError as error:  # one index may have to be smaller than another
                refused = error
                continue
            if fitted.combinations <= limit:
                if all(fitted.sizes != before.sizes for before in found):
                    found.append(fitted)
                break
    if refused and not found:
        raise refused
    return found


def _places(open_: Mapping[str, Slot]) -> int:
    """How many sizes there are to choose; ``...`` is two axes."""
    return sum(2 if slot.kind == "leading" else 1 for slot in open_.values())


def _assigned(open_: Mapping[str, Slot], sizes: Sequence[int], axes: int = 2) -> dict[str, Size]:
    """Sizes in the order of the slots; ``...`` gets the first ``axes`` of its two."""
    rest = iter(sizes)
    return {
        name: (next(rest), next(rest))[:axes] if slot.kind == "leading" else next(rest) for name, slot in open_.items()
    }


def _grown(derivation: Derivation, sizes: Mapping[str, Size], may_grow: Collection[str], shapes: Shapes | None) -> Fit:
    """The shapes for sizes; those that may grow do, until every index has a value."""
    open_ = algebra.slots(derivation)
    refused: FormulaError | None = None
    for more in range(LARGER):
        step = {name: {"follows": more, "free": FREE * more}.get(open_[name].kind, 0) for name in may_grow}
        grown = {name: size + step.get(name, 0) if isinstance(size, int) else size for name, size in sizes.items()}
        try:
            return algebra.fit(derivation, grown, shapes)
        except FormulaError as error:
            refused = refused or error
    assert refused is not None
    raise refused


# -- values ------------------------------------------------------------------------------------------------------------


def draw_until(
    derivation: Derivation,
    fitted: Fit,
    rng: np.random.Generator,
    dtype: Any,
    positive: Collection[str] = (),
    accepts: Callable[[dict[str, Any]], bool] = lambda arrays: True,
) -> dict[str, Array]:
    """Values where the formula is finite and that ``accepts``: of both signs if there are such.

    Returns the last values tried where none is good.
    """
    arrays: dict[str, Any] = {}
    for more in _signs([name for name in derivation.differentiable if name not in positive]):
        for _ in range(DRAWS):
            arrays = _draw(derivation, fitted, rng, dtype, {*positive, *more})
            if np.isfinite(derivation.forward(**arrays)).all() and accepts(arrays):
                return arrays
    return arrays


def _signs(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Which inputs are positive: none, each alone, all."""
    yield ()
    if len(names) > 1:
        yield from ((name,) for name in names)
    yield tuple(names)


def _draw(
    derivation: Derivation, fitted: Fit, rng: np.random.Generator, dtype: Any, positive: Collection[str]
) -> dict[str, Any]:
    """Random values for every input, integers within what they point into and one of them repeated."""
    whole = _compared_integers(derivation, fitted)
    out: dict[str, Any] = {}
    for name, (shape, allowed) in fitted.inputs.items():
        limits = allowed or whole.get(name)
        if limits is not None:
            out[name] = np.asarray(rng.integers(limits[0], limits[1] + 1, shape))
            if out[name].size > 2:
                out[name].flat[-1] = out[name].flat[0]
        else:
            values = rng.uniform(0.5, 1.5, shape) if name in positive else rng.standard_normal(shape)
            out[name] = np.asarray(values, dtype)
    return out


def _compared_integers(derivation: Derivation, fitted: Fit) -> dict[str, tuple[int, int]]:
    """Inputs that are only asked whether they equal something: integers that do and do not."""
    tree = algebra.tree
    sizes = {slot.range: fitted.sizes[name] for name, slot in algebra.slots(derivation).items()}
    found: dict[str, tuple[int, int]] = {}
    for statement in derivation.program.statements:
        for compared in _equalities(derivation.formula, statement.name):
            for side, other in (compared, compared[::-1]):
                if not isinstance(side, tree.Access | tree.Name) or side.name not in derivation.program.compared:
                    continue
                if isinstance(other, tree.Name) and other.name in statement.letters:
                    size = sizes.get(derivation.classes.find(statement.letters[other.name]), 3)
                    found[side.name] = (0, max(size - 1, 0) if isinstance(size, int) else 2)
                elif not isinstance(other, tree.Access) or other.name in derivation.program.compared:
                    found[side.name] = (0, 2)
    return found


def _equalities(text: str, name: str) -> list[tuple[algebra.tree.Node, algebra.tree.Node]]:
    """The two sides of every ``==`` and ``!=`` in one statement."""
    tree = algebra.tree
    bodies = [statement.body for statement in algebra.parse(text).statements if statement.name == name]
    compared = (node for body in bodies for node in tree.walk(body) if isinstance(node, tree.Compare))
    return [(node.left, node.right) for node in compared if node.op in ("==", "!=")]


# -- memory ------------------------------------------------------------------------------------------------------------


def as_dtype(array: Array, dtype: Any) -> Array:
    """A floating array in a dtype; integers as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array


def lay_out(array: Array, layout: str) -> Array:
    """The same values elsewhere in memory: every second entry of a larger array, or the first axis fastest."""
    if layout == "strided":
        wide = np.zeros((*array.shape, 2), array.dtype)
        wide[..., 1] = array
        return wide[..., 1]
    return np.array(array, order="F" if layout == "Fortran" else "C")
