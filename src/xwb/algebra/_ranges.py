"""How large every index is: from the arrays' shapes and given sizes, as the grammar settles it.

Two questions are answered here: with shapes, the size of every range (`solve`); without, which ranges and axes are
bound to be equal (`Classes`), so that a gradient can be printed in the letters of its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core import FormulaError
from ._expr import Affine, Factor, Index, Range, Read, SizeOf, Value
from ._read import Axis, Program, Statement
from ._text import pointed
from ._tree import LEADING, Span


@dataclass
class Sizes:
    """The sizes of ranges, and of the axes of tensors, leading axes counted as one."""

    of: dict[Range, int] = field(default_factory=dict)
    leading: dict[Range, tuple[int, ...]] = field(default_factory=dict)
    source: dict[Range, tuple[str, Span | None]] = field(default_factory=dict)

    def shape(self, statement: Statement) -> tuple[int, ...]:
        """The shape of a statement's value, leading axes written out."""
        out: list[int] = []
        for index in statement.left:
            out.extend(self.leading.get(index.range, (self.of[index.range],)))
        return tuple(out)


def solve(program: Program, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]) -> Sizes:
    """The size of every range.

    Raises:
        FormulaError: shapes that contradict the formula, each other or a given size; a read out of bounds; a size
            that nothing says.
    """
    found = Sizes()
    for name in program.inputs:
        _enter(program, found, name, shapes[name])
    for statement in program.statements:
        _Solver(program, statement, found, sizes).solve()
        for number, index in enumerate(statement.left):
            axis = Range(statement.name, number)
            found.of[axis] = found.of[index.range]
            if index.range in found.leading:
                found.leading[axis] = found.leading[index.range]
    return found


def _enter(program: Program, found: Sizes, name: str, shape: tuple[int, ...]) -> None:
    """The axes of one input."""
    rank, leading = program.ranks[name], program.leading[name]
    if len(shape) < rank - leading or (len(shape) > rank and not leading):
        places = f"{rank - leading} {'or more ' if leading else ''}ax{'is' if rank - leading == 1 else 'es'}"
        raise pointed(
            program.text, f"{name} has the shape {shape}, and the formula gives it {places}", program.spans[name]
        )
    if leading:
        front = shape[: len(shape) - rank + 1]
        found.leading[Range(name, 0)] = front
        shape = (math.prod(front), *shape[len(front) :])
    for number, size in enumerate(shape):
        found.of[Range(name, number)] = size


class _Solver:
    """The ranges of one statement."""

    def __init__(self, program: Program, statement: Statement, found: Sizes, sizes: Mapping[str, int]) -> None:
        self.text = program.text
        self.statement = statement
        self.found = found
        self.given = {statement.letters[letter]: size for letter, size in sizes.items() if letter in statement.letters}
        self.axes = [axis for axis in statement.axes if axis.tensor != statement.name]

    def solve(self) -> None:
        for range_, size in self.given.items():
            self._fix(range_, size, f"sizes={{{range_.name!r}: {size}}}", None)
        for axis in self.axes:
            self._bare(axis)
        while self._one_more(zero=False):
            pass
        while self._one_more(zero=True) or self._one_more(zero=False):
            pass
        for axis in self.axes:
            self._in_bounds(axis)
        for range_, span in self.statement.spans.items():
            if range_ not in self.found.of:
                raise self._unknown(range_, span)

    def _size(self, axis: Axis) -> int:
        return self.found.of[Range(axis.tensor, axis.number)]

    def _fix(self, range_: Range, size: int, source: str, span: Span | None) -> None:
        self.found.of[range_] = size
        self.found.source[range_] = (source, span)

    def _bare(self, axis: Axis) -> None:
        """A bare index runs over its axis."""
        index = axis.place.index
        if index is None:
            return
        size, range_ = self._size(axis), index.range
        source = f"{axis.tensor} has {size} along {range_.name}"
        if range_.name == LEADING:
            shape = self.found.leading[Range(axis.tensor, axis.number)]
            source = f"{axis.tensor} has {shape} along ..."
            before = self.found.leading.setdefault(range_, shape)
            if before != shape:
                raise self._contradiction(range_, source, axis.span)
        known = self.found.of.get(range_)
        if known is None:
            self._fix(range_, size, source, axis.span)
        elif known > size or (known < size and range_ not in self.given):
            raise self._contradiction(range_, source, axis.span)

    def _contradiction(self, range_: Range, source: str, span: Span) -> FormulaError:
        before, where = self.found.source[range_]
        spans = [span] if where is None else [where, span]
        last = (
            "a given size may be smaller than an axis, never larger"
            if where is None
            else "an index has one size within a statement; write another letter, or pass arrays that agree"
        )
        return pointed(self.text, f"the index {range_.name} has two sizes", *spans, more=[before, source, last])

    def _bounds(self, at: Affine) -> tuple[int, int] | None:
        """The smallest and the largest value of a position; None where an index is not fixed yet, or gathers."""
        low = high = at.constant
        for term, coefficient in at.terms:
            if isinstance(term, Read):
                return None
            size = self.found.of.get(term.range)
            if size is None:
                return None
            ends = (coefficient * size,) * 2 if isinstance(term, SizeOf) else (0, coefficient * (size - 1))
            low, high = low + min(ends), high + max(ends)
        return low, high

    def _unfixed(self, at: Affine) -> list[Range]:
        ranges = [term.range for term, _ in at.terms if not isinstance(term, Read)]
        return [r for r in dict.fromkeys(ranges) if r not in self.found.of]

    def _one_more(self, zero: bool) -> bool:
        """Fix the indices that are the only unfixed one of some position; whether there was any."""
        limits: dict[Range, list[tuple[int, Axis]]] = {}
        for axis in self.axes:
            if axis.place.mode == ("zero" if zero else None) and len(open_ := self._unfixed(axis.place.at)) == 1:
                size = self._largest(axis, open_[0])
                if size is not None:
                    limits.setdefault(open_[0], []).append((size, axis))
        for range_, found in limits.items():
            size, axis = min(found, key=lambda pair: pair[0])
            written = self.text[axis.span.start : axis.span.end]
            if size == 0 and self._size(axis) > 0:
                raise self._nowhere(range_, axis, written)
            self._fix(range_, size, f"{axis.tensor}[{written}] in bounds gives {range_.name} = {size}", axis.span)
            if zero:
                return True
        return bool(limits)

    def _nowhere(self, range_: Range, axis: Axis, written: str) -> FormulaError:
        """A position that leaves its axis at the very first value of its index."""
        return pointed(
            self.text,
            f"{axis.tensor}[{written}] leaves its axis of {self._size(axis)} entries at every size of {range_.name}",
            axis.span,
            more=[f"write {axis.tensor}[…zero({written})…] for zeros outside"],
        )

    def _largest(self, axis: Axis, range_: Range) -> int | None:
        """The largest size of one range for which a position stays within its axis."""
        at, limit = axis.place.at, self._size(axis) - 1
        if any(isinstance(term, Read) for term, _ in at.terms):
            return None
        own = sum(c for term, c in at.terms if isinstance(term, Index) and term.range == range_)
        sized = sum(c for term, c in at.terms if isinstance(term, SizeOf) and term.range == range_)
        rest = Affine(at.constant, tuple((t, c) for t, c in at.terms if _range(t) != range_))
        bounds = self._bounds(rest)
        assert bounds is not None
        low, high = bounds
        zero = axis.place.mode == "zero"
        if zero:
            limit += max(0, -(low + min(0, own)))
        # With size s >= 1 the position reaches from low + sized*s + min(0, own*(s-1)), its largest value likewise.
        down, up = sized + min(0, own), sized + max(0, own)
        lowest, highest = low + sized, high + sized
        best = min(
            1 + (limit - highest) // up if up > 0 else math.inf,
            1 + lowest // -down if down < 0 and not zero else math.inf,
        )
        if best is math.inf:
            return None
        most = int(best)
        fits = (zero or lowest + down * (most - 1) >= 0) and highest + up * (most - 1) <= limit
        return most if most > 0 and fits else 0

    def _in_bounds(self, axis: Axis) -> None:
        """Every read without a boundary mode stays within its axis."""
        size = self._size(axis)
        place = axis.place
        if place.index is not None:
            return
        if (open_ := self._unfixed(place.at)) and not place.at.gathers:
            names = " and ".join(str(r.name) for r in open_)
            raise pointed(
                self.text,
                f"the size of {names} does not follow from {axis.tensor}, which has {size} there",
                axis.span,
                more=[_give(open_)],
            )
        if any(self.found.of.get(term.range) == 0 for term, _ in place.at.terms if isinstance(term, Index)):
            return
        bounds = self._bounds(place.at)
        if bounds is None:
            return
        if place.mode is not None:
            if size == 0 and place.mode != "zero":
                raise pointed(self.text, f"{place.mode}() needs an entry to read; {axis.tensor} has none", axis.span)
            return
        if bounds[0] < 0 or bounds[1] >= size:
            written = self.text[axis.span.start : axis.span.end]
            letters = [term.range for term, _ in place.at.terms if isinstance(term, Index)]
            more = [f"write {axis.tensor}[…zero({written})…] for zeros outside"]
            if letters:
                more[0] += f", or give a smaller size: {_give(letters)}"
            raise pointed(
                self.text,
                f"{axis.tensor}[{written}] reads {bounds[0]} to {bounds[1]}, and there are entries 0 to {size - 1}",
                axis.span,
                more=more,
            )

    def _unknown(self, range_: Range, span: Span) -> FormulaError:
        letter = str(range_.name)
        if letter == LEADING:
            fact = "no tensor read says what ... stands for"
        elif any(index.range == range_ for index in self.statement.left):
            fact = f"the index {letter} stands only on the left, and nothing says its size"
        else:
            fact = f"nothing says the size of {letter}"
        return pointed(self.text, fact, span, more=[] if letter == LEADING else [_give([range_])])


def reach(at: Affine, size: Callable[[Index | SizeOf], int], largest: Callable[[Read], int]) -> tuple[int, int]:
    """The smallest and the largest value of a position, from the sizes of its indices.

    Args:
        size: of the range of an index, or that ``size(n)`` stands for.
        largest: the largest integer that a gather reads.
    """
    low = high = at.constant
    for term, coefficient in at.terms:
        if isinstance(term, Read):
            ends = [0, coefficient * largest(term)]
        else:
            entries = size(term)
            ends = [coefficient * entries] * 2 if isinstance(term, SizeOf) else [0, coefficient * max(entries - 1, 0)]
        low, high = low + min(ends), high + max(ends)
    return low, high


def needed(mode: str | None, low: int, high: int) -> int:
    """How long an axis is that is read from ``low`` to ``high``; under ``zero`` both ends overhang alike."""
    return high + 1 - (max(0, -low) if mode == "zero" else 0)


def _range(term: Any) -> Range | None:
    return None if isinstance(term, Read) else term.range


def _give(ranges: Sequence[Range]) -> str:
    return f"sizes={{{', '.join(f'{str(r.name)!r}: …' for r in dict.fromkeys(ranges))}}}"


class Classes:
    """Which ranges and axes have one size whatever the arrays: each bare index and the axis it runs over."""

    def __init__(self, program: Program) -> None:
        self._parent: dict[Range, Range] = {}
        for statement in program.statements:
            for axis in statement.axes:
                index = axis.place.index
                if index is None and axis.place.mode is None:
                    index = flipped(axis.place.at)
                    if index is not None and _mentions(statement, index.range) > 1:
                        continue  # another position may have made it shorter than this axis
                if index is None:
                    continue
                given = program.sizes.get(str(index.range.name))
                if given is None or axis.tensor == statement.name:
                    self._join(Range(axis.tensor, axis.number), index.range)
        self.invented = program.invented
        for name, rank in program.ranks.items():
            if f"d{name}" not in program.ranks:
                for number in range(rank):
                    self._join(Range(f"d{name}", number), Range(name, number))
        self._letters: dict[Range, dict[str, None]] = {}
        for statement in program.statements:
            for letter, range_ in statement.letters.items():
                self._letters.setdefault(self.find(range_), {})[letter] = None

    def alike(self, range_: Range) -> tuple[str, ...]:
        """The letters that the formula has for ranges of this size, in order of appearance."""
        return tuple(self._letters.get(self.find(range_), ()))

    def find(self, range_: Range) -> Range:
        while (parent := self._parent.get(range_, range_)) != range_:
            range_ = parent
        return range_

    def equal(self, a: Range, b: Range) -> bool:
        """Whether two ranges are bound to have one size."""
        return self.find(a) == self.find(b)

    def adopt(self, name: str, left: Sequence[Index]) -> None:
        """Take in a tensor whose axes are as long as these indices' ranges, and its gradient."""
        for number, index in enumerate(left):
            self._join(Range(name, number), index.range)
            self._join(Range(f"d{name}", number), index.range)

    def _join(self, a: Range, b: Range) -> None:
        self._parent[self.find(a)] = self.find(b)


def divides(pair: Factor, index: Index, classes: Classes) -> bool:
    """Whether a factor divides by the size of what an index runs over."""
    factor, exponent = pair
    if exponent != -1 or not isinstance(factor, Value) or not factor.at.size:
        return False
    ((size, _),) = factor.at.terms
    return isinstance(size, SizeOf) and classes.equal(size.range, index.range)


def _mentions(statement: Statement, range_: Range) -> int:
    """How many positions say something about a range."""
    return sum(
        any(index.range == range_ for index in axis.place.at.free)
        for axis in statement.axes
        if axis.tensor != statement.name and axis.place.mode is None
    )


def flipped(at: Affine) -> Index | None:
    """n, where the position is ``size(n)-1-n``: it runs over its axis backwards."""
    indices = [term for term, coefficient in at.terms if isinstance(term, Index) and coefficient == -1]
    sizes = [term for term, coefficient in at.terms if isinstance(term, SizeOf) and coefficient == 1]
    if at.constant == -1 and len(at.terms) == 2 and indices and sizes and sizes[0].range == indices[0].range:
        return indices[0]
    return None
