"""Gradients as einsum subscripts and in matrix notation, where they have such a form."""

from __future__ import annotations

import string
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ._evaluate import Evaluation
from ._expr import Expr, Index, Indices, Range, Read, Term, ordered, walk
from ._gradient import Adjoint
from ._print import decimal
from ._ranges import Classes
from ._tree import LEADING

# A product of more matrices is no notation that a person reads.
MAX_FACTORS = 8


def einsum(adjoint: Adjoint, classes: Classes) -> str | None:
    """The subscripts of a single product of plain reads, its tensors in the order of the formula."""
    if len(adjoint.body.terms) != 1 or not _whole_axes(adjoint.body, classes):
        return None
    (term,) = adjoint.body.terms
    reads = _plain_reads(term)
    if term.coefficient != 1 or not 0 < len(reads) <= MAX_FACTORS or not set(adjoint.entry) <= set(term.inside):
        return None
    if any(index.letter == LEADING for index in term.bound):
        return None  # np.einsum keeps the axes of an ellipsis
    letters = _single_letters(ordered(adjoint.entry, term.inside))
    inputs = ",".join("".join(letters[place.index] for place in read.places if place.index) for read in reads)
    return f"{inputs}->{''.join(letters[index] for index in adjoint.entry)}"


def _plain_reads(term: Term) -> list[Read]:
    """The factors, where all are reads at bare indices; else nothing."""
    reads = [f for f, e in term.factors if isinstance(f, Read) and e == 1 and all(p.index for p in f.places)]
    return reads if len(reads) == len(term.factors) else []


def _single_letters(indices: Indices) -> dict[Index, str]:
    """One character for each index: its own letter where it is one and free."""
    out: dict[Index, str] = {}
    spare = iter(string.ascii_letters)
    for index in indices:
        if index.letter == LEADING:
            out[index] = LEADING
        elif len(index.letter) == 1 and index.letter not in out.values():
            out[index] = index.letter
    for index in indices:
        if index not in out:
            out[index] = next(x for x in spare if x not in out.values())
    return out


# -- matrix notation -----------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """A piece of matrix notation and what its axes are. ``binds``: 2 an atom, 1 a product, 0 a sum."""

    text: str
    axes: Indices
    binds: int

    def atom(self) -> str:
        return self.text if self.binds == 2 else f"({self.text})"

    def factor(self) -> str:
        return self.text if self.binds >= 1 else f"({self.text})"

    @property
    def turned(self) -> _Part:
        if len(self.axes) < 2:
            return self
        plain = self.text.removesuffix(".T") if self.text.endswith(".T") and self.text[:-2].isidentifier() else ""
        return _Part(plain or f"{self.atom()}.T", self.axes[::-1], 2)


def _whole_axes(body: Expr, classes: Classes) -> bool:
    """Whether every read goes along whole axes: a given size may make an index shorter."""
    return all(
        place.index is None or classes.equal(place.index.range, Range(node.tensor, axis))
        for node in walk(body)
        if isinstance(node, Read)
        for axis, place in enumerate(node.places)
    )


def matrix(entry: Indices, body: Expr, classes: Classes) -> str | None:
    """``body`` along ``entry`` in matrix notation, claimed only after it gave the same numbers; else None."""
    if not _whole_axes(body, classes):
        return None
    if (
        len(entry) > 2
        or any(len(term.factors) > MAX_FACTORS for term in body.terms)
        or any(index.letter == LEADING for index in entry)
    ):
        return None
    part = _sum(body, entry)
    if part is None or part.text == "0" or any(isinstance(n, Read) and n.tensor == "np" for n in walk(body)):
        return None
    return part.text if _verified(part.text, entry, body, classes) else None


def _sum(body: Expr, axes: Indices) -> _Part | None:
    """A sum of terms, each brought to the same axes."""
    parts = []
    for term in body.terms:
        part = _term(term, axes)
        if part is None:
            return None
        parts.append((part, term.coefficient))
    out = ""
    for i, (part, coefficient) in enumerate(parts):
        sign = "-" if coefficient < 0 else "+"
        scaled = _scaled(part, abs(coefficient))
        if scaled is None:
            return None
        text = scaled.factor()
        out += f" {sign} {text}" if i else f"-{text}" if coefficient < 0 else text
        single = scaled
    if len(parts) == 1 and parts[0][1] > 0:
        return single
    return _Part(out, axes, 0) if parts else _Part("0", axes, 2)


def _scaled(part: _Part, coefficient: Fraction) -> _Part | None:
    if coefficient == 1:
        return part
    if text := decimal(coefficient):
        return _Part(f"{text} * {part.atom() if '@' in part.text else part.factor()}", part.axes, 1)
    return None


def _term(term: Term, axes: Indices) -> _Part | None:
    """One product: entry-by-entry products, matrix products over shared sums, sums over lone axes, outer products."""
    parts: list[_Part] = []
    for factor, exponent in term.factors:
        part = _factor(factor, exponent)
        if part is None:
            return None
        parts.append(part)
    while len(parts) > 1 or (parts and set(parts[0].axes) != set(axes)):
        step = (
            _same_axes(parts) or _product(parts, term.bound, axes) or _lone(parts, term.bound) or _widened(parts, axes)
        )
        if step is None:
            return None
        parts = step
    if not parts:
        return None
    (part,) = parts
    return part if part.axes == axes else part.turned if part.turned.axes == axes else None


def _factor(factor: Any, exponent: Fraction) -> _Part | None:
    if isinstance(factor, Read):
        axes = [place.index for place in factor.places]
        if len(axes) > 2 or None in axes or len(set(axes)) < len(axes) or LEADING in {i.letter for i in axes if i}:
            return None
        part: _Part | None = _Part(factor.tensor, tuple(i for i in axes if i), 2)
    elif isinstance(factor, Expr) and len(factor.free) <= 2:
        part = next((p for p in (_sum(factor, order) for order in (factor.free, factor.free[::-1])) if p), None)
    else:
        return None
    if part is None or exponent == 1:
        return part
    return _Part(f"{part.atom()}**{exponent}", part.axes, 1) if exponent.denominator == 1 and exponent > 0 else None


def _without(parts: Sequence[_Part], i: int, j: int, new: _Part) -> list[_Part]:
    return [new if k == i else part for k, part in enumerate(parts) if k != j]


def _same_axes(parts: list[_Part]) -> list[_Part] | None:
    """Two parts with the same axes: an entry-by-entry product. A number goes in front."""
    for i, a in enumerate(parts):
        for j in range(i + 1, len(parts)):
            b = parts[j]
            if set(a.axes) == set(b.axes):
                other = b if b.axes == a.axes else b.turned
                return _without(parts, i, j, _Part(f"{_beside(a)} * {_beside(other)}", a.axes, 1))
    return None


def _beside(part: _Part) -> str:
    """A factor of ``*``: a matrix product beside it needs parentheses."""
    return part.atom() if "@" in part.text else part.factor()


def _product(parts: list[_Part], bound: Indices, axes: Indices) -> list[_Part] | None:
    """A summed index that stands in exactly two parts."""
    for index in bound:
        owners = [i for i, part in enumerate(parts) if index in part.axes]
        if len(owners) != 2:
            continue
        i, j = owners
        a, b = parts[i], parts[j]
        rest_a = [x for x in a.axes if x is not index]
        rest_b = [x for x in b.axes if x is not index]
        if set(rest_a) & set(rest_b):
            continue
        if _first(rest_b, axes) < _first(rest_a, axes):
            a, b, rest_a, rest_b = b, a, rest_b, rest_a
        left = a if a.axes[-1] is index else a.turned
        right = b if b.axes[0] is index else b.turned
        text = f"{left.factor()} @ {right.atom() if '@' in right.text or right.binds == 1 else right.factor()}"
        return _without(parts, i, j, _Part(text, (*rest_a, *rest_b), 1))
    return None


def _first(indices: Sequence[Index], axes: Indices) -> int:
    """Where a part belongs in a chain of products: first with the first axis, last with the last."""
    if axes and axes[0] in indices:
        return 0
    return 2 if len(axes) > 1 and axes[-1] in indices else 1


def _lone(parts: list[_Part], bound: Indices) -> list[_Part] | None:
    """A summed index that stands in one part alone."""
    for index in bound:
        owners = [i for i, part in enumerate(parts) if index in part.axes]
        if len(owners) == 1:
            part = parts[owners[0]]
            left = tuple(x for x in part.axes if x is not index)
            at = f"axis={part.axes.index(index)}" if left else ""
            return [_Part(f"{part.atom()}.sum({at})", left, 2) if i == owners[0] else p for i, p in enumerate(parts)]
    return None


def _widened(parts: list[_Part], axes: Indices) -> list[_Part] | None:
    """What is left shares no sum: numbers, outer products, rows or columns scaled."""
    for i, a in enumerate(parts):
        for j in range(i + 1, len(parts)):
            b = parts[j]
            small, large = (a, b) if len(a.axes) <= len(b.axes) else (b, a)
            if not small.axes:
                return _without(parts, i, j, _Part(f"{_beside(small)} * {_beside(large)}", large.axes, 1))
            if len(a.axes) == 1 and len(b.axes) == 1:
                first, second = (a, b) if _first(a.axes, axes) <= _first(b.axes, axes) else (b, a)
                pair = (*first.axes, *second.axes)
                return _without(parts, i, j, _Part(f"np.outer({first.text}, {second.text})", pair, 2))
            if len(small.axes) == 1 and len(large.axes) == 2 and small.axes[0] in large.axes:
                wide = small.atom() if small.axes[0] is large.axes[1] else f"{small.atom()}[:, None]"
                return _without(parts, i, j, _Part(f"{_beside(large)} * {wide}", large.axes, 1))
    return None


def _verified(text: str, entry: Indices, body: Expr, classes: Classes) -> bool:
    """Whether the notation gives the formula's numbers, on signed random integers at several all-different sizes."""
    tensors = {node.tensor: node for node in walk(body) if isinstance(node, Read)}
    terms = [node for node in walk(body) if isinstance(node, Term)]
    indices = ordered(entry, *(node.inside for node in terms), *(node.bound for node in terms))
    kinds = list(dict.fromkeys(classes.find(index.range) for index in indices))
    rng = np.random.default_rng(0)
    for shift in range(3):
        size = {kind: (3, 2, 5, 4, 7, 6)[(n + shift) % 6] + 6 * (n // 6) for n, kind in enumerate(kinds)}
        of = {index.range: size[classes.find(index.range)] for index in indices}
        arrays = {}
        for name, node in tensors.items():
            shape = [of[place.index.range] for place in node.places if place.index is not None]
            arrays[name] = rng.integers(-9, 10, shape).astype(np.float64)
            of.update({Range(name, axis): n for axis, n in enumerate(shape)})
        with np.errstate(all="ignore"):
            expected = Evaluation(arrays, of, np.dtype(np.float64)).value(body, entry)
            found = np.asarray(eval(text, {"np": np, **arrays}))
        if found.shape != expected.shape or not np.array_equal(found, expected):
            return False
    return True
