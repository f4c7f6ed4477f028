"""What a gradient costs, and the size of the Jacobian that nobody forms.

Costs are counted in monomials of sizes, ``n*d*m``; with sizes given these are numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import unknown
from ._contract import plan
from ._expr import Affine, Apply, Compare, Delta, Index, Power, Range, Read, Reduce, SizeOf, Slope, Term, Where, walk
from ._ranges import Sizes, needed, reach, solve
from ._schedule import Assign
from ._text import pointed
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation

# The size that every index has while an order of products is searched without sizes.
TYPICAL = 64


@dataclass(frozen=True)
class Cost:
    """What one gradient costs beside its Jacobian. Numbers where sizes are given, else text in letters."""

    multiply_adds: int | str
    """Multiplications with an addition, in the order of products that `backward` takes."""
    bytes: int | str
    """Read and written once: the tensors that the formula names, and the gradient."""
    largest_temporary: int | str
    """Bytes of the largest array between the inputs and the gradient; 0 where there is none."""
    jacobian_entries: int | str
    """Entries of ∂Y/∂X, which is never formed."""
    jacobian_bytes: int | str

    @property
    def flops(self) -> int | str:
        """Twice the multiply-adds."""
        return 2 * self.multiply_adds if isinstance(self.multiply_adds, int) else f"2*({self.multiply_adds})"

    def __str__(self) -> str:
        rows = [
            ("multiply-adds", shown(self.multiply_adds)),
            ("bytes read and written", in_bytes(self.bytes)),
            ("largest temporary", in_bytes(self.largest_temporary)),
            ("Jacobian avoided", f"{shown(self.jacobian_entries)} entries, {in_bytes(self.jacobian_bytes)}"),
        ]
        return "\n".join(f"{name:<24}{value}" for name, value in rows)


def shown(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def in_bytes(value: int | str) -> str:
    if not isinstance(value, int):
        return f"{value} bytes" if value != "0" else "none"
    if value == 0:
        return "none"
    power = min(max(value.bit_length() - 1, 0) // 10, 4)
    return f"{value / 1024**power:,.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


Monomials = Counter[tuple[str, ...]]


class _Symbols:
    """Sizes as letters."""

    def __init__(self, derivation: Derivation) -> None:
        self._classes = derivation.classes
        self._axes: dict[Range, str] = {}
        for statement in derivation.program.statements:
            for axis in statement.axes:
                range_ = Range(axis.tensor, axis.number)
                if not self._classes.alike(range_):
                    self._axes.setdefault(range_, f"size({axis.tensor},{axis.number})")

        letters = dict.fromkeys(letter for statement in derivation.program.statements for letter in statement.letters)
        self._place = {letter: place for place, letter in enumerate(letters)}

    def order(self, letter: str) -> tuple[int, str]:
        """Letters in the order of the formula."""
        return self._place.get(letter, len(self._place)), letter

    def __call__(self, range_: Range) -> str:
        letters = self._classes.alike(range_)
        return letters[0] if letters else self._axes.get(range_, str(range_.name))


def cost(derivation: Derivation, name: str, dtype: np.dtype[Any], given: Mapping[str, Any]) -> Cost:
    """The cost of one gradient; symbolic without sizes."""
    found = _sizes(derivation, given) if given else None
    symbol = _Symbols(derivation)

    def of(range_: Range) -> int:
        return TYPICAL if found is None else found.of[range_]

    def monomial(ranges: Iterable[Range]) -> tuple[str, ...]:
        return tuple(sorted((symbol(r) for r in ranges), key=symbol.order))

    work: Monomials = Counter()
    temporaries: dict[tuple[str, ...], int] = {}
    tensors: dict[str, None] = {}
    seen: set[int] = set()
    multiply_adds = 0

    def entries(indices: Iterable[Index]) -> int:
        return math.prod(of(index.range) for index in indices)

    def count(indices: Iterable[Index]) -> None:
        nonlocal multiply_adds
        indices = tuple(indices)
        multiply_adds += entries(indices)
        work[monomial(index.range for index in indices)] += 1

    def temporary(indices: Iterable[Index]) -> None:
        indices = tuple(indices)
        temporaries[monomial(index.range for index in indices)] = entries(indices)

    def term_cost(term: Term, keep: frozenset[Index], last: bool) -> None:
        for factor, _ in term.factors:
            atom_cost(factor)
        operands = [frozenset(factor.free) for factor, _ in term.factors]
        size = {index: of(index.range) for index in (*term.inside, *keep)}
        pairs = plan(operands, keep, size)
        pool = list(operands)
        for i, pair in enumerate(pairs):
            both = pool[pair.first] | pool[pair.second]
            count(index for index in term.inside if index in both)
            pool.append(pair.keep)
            if not last or i < len(pairs) - 1:
                temporary(index for index in term.inside if index in pair.keep)
        if len(operands) == 1 and operands[0] - keep:
            count(term.inside)

    def atom_cost(node: Any) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        for inner in walk(node):
            if inner is not node and isinstance(inner, Term):
                term_cost(inner, frozenset(inner.free), last=False)
        if isinstance(node, Read):
            tensors[node.tensor] = None
        elif isinstance(node, Apply | Compare | Delta | Where | Power | Reduce | Slope):
            count(node.free)
            temporary(node.free)

    for line in derivation._schedule.backward:
        if line.name != f"d{name}":
            continue
        if isinstance(line, Assign):
            for term in line.body.terms:
                term_cost(term, frozenset(line.left), last=True)
        else:
            temporary(line.where.free)
            term_cost(line.term, frozenset(line.where.free), last=False)

    axes = {t: [Range(t, k) for k in range(rank)] for t, rank in derivation.named.ranks.items()}
    output = derivation.output
    moved = [axes[t.removeprefix("d") if t not in axes else t] for t in tensors] + [axes[name]]
    jacobian = [*axes[output], *axes[name]]
    item = dtype.itemsize
    if found is None:
        largest = max(temporaries, key=lambda m: (len(m), m), default=None)
        moved_monomials = Counter(monomial(ranges) for ranges in moved)
        return Cost(
            _polynomial(work, symbol),
            f"{item}*({_polynomial(moved_monomials, symbol)})",
            f"{item}*{_product(largest)}" if largest is not None else "0",
            _product(monomial(jacobian)),
            f"{item}*{_product(monomial(jacobian))}",
        )
    sizes = found.of
    total = sum(math.prod(sizes[r] for r in ranges) for ranges in moved)
    avoided = math.prod(sizes[r] for r in jacobian)
    return Cost(multiply_adds, total * item, max(temporaries.values(), default=0) * item, avoided, avoided * item)


def _product(letters: Sequence[str] | None) -> str:
    return "*".join(letters) if letters else "1"


def _polynomial(monomials: Monomials, symbol: _Symbols) -> str:
    """``n*d*m + 2*n*m``: the longest monomials first."""
    parts = []
    for letters, times in sorted(
        monomials.items(), key=lambda pair: (-len(pair[0]), [symbol.order(letter) for letter in pair[0]])
    ):
        parts.append(_product(letters) if times == 1 else f"{times}*{_product(letters)}" if letters else str(times))
    return " + ".join(parts) or "0"


def _sizes(derivation: Derivation, given: Mapping[str, Any]) -> Sizes:
    """The size of every range, from letters and from shapes of tensors.

    Axes read at other than bare places are as long as the reads need, unless a shape says otherwise.
    """
    program = derivation.program
    letters = {letter: r for s in program.statements for letter, r in s.letters.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[Range, int] = {}
    for name, value in given.items():
        if name in program.inputs:
            shapes[name] = tuple(int(n) for n in np.atleast_1d(value))
        elif name in letters and isinstance(value, int | np.integer) and value >= 0:
            for statement in program.statements:
                if name in statement.letters:
                    sizes[derivation.classes.find(statement.letters[name])] = int(value)
        elif name in letters:
            raise pointed(program.text, f"cost({name}={value!r}): a size is an integer from 0 on")
        else:
            known = (*letters, *program.inputs)
            fact = f"cost({name}=…): the formula has no index or input {name}{unknown(name, known)}"
            raise pointed(program.text, fact, more=[f"its indices: {', '.join(letters)}"])
    for statement in program.statements:
        for axis in statement.axes:
            shape, index = shapes.get(axis.tensor, ()), axis.place.index
            from_end = program.ranks[axis.tensor] - axis.number  # leading axes may be several
            if index is not None and index.letter != LEADING and from_end <= len(shape):
                sizes.setdefault(derivation.classes.find(index.range), shape[-from_end])
    for name in program.inputs:
        if name not in shapes:
            shapes[name] = tuple(_axis(derivation, name, number, sizes) for number in range(program.ranks[name]))
    flat = {
        letter: sizes[c]
        for letter, r in letters.items()
        if letter != LEADING and (c := derivation.classes.find(r)) in sizes
    }
    return derivation.with_parts(solve(program, shapes, {**program.sizes, **flat}))


def _axis(derivation: Derivation, name: str, number: int, sizes: Mapping[Range, int]) -> int:
    """The length of an axis from the sizes of the indices that read it."""
    axis_range = derivation.classes.find(Range(name, number))
    if axis_range in sizes:
        return sizes[axis_range]
    places = [
        axis.place
        for statement in derivation.program.statements
        for axis in statement.axes
        if (axis.tensor, axis.number) == (name, number)
    ]
    return max((needed(place.mode, *_reach(derivation, place.at, sizes)) for place in places), default=0)


def _reach(derivation: Derivation, at: Affine, sizes: Mapping[Range, int]) -> tuple[int, int]:
    def size(term: Index | SizeOf) -> int:
        found = sizes.get(derivation.classes.find(term.range))
        if found is None:
            letter = term.letter
            how = f"{letter}=…" if letter != LEADING else "T=(rows, columns), …"
            more = [f"cost({how})"] if letter != LEADING else [f"give the shape of a tensor T that has it: cost({how})"]
            raise pointed(derivation.program.text, f"the size of {letter} is missing", more=more)
        return found

    def largest(read: Read) -> int:
        raise pointed(
            derivation.program.text,
            f"how long the axis is that {read.tensor} points into does not follow from sizes of indices",
            more=["give the tensor's shape instead: cost(T=(rows, columns), …)"],
        )

    return reach(at, size, largest)
