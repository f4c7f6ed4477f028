"""The arrays that a formula takes: their shapes from sizes of its indices, and the integers that choose positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ._expr import Index, Range, Read, SizeOf
from ._ranges import needed, reach, solve
from ._read import Axis
from ._text import pointed
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation

Size: TypeAlias = "int | tuple[int, ...]"  # several for ``...``, which stands for several axes


class Input(NamedTuple):
    """One array that a formula takes."""

    shape: tuple[int, ...]
    values: tuple[int, int] | None  # the smallest and the largest that an integer input may hold


class Fit(NamedTuple):
    """Arrays that fit a formula."""

    inputs: dict[str, Input]
    sizes: dict[str, Size]  # by the names of `slots`
    combinations: int  # of the indices of one statement, where they are most


class Slot(NamedTuple):
    """One size to choose; all the ranges that are bound to equal it share it."""

    range: Range
    letters: tuple[str, ...]  # that run over these ranges
    kind: str  # "axis" of an input; "follows" from the sizes of others; "leading" axes; "free" of any index


def slots(derivation: Derivation) -> dict[str, Slot]:
    """The sizes that a formula leaves open, in order of appearance.

    By letter, or ``d of H`` where the letter has another size in statement H; ``...`` for the leading axes;
    ``size(T,0)`` for an axis that only gathers and boundary modes read, which may have any length. Axes into which
    one integer input points are alike.
    """
    program, find = derivation.program, derivation.classes.find
    axes = {find(axis) for name in program.inputs for axis in _axes_of(derivation, name)}
    found: dict[str, Slot] = {}
    known: set[Range] = set()
    for statement in program.statements:
        for letter, range_ in statement.letters.items():
            if letter not in program.sizes and find(range_) not in known:
                known.add(find(range_))
                letters = derivation.classes.alike(range_)
                said = next((one for one in letters if one not in program.invented), letter)
                name = said if said not in found else f"{said} of {statement.name}"
                kind = "leading" if letter == LEADING else "axis" if find(range_) in axes else "follows"
                found[name] = Slot(find(range_), letters, kind)
    for name in program.inputs:
        for axis in _axes_of(derivation, name):
            alike = _alike(derivation, axis)
            if known.isdisjoint(alike) and not any(map(_tells, _places(derivation, axis))):
                found[f"size({name},{axis.name})"] = Slot(find(axis), (), "free")
                known.update(alike)
    return found


def fit(derivation: Derivation, sizes: Mapping[str, Size], shapes: Mapping[str, Sequence[int]] | None = None) -> Fit:
    """The shape of every input for these sizes.

    Args:
        derivation: of the formula.
        sizes: by the names of `slots`; a letter alone stands for all its ranges.
        shapes: those of inputs that are known already; they win over sizes.

    Raises:
        FormulaError: a size is missing or unknown, or sizes and shapes contradict the formula.
    """
    program, find = derivation.program, derivation.classes.find
    everything: dict[str, Size] = {**program.sizes, **sizes}
    fixed = {name: (size,) if isinstance(size, int) else tuple(size) for name, size in everything.items()}
    open_ = slots(derivation)
    _refuse_unknown(derivation, fixed, open_)
    of: dict[Range, tuple[int, ...]] = {}
    for statement in program.statements:
        of.update({find(r): fixed[letter] for letter, r in statement.letters.items() if letter in fixed})
    of.update({slot.range: fixed[name] for name, slot in open_.items() if name in fixed})
    known = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    for name, shape in known.items():
        if name not in program.inputs:
            raise pointed(program.text, f"{name} is no input; the inputs: {', '.join(program.inputs)}")
        of.update({find(axis): size for axis, size in _split(derivation, name, shape)})
    for name in program.inputs:
        if name not in known:
            lengths = [_length(derivation, axis, of) for axis in _axes_of(derivation, name)]
            known[name] = tuple(size for axis in lengths for size in axis)
    found = solve(program, known, program.sizes)
    sizes_found: dict[str, Size] = {}
    for name, slot in open_.items():
        member = next((r for r in found.of if find(r) == slot.range), slot.range)
        sizes_found[name] = found.leading.get(member, found.of[member])
    combinations = max(math.prod(found.of[r] for r in s.letters.values()) for s in program.statements)
    values = {name: _values(derivation, name, found.of) for name in program.integers}
    inputs = {name: Input(known[name], values.get(name)) for name in program.inputs}
    return Fit(inputs, sizes_found, combinations)


def _refuse_unknown(derivation: Derivation, fixed: Mapping[str, object], open_: Mapping[str, Slot]) -> None:
    letters = {letter for statement in derivation.program.statements for letter in statement.letters}
    for name in fixed:
        if name not in letters and name not in open_:
            raise pointed(
                derivation.program.text,
                f"the formula has no index {name}",
                more=[f"its indices: {', '.join(open_) or 'none'}"],
            )


def _axes_of(derivation: Derivation, name: str) -> list[Range]:
    return [Range(name, number) for number in range(derivation.program.ranks[name])]


def _split(derivation: Derivation, name: str, shape: tuple[int, ...]) -> Iterator[tuple[Range, tuple[int, ...]]]:
    """The axes of a tensor with their sizes; the first takes several where it is ``...``."""
    axes = _axes_of(derivation, name)
    more = len(shape) - len(axes) if derivation.program.leading[name] else 0
    if len(shape) != len(axes) + more or more < -1:
        return  # `solve` says what is wrong
    for number, axis in enumerate(axes):
        yield axis, shape[: more + 1] if derivation.program.leading[name] and number == 0 else (shape[number + more],)


def _places(derivation: Derivation, axis: Range) -> list[Axis]:
    """Everything that the formula reads along one axis."""
    found = (place for statement in derivation.program.statements for place in statement.axes)
    return [place for place in found if (place.tensor, place.number) == axis]


def _tells(axis: Axis) -> bool:
    """Whether a read says how long its axis has to be."""
    return axis.place.mode in (None, "zero") and not axis.place.at.gathers


def _alike(derivation: Derivation, axis: Range) -> list[Range]:
    """An axis, and those that the integers point into which point into it."""
    find = derivation.classes.find
    pointed_by = {_pointer(place) for place in _places(derivation, axis)} - {None}
    everything = (place for statement in derivation.program.statements for place in statement.axes)
    others = [Range(place.tensor, place.number) for place in everything if _pointer(place) in pointed_by]
    return [find(axis), *(find(other) for other in others)]


def _pointer(axis: Axis) -> str | None:
    """The integer input that is the position, and nothing else is."""
    at = axis.place.at
    alone = axis.place.mode is None and at.constant == 0 and len(at.terms) == 1 and at.terms[0][1] == 1
    return at.gathers[0].tensor if alone and at.gathers else None


def _length(derivation: Derivation, axis: Range, of: Mapping[Range, tuple[int, ...]]) -> tuple[int, ...]:
    """An axis as long as its index says, or as its reads need; several axes for ``...``."""
    find, text = derivation.classes.find, derivation.program.text
    if find(axis) in of:
        return of[find(axis)]
    places = _places(derivation, axis)
    telling = [place for place in places if _tells(place)]

    def size(term: Index | SizeOf) -> int:
        if find(term.range) not in of:
            example = "(2, 3)" if term.letter == LEADING else "3"
            fact = f"the size of {term.letter} is missing"
            raise pointed(text, fact, places[0].span, more=[f"type sizes={{{term.letter!r}: {example}}}"])
        return of[find(term.range)][0]

    if not telling:
        for other in _alike(derivation, axis):
            if other in of:
                return of[other]
        name = f"size({axis.owner},{axis.name})"
        fact = f"no index says how long this axis of {axis.owner} is"
        raise pointed(text, fact, places[0].span, more=[f"type sizes={{{name!r}: 5}}"])
    return (max(needed(place.place.mode, *reach(place.place.at, size, lambda read: 0)) for place in telling),)


def _values(derivation: Derivation, name: str, of: Mapping[Range, int]) -> tuple[int, int]:
    """The integers that keep every read through one input in bounds; a little more under a boundary mode.

    Raises:
        FormulaError: there are none.
    """
    lowest, highest = -math.inf, math.inf
    for statement in derivation.program.statements:
        for axis in statement.axes:
            gathers = axis.place.at.gathers
            for term, coefficient in axis.place.at.terms:
                if not isinstance(term, Read) or term.tensor != name:
                    continue
                last = of[Range(axis.tensor, axis.number)] - 1
                if axis.place.mode is not None:
                    ends: list[float] = [-1, last + 1]
                else:
                    low, high = reach(axis.place.at, lambda term: of[term.range], lambda read: 0)
                    # Several gathers in one position share the room that it has.
                    ends = [room / (coefficient * len(gathers)) for room in (-low, last - high)]
                    ends = ends if coefficient > 0 else ends[::-1]
                lowest, highest = max(lowest, math.ceil(ends[0])), min(highest, math.floor(ends[1]))
    if lowest > highest:
        span = derivation.program.integers[name]
        raise pointed(derivation.program.text, f"no integer in {name} keeps every read in bounds", span)
    return int(lowest), int(highest)
