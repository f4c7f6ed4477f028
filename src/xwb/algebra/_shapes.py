"""Sizes as emitted code knows them: read from a shape, computed from others, or passed in.

`_ranges.solve` finds the numbers for one set of arrays; here the same rules are followed without numbers, so that a
program holds for all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from ._expr import Affine, Index, Indices, Range, Read, SizeOf
from ._read import Axis, Program, Statement
from ._tree import LEADING

# Sizes by which the order of products is chosen where none are given: of an axis of the output or of the first input,
# of any other.
LARGE, SMALL = 512, 32


class Dim:
    """One size. ``source``: the input's axis it is read from; ``formula``: how it follows from others."""

    def __init__(self, letter: str, hint: int, *, formula: Sequence[str | Dim] = (), value: int | None = None) -> None:
        self.letter = letter
        self.hint = hint
        self.formula = tuple(formula)
        self.value = value
        self.sources: list[tuple[str, int]] = []
        self.parts: tuple[Dim, ...] = ()
        """The sizes that it is the product of."""
        self.leading = False
        """Whether it counts leading axes."""

    def __repr__(self) -> str:
        return self.letter


ONE = Dim("1", 1, value=1)
Shape: TypeAlias = "tuple[Dim, ...]"


class _Linear:
    """``constant + Σ coefficient * size``."""

    def __init__(self, constant: int, sizes: Mapping[Dim, int] | None = None) -> None:
        self.constant = constant
        self.sizes = {dim: c for dim, c in (sizes or {}).items() if c}

    def plus(self, other: _Linear | int, times: int = 1) -> _Linear:
        if isinstance(other, int):
            return _Linear(self.constant + times * other, self.sizes)
        total = dict(self.sizes)
        for dim, c in other.sizes.items():
            total[dim] = total.get(dim, 0) + times * c
        return _Linear(self.constant + times * other.constant, total)

    def parts(self) -> list[str | Dim]:
        """As Python text with sizes in it; positive terms first."""
        out: list[str | Dim] = []
        for dim, c in sorted(self.sizes.items(), key=lambda pair: pair[1] < 0):
            sign = "-" if c < 0 else "+" if out else ""
            out.append(f" {sign} " if out else sign)
            out += [f"{abs(c)} * ", dim] if abs(c) != 1 else [dim]
        if self.constant or not out:
            sign = "-" if self.constant < 0 else "+"
            out.append(f" {sign} {abs(self.constant)}" if out else str(self.constant))
        return out


class SizeTable:
    """The size of every range of a program.

    Args:
        hints: sizes by letter, for the order of products alone.
    """

    def __init__(self, program: Program, hints: Mapping[str, int]) -> None:
        self._program = program
        self._hints = hints
        self._of: dict[Range, Dim] = {}
        self._same: dict[Dim, Dim] = {}
        self._known: dict[tuple[str, ...], Dim] = {}
        self._products: dict[tuple[Dim, ...], Dim] = {}
        self.passed: list[Dim] = []
        """Sizes that nothing says: keyword-only arguments."""
        first = program.inputs[0] if program.inputs else ""
        for name in program.inputs:
            for axis in range(program.ranks[name]):
                dim = Dim(self._letter(name, axis), LARGE if name == first else SMALL)
                dim.sources.append((name, axis))
                dim.leading = axis == 0 and program.leading[name]
                self._of[Range(name, axis)] = dim
        for statement in program.statements:
            self._statement(statement)
        self.passed = [dim for dim in self.passed if self._find(dim) is dim and not dim.sources]
        for dim in self._known.values():  # what a formula was made of may be one with another size since
            dim.formula = tuple(part if isinstance(part, str) else self._find(part) for part in dim.formula)
        for name in program.ranks:
            for axis in range(program.ranks[name]):
                if f"d{name}" not in program.ranks:
                    self._of[Range(f"d{name}", axis)] = self._of[Range(name, axis)]
        for index in program.output.left:
            self.dim(index.range).hint = LARGE
        for statement in program.statements:
            for letter, range_ in statement.letters.items():
                if letter in hints and range_ in self._of:
                    self.dim(range_).hint = hints[letter]

    def _letter(self, name: str, axis: int) -> str:
        for statement in self._program.statements:
            for found in statement.axes:
                if (found.tensor, found.number) == (name, axis) and found.place.index is not None:
                    letter = found.place.index.letter
                    return "rows" if letter == LEADING else letter
        return "size"

    def __getitem__(self, of: Index | SizeOf | Range) -> Dim:
        return self.dim(of if isinstance(of, Range) else of.range)

    def dim(self, range_: Range) -> Dim:
        return self._find(self._of[range_])

    def shape(self, indices: Indices) -> Shape:
        return tuple(self[index] for index in indices)

    def define(self, name: str, left: Indices) -> None:
        """The axes of one more named value."""
        for number, index in enumerate(left):
            self._of.setdefault(Range(name, number), self[index])

    def all(self) -> list[Dim]:
        """Every size that may need a name."""
        found = dict.fromkeys(map(self._find, self._of.values()))
        return [dim for dim in found if dim.value is None]

    def product(self, dims: Sequence[Dim]) -> Dim:
        """The size of several axes made one."""
        dims = tuple(part for dim in dims for part in (dim.parts or (dim,)) if part is not ONE)
        if len(dims) < 2:
            return dims[0] if dims else ONE
        if dims not in self._products:
            hint = 1
            for dim in dims:
                hint *= dim.hint
            new = self._products[dims] = Dim("", hint)
            new.parts = dims
        return self._products[dims]

    def _find(self, dim: Dim) -> Dim:
        while dim in self._same:
            dim = self._same[dim]
        return dim

    def _join(self, a: Dim, b: Dim) -> None:
        a, b = self._find(a), self._find(b)
        if a is b:
            return
        if b.sources and not a.sources:
            a, b = b, a
        self._same[b] = a
        a.sources += b.sources
        a.hint = max(a.hint, b.hint)
        a.leading = a.leading or b.leading
        if a.value is None:
            a.value = b.value

    def _statement(self, statement: Statement) -> None:
        given = {statement.letters[x]: n for x, n in self._program.sizes.items() if x in statement.letters}
        for range_, size in given.items():
            self._of[range_] = Dim(str(range_.name), size, value=size)
        axes = [axis for axis in statement.axes if axis.tensor != statement.name]
        for axis in axes:
            if (index := axis.place.index) is not None:
                own = Range(axis.tensor, axis.number)
                if index.range not in self._of:
                    self._of[index.range] = self._of[own]
                elif index.range not in given:
                    self._join(self._of[index.range], self._of[own])
        while self._one_more(axes, zero=False):
            pass
        while self._one_more(axes, zero=True) or self._one_more(axes, zero=False):
            pass
        for range_ in statement.spans:
            if range_ not in self._of:
                letter = str(range_.name)
                known = next((dim for dim in self.passed if dim.letter == letter), None)  # a size is given by letter
                self._of[range_] = known or Dim(letter, LARGE)
                if known is None:
                    self.passed.append(self._of[range_])
        for number, index in enumerate(statement.left):
            self._of[Range(statement.name, number)] = self._of[index.range]

    def _unfixed(self, at: Affine) -> list[Range]:
        ranges = [term.range for term, _ in at.terms if not isinstance(term, Read)]
        return [r for r in dict.fromkeys(ranges) if r not in self._of]

    def _one_more(self, axes: Sequence[Axis], zero: bool) -> bool:
        """As `_ranges._Solver._one_more`, with formulas for numbers."""
        limits: dict[Range, list[tuple[str | Dim, ...]]] = {}
        for axis in axes:
            wanted = "zero" if zero else None
            if axis.place.mode == wanted and len(open_ := self._unfixed(axis.place.at)) == 1:
                size = self._largest(axis, open_[0])
                if size is not None:
                    limits.setdefault(open_[0], []).append(size)
        for range_, found in limits.items():
            distinct = list(dict.fromkeys(found))
            formula = distinct[0]
            if len(distinct) > 1:
                parts = [part for one in distinct for part in (*one, ", ")]
                formula = ("min(", *parts[:-1], ")")
            self._of[range_] = self._computed(str(range_.name), formula)
            if zero:
                return True
        return bool(limits)

    def _computed(self, letter: str, formula: Sequence[str | Dim]) -> Dim:
        parts = [part for part in formula if part != ""]
        if len(parts) == 1 and isinstance(parts[0], Dim):
            return parts[0]
        if len(parts) == 1 and str(parts[0]).isdigit():
            return Dim(letter, int(str(parts[0])), value=int(str(parts[0])))
        name = tuple(part if isinstance(part, str) else f"\0{id(part)}" for part in parts)
        if name not in self._known:
            self._known[name] = Dim(letter, LARGE, formula=parts)
        return self._known[name]

    def bounds(self, at: Affine) -> tuple[_Linear, _Linear]:
        """The smallest and the largest value of a position without gathers; no index is empty."""
        low = high = _Linear(at.constant)
        for term, coefficient in at.terms:
            assert not isinstance(term, Read)
            size = self._linear(self[term])
            if isinstance(term, SizeOf):
                low, high = low.plus(size, coefficient), high.plus(size, coefficient)
            elif coefficient < 0:
                low = low.plus(size.plus(-1), coefficient)
            else:
                high = high.plus(size.plus(-1), coefficient)
        return low, high

    @staticmethod
    def _linear(dim: Dim) -> _Linear:
        return _Linear(0, {dim: 1}) if dim.value is None else _Linear(dim.value)

    def _largest(self, axis: Axis, range_: Range) -> tuple[str | Dim, ...] | None:
        at = axis.place.at
        if any(isinstance(term, Read) for term, _ in at.terms):
            return None
        own = sum(c for term, c in at.terms if isinstance(term, Index) and term.range == range_)
        sized = sum(c for term, c in at.terms if isinstance(term, SizeOf) and term.range == range_)
        rest = Affine(at.constant, tuple((t, c) for t, c in at.terms if isinstance(t, Read) or t.range != range_))
        low, high = self.bounds(rest)
        zero = axis.place.mode == "zero"
        limit = self._linear(self[Range(axis.tensor, axis.number)]).plus(-1)
        extra: list[str | Dim] = []
        if zero:
            over = _Linear(-min(0, own)).plus(low, -1)
            if not over.sizes:
                limit = limit.plus(max(0, over.constant))
            else:
                extra = ["max(0, ", *over.parts(), ")"]
        down, up = sized + min(0, own), sized + max(0, own)
        lowest, highest = low.plus(sized), high.plus(sized)
        found: list[tuple[str | Dim, ...]] = []
        if up > 0:
            found.append(_steps(limit.plus(highest, -1), extra, up))
        if down < 0 and not zero:
            found.append(_steps(lowest, [], -down))
        if not found:
            return None
        return found[0] if len(found) == 1 else ("min(", *found[0], ", ", *found[1], ")")


def _steps(room: _Linear, extra: Sequence[str | Dim], step: int) -> tuple[str | Dim, ...]:
    """``1 + (room + extra) // step``."""
    if not room.sizes and not extra:
        return (str(1 + room.constant // step),)
    if step == 1:
        parts = room.plus(1).parts()
        return (*parts, " + ", *extra) if extra else tuple(parts)
    parts = [*room.parts(), *([" + ", *extra] if extra else [])]
    return ("(", *parts, f") // {step} + 1")


def dims_in(dim: Dim) -> Iterator[Dim]:
    """The sizes that one is computed from, one level down."""
    yield from dim.parts
    yield from (part for part in dim.formula if isinstance(part, Dim))
