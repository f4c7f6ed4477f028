"""From syntax to meaning: which names are indices, where every sum stands, what each axis says about the ranges.

The scope of a sum is Einstein's, made strict (``docs/derive.md``): an index that is neither on the left nor bound by a
reduction is summed over the one product in which it occurs at least twice; anything else is an error that shows how to
write both readings.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from . import _tree as tree
from ._expr import (
    Affine,
    Apply,
    Compare,
    Delta,
    Expr,
    Index,
    Indices,
    Place,
    Power,
    Range,
    Read,
    Reduce,
    SizeOf,
    Value,
    Where,
    add,
    atom,
    bare,
    multiply,
    number,
    power,
    scale,
    total,
)
from ._leading import index_names, written_out
from ._text import parse, pointed


class Axis(NamedTuple):
    """One axis of a tensor as the formula reads it, and where it says so."""

    tensor: str
    number: int
    place: Place
    span: tree.Span


@dataclass
class Statement:
    """One statement: ``name[left] = body``, its axes in the order they are read."""

    name: str
    left: Indices
    body: Expr
    axes: list[Axis]
    spans: dict[Range, tree.Span]
    letters: dict[str, Range]
    span: tree.Span
    reads: tuple[str, ...]
    """The tensors read, in order of appearance."""
    part_of: str = ""
    """The statement that this one names a part of; empty for one that was written."""

    @cached_property
    def places(self) -> dict[str, dict[int, Place]]:
        """How each tensor is first read: its places by the number of the axis."""
        out: dict[str, dict[int, Place]] = {}
        for axis in self.axes:
            out.setdefault(axis.tensor, {}).setdefault(axis.number, axis.place)
        return out


@dataclass
class Program:
    """A formula that has been read."""

    text: str
    statements: list[Statement]
    inputs: tuple[str, ...]
    integers: dict[str, tree.Span]
    """Integer inputs, and where each is first used as one."""
    compared: tuple[str, ...]
    """Inputs that are only compared with something: any dtype, no gradient."""
    ranks: dict[str, int]
    """Places of each tensor, leading axes counted as one."""
    leading: dict[str, bool]
    """Whether the first place of a tensor is ``...``."""
    spans: dict[str, tree.Span]
    """Where each tensor is first named."""
    invented: frozenset[str]
    """Letters that are not in the text: axes of ``...`` written out."""
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def output(self) -> Statement:
        return self.statements[-1]

    @property
    def loss(self) -> str:
        """What the steps call the loss: L, unless a tensor has that name."""
        return "L" if "L" not in self.spans else "loss"

    @property
    def taken(self) -> set[str]:
        """Names that no index may be printed with: tensors and their gradients."""
        return {*self.spans, *(f"d{name}" for name in self.spans)}

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(statement.name for statement in self.statements)


def read(text: str, sizes: Mapping[str, int] | None = None) -> Program:
    """Read a formula.

    Raises:
        FormulaError: it does not follow the grammar; the message points at the characters.
    """
    formula, invented = written_out(parse(text))
    _make_room(formula)
    names = _Names(text)
    statements = [_Reader(text, statement, names).statement() for statement in formula.statements]
    program = Program(
        text=text,
        statements=statements,
        inputs=tuple(name for name in sorted(names.rank, key=names.span.__getitem__) if name not in names.assigned),
        integers=names.integers,
        compared=tuple(
            name for name in names.rank if name not in names.assigned | names.valued | names.integers.keys()
        ),
        ranks=names.rank,
        leading=names.leading,
        spans=names.span,
        invented=invented,
    )
    program.sizes = checked_sizes(program, sizes)
    return program


# Binary digits of the largest number that a power of numbers may make: double precision ends at 1,024.
MAX_BITS = 2048

# The largest number in an index position; products of these and sizes stay within 64 bits.
FARTHEST = 10**9

# Frames that the deepest walk, evaluation, spends on one level of nesting; and what a caller may have used already.
FRAMES, USED = 16, 1000


def _make_room(formula: tree.Formula) -> None:
    """Let Python recurse as deep as this formula is nested; the parser bounds how deep that is."""
    deepest = 0
    pending: list[tuple[tree.Node, int]] = [(statement.body, 1) for statement in formula.statements]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        pending += [(child, depth + 1) for child in tree.children(node)]
    sys.setrecursionlimit(max(sys.getrecursionlimit(), USED + FRAMES * deepest))


def checked_sizes(program: Program, sizes: Mapping[str, int] | None) -> dict[str, int]:
    """Given sizes by letter, as integers.

    Raises:
        FormulaError: a letter that the formula does not have, or no size.
    """
    known = {letter: None for statement in program.statements for letter in statement.letters}
    out = {}
    if sizes is not None and not isinstance(sizes, Mapping):
        raise pointed(program.text, f"sizes={sizes!r}: sizes are given by letter, sizes={{'n': 3}}")
    for letter, size in (sizes or {}).items():
        if letter not in known:
            raise pointed(program.text, f"sizes={{{letter!r}: {size}}}: the formula has no index {letter}",
                          more=[f"its indices: {', '.join(known) or 'none'}"])  # fmt: skip
        if isinstance(size, bool) or not hasattr(size, "__index__") or size.__index__() < 0:
            raise pointed(program.text, f"sizes={{{letter!r}: {size!r}}}: a size is an integer from 0 on")
        out[letter] = size.__index__()
    return out


class _Names:
    """What the statements so far say about the tensors."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rank: dict[str, int] = {}
        self.leading: dict[str, bool] = {}
        self.span: dict[str, tree.Span] = {}
        self.assigned: set[str] = set()
        self.valued: set[str] = set()
        self.integers: dict[str, tree.Span] = {}

    def see(self, name: str, rank: int, leading: bool, span: tree.Span) -> None:
        before = self.rank.setdefault(name, rank)
        if before != rank or self.leading.setdefault(name, leading) != leading:
            raise pointed(
                self.text,
                f"{name} is written with {_places(before, self.leading[name])} and with {_places(rank, leading)}",
                self.span[name],
                span,
                more=["a tensor has the same number of axes wherever it stands"],
            )
        self.span.setdefault(name, span)


def _places(rank: int, leading: bool) -> str:
    trailing = rank - leading
    return f"{trailing} ind{'ex' if trailing == 1 else 'ices'}{' after ...' if leading else ''}"


def _text(text: str, node: tree.Node) -> str:
    return " ".join(text[node.span.start : node.span.end].split())


class _Reader:
    """One statement: first the scope of its sums, then the expression."""

    def __init__(self, text: str, statement: tree.Statement, names: _Names) -> None:
        self.text = text
        self.tree = statement
        self.names = names
        self.letters: dict[str, Range] = {}
        self.spans: dict[Range, tree.Span] = {}
        self.axes: list[Axis] = []
        self.reads: dict[str, None] = {}
        self.summed: dict[int, list[str]] = {}
        self.comparing = 0

    def statement(self) -> Statement:
        left = [index.name for index in self.tree.indices]
        self.used = index_names(self.tree)
        self._scope(left)
        env = {letter: self.index(letter, span) for letter, span in self.tree.indices}
        body = self.expr(self.tree.body, env)
        name = self.tree.name
        self.names.see(name, len(left), tree.LEADING in left, self.tree.span)
        self.names.assigned.add(name)
        for number_, (letter, span) in enumerate(self.tree.indices):
            self.axes.append(Axis(name, number_, Place(bare(env[letter])), span))
        return Statement(
            name, tuple(env.values()), body, self.axes, self.spans, self.letters, self.tree.span, tuple(self.reads)
        )

    def index(self, letter: str, span: tree.Span) -> Index:
        """A new index of this letter."""
        range_ = self.letters.setdefault(letter, Range(self.tree.name, letter))
        self.spans.setdefault(range_, span)
        return Index(letter, range_)

    # -- the scope of sums -------------------------------------------------------------------------------------------

    def _scope(self, left: list[str]) -> None:
        free, _ = self._count(self.tree.body, frozenset(left), alone=True)
        for name, node in free.items():
            raise self._once(name, node)

    def _count(
        self, node: tree.Node, bound: frozenset[str], alone: bool = False
    ) -> tuple[dict[str, tree.Node], dict[str, tree.Node]]:
        """The indices that ``node`` leaves to what stands around it, and those summed somewhere inside, with the node.

        ``alone``: the node is a product of its own, of one factor.
        """
        match node:
            case tree.Product():
                return self._product(node, [factor.node for factor in node.factors], bound)
            case tree.Sum():
                return self._terms(node, bound)
            case tree.Power():
                free, inside = dict[str, tree.Node](), dict[str, tree.Node]()
                for part in (node.base, node.exponent):
                    if isinstance(part, tree.Access) and (twice := self._diagonal(part) - bound):
                        raise self._ambiguous_power(node, part, min(twice))
                    more, deeper = self._count(part, bound, alone=True)
                    free, inside = {**more, **free}, {**deeper, **inside}
                return free, inside
            case tree.Call() | tree.Compare():
                free, inside = {}, {}
                for part in (node.left, node.right) if isinstance(node, tree.Compare) else node.arguments:
                    more, deeper = self._count(part, bound, alone=True)
                    free, inside = {**more, **free}, {**deeper, **inside}
                return free, inside
            case tree.Reduce():
                return self._count(node.body, bound | set(node.indices), alone=True)
            case tree.Negative():
                return self._count(node.operand, bound, alone=alone)
            case tree.Bracket():
                return self._count(node.condition, bound)
            case tree.Name():
                return ({node.name: node} if node.name in self.used - bound else {}), {}
            case tree.Mode():
                return self._count(node.position, bound)
            case tree.Access() if alone:
                return self._product(node, [node], bound)
            case tree.Access():
                return dict.fromkeys(self._mentioned(node, bound), node), {}
            case tree.Leading():
                return ({tree.LEADING: node} if tree.LEADING not in bound else {}), {}
        return {}, {}

    def _mentioned(self, node: tree.Node, bound: frozenset[str]) -> list[str]:
        names = []
        for inner in tree.walk(node):
            if isinstance(inner, tree.Name) and inner.name in self.used - bound:
                names.append(inner.name)
            elif isinstance(inner, tree.Leading) and tree.LEADING not in bound:
                names.append(tree.LEADING)
        return list(dict.fromkeys(names))

    @staticmethod
    def _diagonal(access: tree.Access) -> set[str]:
        """The indices that stand bare in two places."""
        times = Counter(place.name for place in access.places if isinstance(place, tree.Name))
        return {name for name, count in times.items() if count > 1}

    def _product(
        self, node: tree.Node, factors: list[tree.Node], bound: frozenset[str]
    ) -> tuple[dict[str, tree.Node], dict[str, tree.Node]]:
        times: Counter[str] = Counter()
        free, inside = dict[str, tree.Node](), dict[str, tree.Node]()
        for factor in factors:
            names, deeper = self._count(factor, bound)
            twice = self._diagonal(factor) if isinstance(factor, tree.Access) else set()
            times.update({name: 2 if name in twice else 1 for name in names})
            free = {**names, **free}
            inside = {**deeper, **inside}
        for name in inside.keys() & free.keys():
            raise self._inside_and_out(name, inside[name], free[name])
        summed = [name for name in free if times[name] > 1]
        if summed:
            order = {name: i for i, name in enumerate(self._mentioned(node, bound))}
            self.summed[id(node)] = sorted(summed, key=order.__getitem__)
        return {n: at for n, at in free.items() if n not in summed}, {**inside, **dict.fromkeys(summed, node)}

    def _terms(self, node: tree.Sum, bound: frozenset[str]) -> tuple[dict[str, tree.Node], dict[str, tree.Node]]:
        free, inside = dict[str, tree.Node](), dict[str, tree.Node]()
        for term, _ in node.terms:
            names, deeper = self._count(term, bound, alone=True)
            free, inside = {**names, **free}, {**deeper, **inside}
        for name in inside.keys() & free.keys():
            raise self._inside_and_out(name, inside[name], free[name])
        return free, inside

    def _once(self, name: str, node: tree.Node) -> Exception:
        names = [*(index.name for index in self.tree.indices), name]
        left = ",".join(sorted(names, key=lambda letter: letter != tree.LEADING))
        outside = _text(self.text, self._around(node))
        node = self._inner(name, node)
        inside = _text(self.text, node)
        lines = [f"summed: sum[{name}]({outside})"]
        if inside != outside and not isinstance(node, tree.Name | tree.Leading):
            at = self._around(node).span.start
            before = outside[: node.span.start - at] if "\n" not in outside else ""
            replaced = (
                outside.replace(inside, f"sum[{name}]({inside})", 1)
                if not before
                else (f"{before}sum[{name}]({inside}){outside[len(before) + len(inside) :]}")
            )
            lines = [f"summed outside: sum[{name}]({outside})", f"summed inside:  {replaced}"]
        lines.append(f"kept:           {self.tree.name}[{left}] = …" if len(lines) > 1 else
                     f"kept:   {self.tree.name}[{left}] = …")  # fmt: skip
        fact = f"the index {name} occurs once in its product, so whether it is summed is not said; write one of"
        return pointed(self.text, fact, node.span, more=lines)

    def _inner(self, name: str, node: tree.Node) -> tree.Node:
        """What is summed if the sum is inside: the innermost function's argument, or power's base, with the index."""
        found, argument = self._around(node), False
        pending = [found]
        while pending:
            outer = pending.pop()
            for child in tree.children(outer):
                if child.span.start <= node.span.start and node.span.end <= child.span.end:
                    call = isinstance(outer, tree.Call)
                    if call or (isinstance(outer, tree.Power) and not argument):
                        found, argument = child, argument or call
                    pending = [child]
        return found if found is not self._around(node) else node

    def _around(self, node: tree.Node) -> tree.Node:
        """The term of the statement's body that holds ``node``."""
        body = self.tree.body
        if isinstance(body, tree.Sum):
            return next(t.node for t in body.terms if t.node.span.start <= node.span.start < t.node.span.end)
        return body

    def _ambiguous_power(self, node: tree.Power, access: tree.Access, name: str) -> Exception:
        inside = _text(self.text, access)
        rest = " ".join(self.text[access.span.end : node.span.end].split())
        return pointed(
            self.text,
            f"the index {name} is summed, and the power does not say whether before or after; write one of",
            access.span,
            more=[f"before: sum[{name}]({inside}){rest}", f"after:  sum[{name}]({inside}{rest})"],
        )

    def _inside_and_out(self, name: str, summed: tree.Node, standing: tree.Node) -> Exception:
        inner = _text(self.text, summed)
        return pointed(
            self.text,
            f"the index {name} is summed in one part and stands free in another",
            summed.span,
            standing.span,
            more=[
                f"if the first sum is its own, write sum[{name}]({inner}), and say what becomes of the other {name}",
                f"if one sum is meant, write it around both: sum[{name}](…)",
            ],
        )

    # -- the expression ----------------------------------------------------------------------------------------------

    def expr(self, node: tree.Node, env: Mapping[str, Index]) -> Expr:
        names = self.summed.get(id(node), ())
        if names:
            env = {**env, **{name: self.index(name, node.span) for name in names}}
        return total([env[name] for name in names], self._plain(node, env))

    def _plain(self, node: tree.Node, env: Mapping[str, Index]) -> Expr:
        match node:
            case tree.Number():
                return number(node.value)
            case tree.Name() if node.name in self.used:
                return atom(Value(bare(env[node.name])))
            case tree.Name():
                return atom(self.access(tree.Access(node.span, node.name, ()), env))
            case tree.Access():
                return atom(self.access(node, env))
            case tree.Size():
                return atom(Value(self.position(node, env)))
            case tree.Negative():
                return scale(self.expr(node.operand, env), -1)
            case tree.Sum():
                return add(*(scale(self.expr(t, env), -1) if minus else self.expr(t, env) for t, minus in node.terms))
            case tree.Product():
                return multiply(
                    *(power(self.expr(f, env), -1) if divides else self.expr(f, env) for f, divides in node.factors)
                )
            case tree.Power():
                base, exponent = self.expr(node.base, env), self.expr(node.exponent, env)
                if (known := exponent.constant) is not None:
                    return self._constant_power(node, base, known)
                return atom(Power(base, exponent))
            case tree.Call():
                return self._call(node, env)
            case tree.Reduce():
                return self._reduce(node, env)
            case tree.Bracket():
                return atom(self.condition(node.condition, env))
        raise pointed(self.text, "a number stands here, not a comparison or a boundary mode", node.span)

    def _constant_power(self, node: tree.Power, base: Expr, exponent: Fraction) -> Expr:
        if abs(exponent) > 1000:
            raise pointed(self.text, f"an exponent is at most 1000; this is {exponent}", node.exponent.span)
        number_ = base.terms[0].coefficient if len(base.terms) == 1 else Fraction(1)
        bits = max(number_.numerator.bit_length(), number_.denominator.bit_length())
        if bits * abs(exponent) > MAX_BITS:
            raise pointed(self.text, f"a number of more than {MAX_BITS} binary digits", node.span)
        if base.constant == 0 and exponent < 0:
            raise pointed(self.text, "0 to a negative power", node.span)
        return power(base, exponent)

    def _call(self, node: tree.Call, env: Mapping[str, Index]) -> Expr:
        function = node.function
        if function == "where":
            condition, yes, no = node.arguments
            assert isinstance(condition, tree.Compare)
            return atom(Where(self.condition(condition, env), self.expr(yes, env), self.expr(no, env)))
        arguments = tuple(self.expr(argument, env) for argument in node.arguments)
        zeros = [isinstance(part, tree.Number) and part.value == 0 for part in node.arguments]
        if function == "max" and any(zeros):
            function, arguments = "relu", (arguments[zeros.index(True) - 1],)
        return atom(Apply(function, arguments))

    def _reduce(self, node: tree.Reduce, env: Mapping[str, Index]) -> Expr:
        new = {name: self.index(name, node.span) for name in node.indices}
        body = self.expr(node.body, {**env, **new})
        if not new:
            return body  # ``...`` that stands for no axes
        if node.kind == "sum":
            return total(new.values(), body)
        if node.kind == "mean":
            sizes = (atom(Value(Affine(0, ((SizeOf(i.range, i.letter), 1),)))) for i in new.values())
            return multiply(*(power(size, -1) for size in sizes), total(new.values(), body))
        return atom(Reduce(node.kind, tuple(new.values()), body))

    def condition(self, node: tree.Compare, env: Mapping[str, Index]) -> Compare | Delta:
        self.comparing += 1
        sides = [node.left, node.right]
        modes = [side for side in sides if isinstance(side, tree.Mode)]
        if modes:
            mode = modes[0]
            other = next((side for side in sides if side is not mode), mode)
            if node.op != "==" or not (isinstance(other, tree.Name) and other.name in self.used):
                raise pointed(self.text, f"{mode.mode}() in a bracket stands beside == and one bare index", node.span,
                              more=[f"write [i == {_text(self.text, mode)}]"])  # fmt: skip
            result: Compare | Delta = Delta(bare(env[other.name]), self.place(mode, env))
        else:
            result = Compare(node.op, self.expr(node.left, env), self.expr(node.right, env))
        self.comparing -= 1
        return result

    def access(self, node: tree.Access, env: Mapping[str, Index], integer: bool = False) -> Read:
        places = tuple(self.place(place, env) for place in node.places)
        leading = bool(node.places) and isinstance(node.places[0], tree.Leading)
        if not places and node.name in env:
            raise pointed(self.text, f"{node.name} is an index here, and a tensor elsewhere; rename one", node.span)
        if node.name == self.tree.name:
            raise pointed(self.text, f"{node.name} is read before it is assigned", node.span)
        self.names.see(node.name, len(places), leading, node.span)
        if integer:
            if node.name in self.names.assigned:
                raise pointed(self.text, f"{node.name} is computed, and only an integer input can be an index",
                              node.span)  # fmt: skip
            self.names.integers.setdefault(node.name, node.span)
        elif not self.comparing:
            self.names.valued.add(node.name)
        for number_, (place, at) in enumerate(zip(places, node.places, strict=True)):
            self.axes.append(Axis(node.name, number_, place, at.span))
        self.reads[node.name] = None
        return Read(node.name, places)

    def place(self, node: tree.Node, env: Mapping[str, Index]) -> Place:
        if isinstance(node, tree.Leading):
            return Place(bare(env[tree.LEADING]))
        at = self.position(node.position if isinstance(node, tree.Mode) else node, env)
        if max(abs(at.constant), *(abs(coefficient) for _, coefficient in at.terms), 0) > FARTHEST:
            raise pointed(self.text, f"a number in an index position is at most {FARTHEST:,}", node.span)
        return Place(at, node.mode if isinstance(node, tree.Mode) else None)

    def position(self, node: tree.Node, env: Mapping[str, Index]) -> Affine:
        """An integer-affine position."""
        match node:
            case tree.Number() if node.value.denominator == 1:
                return Affine(int(node.value))
            case tree.Name():
                return bare(env[node.name])
            case tree.Size():
                known = env.get(node.index)
                index = known if known is not None else self.index(node.index, node.span)
                return Affine(0, ((SizeOf(index.range, index.letter), 1),))
            case tree.Access():
                return Affine(0, ((self.access(node, env, integer=True), 1),))
            case tree.Negative():
                return self.position(node.operand, env).scaled(-1)
            case tree.Sum():
                out = Affine(0)
                for part, minus in node.terms:
                    out = out.plus(self.position(part, env).scaled(-1 if minus else 1))
                return out
            case tree.Product() if not any(factor.divides for factor in node.factors):
                parts = [self.position(factor.node, env) for factor in node.factors]
                numbers = [part.constant for part in parts if not part.terms]
                if len(numbers) >= len(parts) - 1:
                    out = next((part for part in parts if part.terms), Affine(1))
                    for value in numbers:
                        out = out.scaled(value)
                    return out
        raise pointed(
            self.text,
            "an index position is an integer times an index, and sums of these",
            node.span,
            more=["for example X[2*p+3*r-1], X[size(n)-1-n], X[k[i], m] with an integer input k"],
        )
