"""Random formulas in index notation, and what they mean by direct transcription into NumPy, PyTorch and JAX.

A formula is built here as its own small tree, with the sizes of its indices chosen first. From the tree come the
text, the arrays and the transcription: every access as ``T[grids of integers]`` over the full grid of the indices in
scope, every reduction over trailing axes. Nothing is shared with the engine, neither its parser nor its ranges.

Kinks (relu, max, brackets that compare values …) stand on exact arguments: polynomials of small integers or quarters,
so that every order of summation sees the same ties. A kink on other arguments is kept away from its tie by ``margin``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

# Reading long formulas and their code raises the limit, and Hypothesis warns where a test does.
sys.setrecursionlimit(20_000)

LETTERS = ("i", "j", "k", "m", "n", "p", "r", "d", "t", "u", "row", "i2", "q", "v", "l", "h", "g", "o", "w", "y1")
FLOATS = ("X", "W", "b", "A", "s", "T2", "beta", "g_1", "Q", "x", "c", "V", "R", "B", "M1", "z", "L", "U", "O", "P")
INTEGERS = ("e", "K", "idx", "a1", "E", "e2")
OUTPUTS = ("Y", "Z", "S", "mu", "H")
COMPARE = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}
MODES = ("zero", "clamp", "wrap", "mirror", "reflect")
KINDS = ("leaf", "mul", "mul", "mul", "add", "add", "reduce", "reduce", "trace")
KINDS += ("call", "call", "pow", "neg", "where", "bracket", "two")
FORWARD_LIMIT = 1e4  # a general formula with a larger value somewhere is drawn again
EXACT_LIMIT = 2.0**38  # the same for a polynomial one, gradients included; leaves 15 bits for halves


# ----------------------------------------------------------------------------------------------------- the tree


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    exact: bool = True
    low: int = 0  # of an integer input: its values lie in low … high
    high: int = -1
    dtype: str = "float64"


@dataclass(frozen=True)
class Gather:
    tensor: Tensor
    places: tuple[Affine | Mode, ...]


@dataclass(frozen=True)
class Affine:
    """``Σ coefficient · (letter | size of a letter | gather) + constant``; ``style`` varies the text alone."""

    terms: tuple[tuple[int, str | tuple[str, str] | Gather], ...]
    constant: int = 0
    style: int = 0


@dataclass(frozen=True)
class Mode:
    mode: str
    position: Affine


@dataclass(frozen=True)
class Num:
    value: Fraction


@dataclass(frozen=True)
class Idx:
    letter: str


@dataclass(frozen=True)
class SizeOf:
    letter: str


@dataclass(frozen=True)
class Acc:
    tensor: Tensor
    places: tuple[Affine | Mode, ...]
    leading: bool = False
    bare: bool = False  # a scalar written without brackets


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple[Any, ...]
    exact: bool = True


@dataclass(frozen=True)
class Cond:
    op: str
    left: Any
    right: Any  # an expression, an Affine, or on one side of == a Mode
    exact: bool = True


@dataclass(frozen=True)
class Where:
    cond: Cond
    yes: Any
    no: Any


@dataclass(frozen=True)
class Iverson:
    cond: Cond


@dataclass(frozen=True)
class Red:
    kind: str
    letters: tuple[str, ...]
    body: Any
    exact: bool = True
    open: bool = False  # written without parentheses, where that is possible


@dataclass(frozen=True)
class Neg:
    operand: Any


@dataclass(frozen=True)
class Pow:
    base: Any
    exponent: Any


@dataclass(frozen=True)
class Mul:
    factors: tuple[tuple[Any, bool], ...]
    summed: tuple[str, ...] = ()  # Einstein
    juxtapose: int = 0


@dataclass(frozen=True)
class Add:
    terms: tuple[tuple[Any, bool], ...]


@dataclass(frozen=True)
class Statement:
    name: str
    left: tuple[str, ...]  # "..." first, if anywhere
    body: Any
    letters: dict[str, int]  # every letter's range
    leading: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return sum((self.leading if a == "..." else (self.letters[a],) for a in self.left), ())


def children(node):
    """The nodes directly below, positions included, whatever the kind of node."""
    for f in dataclasses.fields(node):
        yield from _nodes(getattr(node, f.name))


def _nodes(value):
    if isinstance(value, tuple):
        for item in value:
            yield from _nodes(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, Tensor):
        yield value


def walk(node):
    yield node
    for child in children(node):
        yield from walk(child)


# ------------------------------------------------------------------------------- Einstein sums: may one be implicit?


def occurs(node, k) -> bool:
    """Whether the letter stands free in it; ``size(k)`` does not count."""
    if isinstance(node, Idx):
        return node.letter == k
    if isinstance(node, Affine) and any(atom == k for _, atom in node.terms):
        return True
    if isinstance(node, Red) and k in node.letters:
        return False
    if isinstance(node, Mul) and k in node.summed:
        return False
    return any(occurs(child, k) for child in children(node))


def times(factor, k) -> int:
    """How often a factor counts: ``A[k,k]`` twice, any other at most once."""
    if isinstance(factor, Acc):
        bare = sum(isinstance(p, Affine) and p.terms == ((1, k),) and p.constant == 0 for p in factor.places)
        if bare >= 2:
            return 2
    return int(occurs(factor, k))


def alone(node, k) -> bool:
    """Whether no product inside would sum over k by itself: k counts at most once in each."""
    if isinstance(node, Add):
        return all(alone(term, k) for term, _ in node.terms)
    if isinstance(node, Neg):
        return alone(node.operand, k)
    if isinstance(node, Mul):
        return sum(times(f, k) for f, _ in node.factors) <= 1 and all(inside(f, k) for f, _ in node.factors)
    return times(node, k) <= 1 and inside(node, k)


def inside(factor, k) -> bool:
    """The same for what stands inside one factor."""
    if isinstance(factor, (Mul, Add, Neg)):
        return alone(factor, k)
    if isinstance(factor, Acc):
        return True
    if isinstance(factor, Red) and k in factor.letters:
        return True
    return all(
        inside(child, k) if isinstance(child, Cond) else alone(child, k)
        for child in children(factor)
        if not isinstance(child, (Affine, Mode))
    )


def closed(e):
    """A trace ``A[k,k]`` as ``sum[k](A[k,k])``, for where its text would sum more than it, or be an error."""
    if isinstance(e, Neg):
        return Neg(closed(e.operand))
    if isinstance(e, Mul) and len(e.factors) == 1:
        return Red("sum", e.summed, e.factors[0][0])
    return e


def may_be_implicit(product: Mul, k: str) -> bool:
    """Whether the scope rule sums exactly this product over k; a name that stands in brackets alone is no index."""
    if not any(occurs(p, k) for e in walk(product) if isinstance(e, (Acc, Gather)) for p in e.places):
        return False
    return sum(times(f, k) for f, _ in product.factors) >= 2 and all(inside(f, k) for f, _ in product.factors)


# ------------------------------------------------------------------------------------------------------- the text


def number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else repr(float(value))


class Text:
    """The text of a statement; ``rename`` maps its letters."""

    def __init__(self, rename, spaces: bool):
        self.rename, self.spaces = rename, spaces

    def letter(self, a: str) -> str:
        return self.rename.get(a, a)

    def affine(self, a: Affine) -> str:
        parts = []
        for c, atom in a.terms:
            if isinstance(atom, Gather):
                text = f"{atom.tensor.name}[{','.join(map(self.place, atom.places))}]"
            elif isinstance(atom, tuple):
                text = f"size({self.letter(atom[1])})"
            else:
                text = self.letter(atom)
            size = text if abs(c) == 1 else f"{abs(c)}*{text}" if a.style % 2 == 0 else f"{text}*{abs(c)}"
            parts.append(("-" if c < 0 else "+", size))
        if a.constant or not parts:
            parts.insert(0 if a.style >= 2 else len(parts), ("-" if a.constant < 0 else "+", str(abs(a.constant))))
        gap = " " if self.spaces else ""
        text = "".join(f"{gap}{sign}{gap}{part}" for sign, part in parts)
        sign, rest = text.strip()[0], text.strip()[1:].strip()
        return rest if sign == "+" else "-" + rest

    def place(self, p) -> str:
        return f"{p.mode}({self.affine(p.position)})" if isinstance(p, Mode) else self.affine(p)

    def condition(self, c: Cond) -> str:
        sides = (self.place(s) if isinstance(s, (Affine, Mode)) else self.sum(s) for s in (c.left, c.right))
        return f" {c.op} ".join(sides)

    def sum(self, e) -> str:
        """As it may stand between ``+`` and ``-``'s outermost: no parentheses needed around anything."""
        if not isinstance(e, Add):
            return self.product(e)
        text = ""
        for i, (term, negative) in enumerate(e.terms):
            part = f"({self.sum(term)})" if isinstance(term, Add) else self.product(term)
            if i:
                part = f"({part})" if part.startswith("-") else part
                text += (" - " if negative else " + ") + part
            else:
                text = "-" + (part if self.level(term) >= 3 else f"({part})") if negative else part
        return text

    def level(self, e) -> int:
        """How tightly its own text binds: 0 sum, 1 product, 2 unary minus, 3 power, 4 an atom."""
        if isinstance(e, Add):
            return 0
        if isinstance(e, Mul):
            return 1 if len(e.factors) > 1 else self.level(e.factors[0][0])
        if isinstance(e, Red):
            return 1 if self.is_open(e) else 4
        if isinstance(e, Num):
            return 4 if e.value >= 0 else 2
        return 2 if isinstance(e, Neg) else 3 if isinstance(e, Pow) else 4

    def is_open(self, e: Red) -> bool:
        return e.open and not isinstance(e.body, Add) and self.product(e.body)[0] not in "(-"

    def product(self, e) -> str:
        if not isinstance(e, Mul):
            return self.unary(e)
        text, divided, before = "", False, None
        for i, (factor, divides) in enumerate(e.factors):
            last = i == len(e.factors) - 1
            level = self.level(factor)
            if isinstance(factor, Red) and self.is_open(factor):
                part = self.unary(factor) if last and not divides else f"({self.unary(factor)})"
            elif level >= 3 or (level == 2 and i == 0):
                part = self.unary(factor)
            else:
                part = f"({self.sum(factor)})"
            if i == 0:
                text = part
            elif divides:
                text, divided = f"{text}/{part}" if not self.spaces else f"{text} / {part}", True
            elif divided or not (e.juxtapose >> i) & 1 or part[0].isdigit() or part[0] == "-":
                text += f" * {part}" if self.spaces else f"*{part}"
            elif part[0] in "([" and (re.fullmatch(r"-?\w+", before) or before.endswith("]")):
                text += f"*{part}"  # a name before a bracket is a call or an access
            else:
                text += f" {part}"
            before = part
        return text

    def unary(self, e) -> str:
        if isinstance(e, Num) and e.value < 0:
            return "-" + number(-e.value)
        if isinstance(e, Neg):
            return "-" + (self.power(e.operand) if self.level(e.operand) >= 3 else f"({self.sum(e.operand)})")
        return self.power(e)

    def power(self, e) -> str:
        if not isinstance(e, Pow):
            return self.atom(e)
        base = self.atom(e.base) if self.level(e.base) == 4 else f"({self.sum(e.base)})"
        exponent = self.unary(e.exponent) if isinstance(e.exponent, Num) or self.level(e.exponent) == 4 else None
        return f"{base}**{exponent or f'({self.sum(e.exponent)})'}"

    def atom(self, e) -> str:
        if isinstance(e, Mul) and len(e.factors) == 1:
            return self.unary(e.factors[0][0])
        if isinstance(e, Num):
            return number(e.value)
        if isinstance(e, Idx):
            return self.letter(e.letter)
        if isinstance(e, SizeOf):
            return f"size({self.letter(e.letter)})"
        if isinstance(e, Acc):
            if e.bare:
                return e.tensor.name
            comma = ", " if self.spaces else ","
            return f"{e.tensor.name}[{comma.join(['...'] * e.leading + [self.place(p) for p in e.places])}]"
        if isinstance(e, Call):
            return f"{e.function}({', '.join(map(self.sum, e.arguments))})"
        if isinstance(e, Where):
            return f"where({self.condition(e.cond)}, {self.sum(e.yes)}, {self.sum(e.no)})"
        if isinstance(e, Iverson):
            return f"[{self.condition(e.cond)}]"
        assert isinstance(e, Red), e
        head = f"{e.kind}[{','.join(map(self.letter, e.letters))}]"
        return f"{head} {self.product(e.body)}" if self.is_open(e) else f"{head}({self.sum(e.body)})"

    def statement(self, s: Statement) -> str:
        left = f"[{','.join(map(self.letter, s.left))}]" if s.left else ""
        return f"{s.name}{left} = {self.sum(s.body)}"


# --------------------------------------------------------------------------------------------------- the meaning


def fold(mode: str, at: np.ndarray, size: int) -> np.ndarray:
    """Where a boundary mode reads, for positions that may lie outside 0 … size - 1; for ``zero`` anywhere inside."""
    if mode in ("zero", "clamp"):
        return np.clip(at, 0, size - 1)
    if mode == "wrap":
        return at % size
    if mode == "mirror":
        at = at % (2 * size)
        return np.where(at < size, at, 2 * size - 1 - at)
    at = at % max(2 * (size - 1), 1)
    return np.where(at < size, at, 2 * (size - 1) - at)


class Transcription:
    """A formula's statements by advanced indexing in one array library; ``trace`` (NumPy alone) notes each value.

    Every value has one axis per index in scope, of size 1 where it does not depend on it; what binds an index
    appends an axis and removes it.
    """

    def __init__(self, formula: Formula):
        self.formula = formula

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The value of every statement, given floating tensors of this library; integer ones are NumPy's."""
        self.values = dict(arrays)
        for s in self.formula.statements:
            self.sizes, self.leading = s.letters, s.leading
            axes, shape = {}, ()
            for a in s.left:
                axes[a] = len(shape)
                shape += self.extent(a)
            value = self.expr(s.body, axes, len(shape))
            self.values[s.name] = self.broadcast(value, shape)
        return {s.name: self.values[s.name] for s in self.formula.statements}

    def extent(self, a: str) -> tuple[int, ...]:
        return self.leading if a == "..." else (self.sizes[a],)

    def bind(self, letters, axes, rank):
        axes, shape = dict(axes), ()
        for a in letters:
            axes[a] = rank + len(shape)
            shape += self.extent(a)
        return axes, shape

    def grid(self, at: int, size: int, rank: int) -> np.ndarray:
        return np.arange(size).reshape((1,) * at + (size,) + (1,) * (rank - at - 1))

    def where_it_reads(self, place, size: int, axes, rank):
        """Integers over the grid, and where they are inside (None: everywhere)."""
        if isinstance(place, Mode):
            at = self.affine(place.position, axes, rank)
            mask = (at >= 0) & (at < size) if place.mode == "zero" else None
            return fold(place.mode, at, size), mask
        at = self.affine(place, axes, rank)
        assert at.min(initial=0) >= 0, "the generator reads out of bounds"
        assert at.max(initial=-1) < size, "the generator reads out of bounds"
        return at, None

    def affine(self, a: Affine, axes, rank) -> np.ndarray:
        total = np.full((1,) * rank, a.constant)
        for c, atom in a.terms:
            if isinstance(atom, Gather):
                value = self.read(np.asarray(self.values[atom.tensor.name]).astype(np.int64), atom.places, axes, rank)
            elif isinstance(atom, tuple):
                value = self.sizes[atom[1]]
            else:
                value = self.grid(axes[atom], self.sizes[atom], rank)
            total = total + c * value
        return total

    def read(self, T, places, axes, rank):
        """An integer input at its places."""
        where = [self.where_it_reads(p, n, axes, rank) for p, n in zip(places, T.shape, strict=True)]
        value = T[tuple(at for at, _ in where)] if where else np.reshape(T, (1,) * rank)
        for _, mask in where:
            value = value if mask is None else np.where(mask, value, 0)
        return value

    def access(self, e: Acc, axes, rank):
        T = self.values[e.tensor.name]
        if isinstance(T, np.ndarray) and T.dtype.kind in "iu":
            return self.constant(self.read(T.astype(np.int64), e.places, axes, rank))
        n = len(self.leading) if e.leading else 0
        index = [self.grid(axes["..."] + a, self.leading[a], rank) for a in range(n)]
        mask = np.ones((1,) * rank, bool)
        for place, size in zip(e.places, tuple(T.shape)[n:], strict=True):
            at, inside = self.where_it_reads(place, size, axes, rank)
            index.append(at)
            mask = mask if inside is None else mask & inside
        value = self.take(T, tuple(index)) if index else self.reshape(T, (1,) * rank)
        return value if mask.all() else self.select(self.condition_array(mask), value, self.constant(0.0))

    def cond(self, c: Cond, axes, rank):
        def side(e, other):
            if isinstance(e, Mode):
                (_, letter), *_ = other.terms
                at = self.affine(e.position, axes, rank)
                return self.constant(at if e.mode == "zero" else fold(e.mode, at, self.sizes[letter]))
            return self.constant(self.affine(e, axes, rank)) if isinstance(e, Affine) else self.expr(e, axes, rank)

        left, right = side(c.left, c.right), side(c.right, c.left)
        self.near(c.exact, lambda: left - right)
        return self.compare(c.op, left, right)

    def expr(self, e, axes, rank):
        value = getattr(self, "on_" + type(e).__name__)(e, axes, rank)
        self.note(value)
        return value

    def on_Num(self, e, axes, rank):
        return self.constant(np.full((1,) * rank, float(e.value)))

    def on_Idx(self, e, axes, rank):
        return self.constant(self.grid(axes[e.letter], self.sizes[e.letter], rank))

    def on_SizeOf(self, e, axes, rank):
        return self.constant(np.full((1,) * rank, float(self.sizes[e.letter])))

    def on_Acc(self, e, axes, rank):
        return self.access(e, axes, rank)

    def on_Neg(self, e, axes, rank):
        return -self.expr(e.operand, axes, rank)

    def on_Pow(self, e, axes, rank):
        base = self.expr(e.base, axes, rank)
        if isinstance(e.exponent, Num):
            v = e.exponent.value
            return base ** (v.numerator if v.denominator == 1 else float(v))
        return base ** self.expr(e.exponent, axes, rank)

    def on_Add(self, e, axes, rank):
        total = None
        for term, negative in e.terms:
            value = self.expr(term, axes, rank)
            value = -value if negative else value
            total = value if total is None else total + value
        return total

    def on_Mul(self, e, axes, rank):
        axes, shape = self.bind(e.summed, axes, rank)
        total = None
        for factor, divides in e.factors:
            value = self.expr(factor, axes, rank + len(shape))
            total = value if total is None else total / value if divides else total * value
        return self.close("sum", total, shape, rank) if e.summed else total

    def on_Red(self, e, axes, rank):
        axes, shape = self.bind(e.letters, axes, rank)
        body = self.expr(e.body, axes, rank + len(shape))
        if e.kind in ("max", "min") and not e.exact:
            self.near_best(e.kind, self.broadcast(body, tuple(body.shape)[:rank] + shape), rank)
        return self.close(e.kind, body, shape, rank)

    def close(self, kind, body, shape, rank):
        body = self.broadcast(body, tuple(body.shape)[:rank] + shape)
        return self.reduce(kind, body, tuple(range(rank, rank + len(shape)))) if shape else body

    def on_Call(self, e, axes, rank):
        values = [self.expr(a, axes, rank) for a in e.arguments]
        if len(values) == 1:
            if e.function in ("relu", "abs", "sign"):
                self.near(e.exact, lambda: values[0])
            return self.function(e.function, values[0])
        self.near(e.exact, lambda: values[0] - values[1])
        for this, other in ((0, 1), (1, 0)):  # max(e, 0) is relu(e)
            if e.function == "max" and e.arguments[other] == Num(Fraction(0)):
                return self.function("relu", values[this])
        return self.larger(*values) if e.function == "max" else -self.larger(-values[0], -values[1])

    def on_Where(self, e, axes, rank):
        mask = self.cond(e.cond, axes, rank)
        return self.select(mask, self.expr(e.yes, axes, rank), self.expr(e.no, axes, rank))

    def on_Iverson(self, e, axes, rank):
        return self.as_number(self.cond(e.cond, axes, rank))

    def near(self, exact, difference):
        pass

    def near_best(self, kind, body, rank):
        pass

    def note(self, value):
        pass


class InNumpy(Transcription):
    """The plain values; keeps the largest magnitude met and how near inexact kinks come to their ties."""

    def __init__(self, formula):
        super().__init__(formula)
        self.largest, self.margin = 0.0, math.inf

    def near(self, exact, difference):
        if not exact:
            self.margin = min(self.margin, float(np.abs(difference()).min(initial=math.inf)))

    def near_best(self, kind, body, rank):
        flat = np.sort(body.reshape(*body.shape[:rank], -1) * (1 if kind == "max" else -1), axis=-1)
        if flat.shape[-1] > 1:
            self.margin = min(self.margin, float((flat[..., -1] - flat[..., -2]).min()))

    def note(self, value):
        finite = np.abs(value).max(initial=0) if np.isfinite(value).all() else math.inf
        self.largest = max(self.largest, float(finite))

    constant = staticmethod(lambda value: np.asarray(value, np.float64))
    condition_array = staticmethod(np.asarray)
    take = staticmethod(lambda T, index: T[index])
    reshape = staticmethod(np.reshape)
    broadcast = staticmethod(np.broadcast_to)
    select = staticmethod(np.where)
    larger = staticmethod(np.maximum)
    compare = staticmethod(lambda op, a, b: COMPARE[op](a, b))
    as_number = staticmethod(lambda mask: mask.astype(np.float64))

    def reduce(self, kind, body, axes):
        return getattr(np, kind)(body, axis=axes)

    def function(self, name, x):
        if name == "erf":
            return np.vectorize(math.erf)(x)
        if name == "gelu":
            return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
        if name == "sigmoid":
            return 1 / (1 + np.exp(-x))
        return np.maximum(x, 0) if name == "relu" else getattr(np, name)(x)


class InTorch(Transcription):
    def constant(self, value):
        import torch

        return torch.from_numpy(np.ascontiguousarray(value, np.float64).reshape(np.shape(value)))

    def condition_array(self, mask):
        import torch

        return torch.from_numpy(np.asarray(mask))

    def take(self, T, index):
        import torch

        return T[tuple(torch.from_numpy(np.ascontiguousarray(i).reshape(np.shape(i))) for i in index)]

    def reshape(self, T, shape):
        return T.reshape(shape)

    def broadcast(self, x, shape):
        return x.broadcast_to(shape)

    def select(self, mask, a, b):
        import torch

        return torch.where(mask, a, b)

    def larger(self, a, b):
        import torch

        return torch.maximum(*torch.broadcast_tensors(a, b))

    def compare(self, op, a, b):
        a, b = a.detach(), b.detach()
        return {"==": a == b, "!=": a != b, "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[op]

    def as_number(self, mask):
        return mask.double()

    def reduce(self, kind, body, axes):
        if kind == "prod":
            for axis in reversed(axes):
                body = body.prod(dim=axis)
            return body
        return getattr(body, {"max": "amax", "min": "amin"}.get(kind, kind))(dim=axes)

    def function(self, name, x):
        import torch

        if name == "gelu":
            return torch.nn.functional.gelu(x)
        return getattr(torch, name)(x)

    def gradients(self, arrays, dY):
        """Y and the gradient of every floating input."""
        import torch

        leaves = {n: torch.tensor(a, requires_grad=True) for n, a in arrays.items() if a.dtype.kind == "f"}
        Y = self.run({**arrays, **leaves})[self.formula.output]
        if not Y.requires_grad:
            return Y.numpy(), {n: np.zeros_like(arrays[n]) for n in leaves}
        found = torch.autograd.grad(Y, list(leaves.values()), torch.tensor(dY), allow_unused=True)
        pairs = zip(leaves, found, strict=True)
        return Y.detach().numpy(), {n: np.zeros_like(arrays[n]) if g is None else g.numpy() for n, g in pairs}


class InJax(Transcription):
    def constant(self, value):
        import jax.numpy as jnp

        return jnp.asarray(np.asarray(value, np.float64))

    def condition_array(self, mask):
        return mask

    def take(self, T, index):
        return T[index]

    def reshape(self, T, shape):
        return T.reshape(shape)

    def broadcast(self, x, shape):
        import jax.numpy as jnp

        return jnp.broadcast_to(x, shape)

    def select(self, mask, a, b):
        import jax.numpy as jnp

        return jnp.where(mask, a, b)

    def larger(self, a, b):
        import jax.numpy as jnp

        return jnp.maximum(a, b)

    def compare(self, op, a, b):
        return {"==": a == b, "!=": a != b, "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[op]

    def as_number(self, mask):
        import jax.numpy as jnp

        return mask.astype(jnp.float64)

    def reduce(self, kind, body, axes):
        import jax.numpy as jnp

        return getattr(jnp, kind)(body, axis=axes)

    def function(self, name, x):
        import jax
        import jax.numpy as jnp

        if name == "gelu":
            return jax.nn.gelu(x, approximate=False)
        if name == "abs":  # JAX has abs'(0) = 1
            return x * jax.lax.stop_gradient(jnp.sign(x))
        if name in ("relu", "sigmoid"):
            return getattr(jax.nn, name)(x)
        return jax.scipy.special.erf(x) if name == "erf" else getattr(jnp, name)(x)

    def gradients(self, arrays, dY):
        """Y and the gradient of every floating input, compiled as one program (faster than op by op here)."""
        import jax

        integers = {n: a for n, a in arrays.items() if a.dtype.kind != "f"}

        def both(leaves, dY):
            Y, back = jax.vjp(lambda leaves: self.run({**integers, **leaves})[self.formula.output], leaves)
            return Y, back(dY)[0]

        with jax.enable_x64(True):
            Y, found = jax.jit(both)({n: a for n, a in arrays.items() if a.dtype.kind == "f"}, dY)
            return np.asarray(Y), {n: np.asarray(g) for n, g in found.items()}


class Magnitudes(InTorch):
    """An upper bound of every value and gradient of an exact formula: no cancellation, nothing masked."""

    def on_Num(self, e, axes, rank):
        return abs(super().on_Num(e, axes, rank))

    def on_Neg(self, e, axes, rank):
        return self.expr(e.operand, axes, rank)

    def on_Add(self, e, axes, rank):
        return super().on_Add(Add(tuple((term, False) for term, _ in e.terms)), axes, rank)

    def on_Call(self, e, axes, rank):
        values = [self.expr(a, axes, rank) for a in e.arguments]
        if e.function == "sign":
            return self.constant(np.ones((1,) * rank))
        return sum(values[1:], values[0])

    def on_Where(self, e, axes, rank):
        return self.expr(e.yes, axes, rank) + self.expr(e.no, axes, rank)

    def on_Iverson(self, e, axes, rank):
        return self.constant(np.ones((1,) * rank))

    def reduce(self, kind, body, axes):
        return super().reduce("prod" if kind == "prod" else "sum", body, axes)


# ------------------------------------------------------------------------------------------------ the formula


@dataclass
class Formula:
    """A random formula with everything needed to run it."""

    statements: list[Statement]
    text: str
    sizes: dict[str, int]  # those that must be given (and some that need not be)
    arrays: dict[str, np.ndarray]
    dY: np.ndarray
    polynomial: bool
    largest: float = 1.0

    @property
    def output(self) -> str:
        return self.statements[-1].name

    @property
    def floats(self) -> list[str]:
        return [n for n, a in self.arrays.items() if a.dtype.kind == "f"]

    @property
    def integers(self) -> list[str]:
        return [n for n, a in self.arrays.items() if a.dtype.kind != "f"]

    @property
    def positions(self) -> set[str]:
        """The integer inputs that stand in index positions or under a mode, not only in brackets."""
        nodes = [e for s in self.statements for e in walk(s.body)]
        within = [p for e in nodes if isinstance(e, (Acc, Gather)) for p in e.places]
        within += [e for e in nodes if isinstance(e, Mode)]
        return {e.tensor.name for p in within for e in walk(p) if isinstance(e, Gather)}

    def _repr_pretty_(self, printer, cycle):
        printer.text(repr(self))

    def __repr__(self) -> str:
        def array(a):
            return f"np.array({a.tolist()}, {a.dtype.name!r})" + ("" if a.size else f".reshape({a.shape})")

        arrays = ", ".join(f"{n}={array(a)}" for n, a in self.arrays.items())
        return f"\n  text = {self.text!r}\n  sizes = {self.sizes}\n  arrays = dict({arrays})\n  dY = {array(self.dY)}\n"


def accesses(node):
    """(place, axis size) of every floating access and every gather below."""
    for e in walk(node):
        if isinstance(e, (Acc, Gather)) and e.places:
            yield from zip(e.places, e.tensor.shape[len(e.tensor.shape) - len(e.places) :], strict=True)


def unsettled(s: Statement, given: set[str]) -> set[str]:
    """The letters whose range does not follow beyond doubt from the shapes, when those of ``given`` are known."""
    plain = [(p, n) for p, n in accesses(s.body) if isinstance(p, Affine)]
    gathers = [p for p, _ in plain if any(isinstance(a, Gather) for _, a in p.terms)]
    plain = [(p, n) for p, n in plain if p not in gathers]
    found, doubtful = set(given), set()
    for a in s.letters.keys() - given:
        bare = {n for p, n in plain if p.terms == ((1, a),) and p.constant == 0}
        if bare:
            (found if bare == {s.letters[a]} else doubtful).add(a)
    beside = {a if isinstance(a, str) else a[1] for p in gathers for _, a in p.terms if not isinstance(a, Gather)}
    doubtful |= beside - found  # the range depends on the values of the integer input
    while not doubtful:
        wanted: dict[str, set[int]] = {}
        for p, n in plain:
            unknown = {a if isinstance(a, str) else a[1] for _, a in p.terms} - found
            if len(unknown) != 1:
                continue
            (a,) = unknown
            if any(b == a for _, b in p.terms):
                wanted.setdefault(a, set()).add(largest(p, n, a, s.letters))
        if not wanted:
            return s.letters.keys() - found
        for a, ranges in wanted.items():
            (found if ranges == {s.letters[a]} else doubtful).add(a)
    return doubtful


def settle(parts: list[Statement], extra) -> tuple[list[dict[str, str]], dict[str, int]]:
    """The sizes to give, with the letters renamed that would otherwise be given two sizes."""
    given = [{a for a in s.letters if extra()} for s in parts]
    before = None
    while before != given:
        before = [set(g) for g in given]
        for s, g in zip(parts, given, strict=True):
            g |= unsettled(s, g)
            for t, h in zip(parts, given, strict=True):
                h |= {a for a in g if t.letters.get(a) == s.letters[a]}
    taken = {a for s in parts for a in s.letters}
    renamed, sizes = [], {}
    for s, g in zip(parts, given, strict=True):
        rename = {}
        for a in sorted(g):
            if any(t.letters.get(a, s.letters[a]) != s.letters[a] for t in parts):
                rename[a] = next(f"{a}{i}" for i in itertools.count(1) if f"{a}{i}" not in taken)
                taken.add(rename[a])
            sizes[rename.get(a, a)] = s.letters[a]
        renamed.append(rename)
    return renamed, sizes


def largest(p: Affine, size: int, letter: str, letters: dict[str, int]) -> int:
    """The largest range of the letter with every read inside; 0 without."""

    def inside(n: int) -> bool:
        sizes = {**letters, letter: n}
        ends = [(c * sizes[a[1]],) * 2 if isinstance(a, tuple) else (0, c * (sizes[a] - 1)) for c, a in p.terms]
        return 0 <= p.constant + sum(map(min, ends)) <= p.constant + sum(map(max, ends)) < size

    return max((n for n in range(1, 3 * size + 3) if inside(n)), default=0)


class Builder:
    """Builds one formula from bytes, one a choice; zero, and what follows the last, is the simplest choice.

    One string of bytes instead of a draw per choice: Hypothesis repeats parts of what it drew, which here made two
    of three formulas nearly the same. ``exact`` in the methods: only what is exact on the exact tensors.
    """

    def __init__(self, choices: bytes):
        self.choices = iter(choices)
        self.tensors: list[Tensor] = []  # floating inputs and earlier statements
        self.integers: list[Tensor] = []
        self.read: set[str] = set()
        self.leading = self.new_leading()
        self.names = itertools.chain(FLOATS, (f"F{i}" for i in itertools.count()))
        self.integer_names = itertools.chain(INTEGERS, (f"I{i}" for i in itertools.count()))

    # choosing

    def pick(self, options):
        return options[next(self.choices, 0) % len(options)] if len(options) > 1 else options[0]

    def chance(self, percent: int) -> bool:
        return next(self.choices, 0) * 100 >= 256 * (100 - percent)

    # letters

    def new_letter(self, scope, percent_reused=30) -> str:
        """A letter that is not in scope: a new one, or one used elsewhere in the statement."""
        reusable = [a for a in self.letters if a not in scope]
        if reusable and self.chance(percent_reused):
            return self.pick(reusable)
        fresh = [a for a in LETTERS if a not in self.letters]
        a = fresh[0] if not self.chance(20) else self.pick(fresh)
        room = 130 // max(1, math.prod(self.extent(b) for b in scope))
        self.letters[a] = self.pick([n for n in (2, 3, 1, 2, 4, 3) if n <= room] or [1])
        return a

    def new_leading(self) -> tuple[int, ...]:
        return tuple(self.pick([2, 1, 3]) for _ in range(self.pick([1, 2, 0])))

    def extent(self, a) -> int:
        return math.prod(self.leading) if a == "..." else self.letters[a]

    def room(self, scope) -> bool:
        return math.prod(self.extent(b) for b in scope) <= 40 and len(self.letters) < 7

    # positions

    def reach(self, terms) -> tuple[int, int]:
        low = high = 0
        for c, atom in terms:
            if isinstance(atom, Gather):
                a, b = atom.tensor.low, atom.tensor.high
                if any(isinstance(p, Mode) and p.mode == "zero" for p in atom.places):
                    a, b = min(a, 0), max(b, 0)
            elif isinstance(atom, tuple):
                a = b = self.letters[atom[1]]
            else:
                a, b = 0, self.letters[atom] - 1
            low, high = low + min(c * a, c * b), high + max(c * a, c * b)
        return low, high

    def terms(self, scope, must, depth=1):
        """Terms of an affine position that contain the letters of ``must``."""
        letters = list(must)
        visible = [a for a in scope if a != "..."]
        if visible and (not letters or self.chance(40)):
            extra = self.pick(visible)
            letters += [extra] if extra not in letters else []
        terms: list[Any] = []
        for a in letters:
            if depth and self.chance(10):
                terms.append((self.pick([1, 1, -1, 2]), self.gather(scope, [a])))
            else:
                terms.append((self.pick([1, 1, 1, 2, -1, 3, -2]), a))
        if depth and not must and self.chance(25):
            terms.append((1, self.gather(scope, [])))
        if visible and self.chance(8):
            terms.append((1, ("size", self.pick(visible))))
        return tuple(terms)

    def gather(self, scope, must) -> Gather:
        if self.integers and self.chance(40):
            tensor = self.pick(self.integers)
            if len(tensor.shape) or not must:
                return Gather(tensor, self.places(scope, must, tensor.shape, depth=0))
        visible = [a for a in scope if a != "..."]
        count = max(len(must), 1 if visible and self.chance(80) else 0)
        places, shape = self.new_places(scope, must, count, depth=0)
        low, high = self.pick([(0, 1), (0, 2), (1, 2), (-1, 1), (0, 0), (0, 3)])
        dtype = self.pick(["int64", "int32", "int8", "uint8" if low >= 0 else "int16"])
        tensor = Tensor(next(self.integer_names), shape, low=low, high=high, dtype=dtype)
        self.integers.append(tensor)
        return Gather(tensor, places)

    def style(self) -> int:
        return self.pick(range(4))

    def place(self, scope, must, size=None, depth=1):
        """A position that contains the letters of ``must``, inside an axis of ``size`` or of a size yet to choose."""
        kind = self.pick(["bare"] * 6 + ["affine", "affine", "mode", "mode", "flip", "gather"])
        if depth == 0 and kind in ("gather", "mode"):
            kind = "bare"
        if kind in ("bare", "flip") and len(must) == 1:
            n = self.letters[must[0]]
            if size is None or n == size or (n < size and self.chance(30)):
                if kind == "bare":
                    return Affine(((1, must[0]),))
                return Affine(((1, ("size", must[0])), (-1, must[0])), -1)
        if kind == "bare" and not must:
            fitting = [a for a in scope if a != "..." and (size is None or self.letters[a] == size)]
            if fitting:
                return Affine(((1, self.pick(fitting)),))
        if kind == "gather":
            terms = ((1, self.gather(scope, must)),)
        elif kind != "mode" and not must and self.chance(30):
            return Affine((), self.pick(range(size or 3)))
        else:
            terms = self.terms(scope, must, depth)
        low, high = self.reach(terms)
        if kind != "mode":
            start = self.pick([0, 0, 0, 1])
            if size is None or high - low + start < size:
                return Affine(terms, start - low, self.style())
            if high - low < size:
                return Affine(terms, -low, self.style())
            if depth == 0:  # an integer input: constant positions always fit
                return Affine(((1, must[0]),)) if must and self.letters[must[0]] <= size else self.tame(terms, size)
        shift = self.pick([0, -1, 1, -2, 2])
        modes = [m for m in MODES if not (m == "reflect" and size == 1)]
        return Mode(self.pick(modes), Affine(terms, shift, self.style()))

    def tame(self, terms, size):
        return Mode(self.pick(["clamp", "wrap"]), Affine(terms, 0))

    def places(self, scope, must, shape, depth=1):
        """Positions for the axes of an existing tensor."""
        share = [[] for _ in shape]
        for a in must:
            fitting = [i for i, n in enumerate(shape) if n == self.letters[a] and not share[i]]
            share[self.pick(fitting) if fitting else self.pick(range(len(shape)))].append(a)
        return tuple(self.place(scope, m, n, depth) for m, n in zip(share, shape, strict=True))

    def new_places(self, scope, must, count, depth=1):
        """Positions and an axis for each that contains their reads, sometimes with a tail."""
        share: list[list[str]] = [[] for _ in range(count)]
        order = list(must)
        if len(order) > 1 and self.chance(40):
            order = order[::-1]
        for i, a in enumerate(order):
            share[i % count].append(a)
        places, shape = [], []
        for m in share:
            place = self.place(scope, m, depth=depth)
            if isinstance(place, Mode):
                size = self.pick([2, 3, 4] + [1] * (place.mode != "reflect"))
            else:
                size = self.reach(place.terms)[1] + place.constant + 1
                size += self.pick([0] * 8 + [1, 2])
            places.append(place)
            shape.append(size)
        return tuple(places), tuple(shape)

    def access(self, scope, must, exact):
        """A tensor at positions that contain the letters of ``must``: one used before, or a new one."""
        lead = "..." in must
        must = [a for a in must if a != "..."]
        usable = [t for t in self.tensors if t.exact or not exact]
        usable = [t for t in usable if len(t.shape) - len(self.leading) * lead >= min(len(must), 1)]
        if lead:
            n = len(self.leading)
            usable = [t for t in usable if t.shape[:n] == self.leading]
        unread = [t for t in usable if t.name in OUTPUTS and t.name not in self.read]
        if usable and self.chance(75 if unread else 40):
            t = self.pick(unread or usable)
            self.read.add(t.name)
            n = len(self.leading) if lead else 0
            return Acc(t, self.places(scope, must, t.shape[n:]), lead, not t.shape and not lead and self.chance(60))
        lead = lead or ("..." in scope and self.chance(30))
        count = self.pick([1, 2, 2, 3, 0]) if not must else max(len(must), 1) + self.pick([0, 0, 0, 1])
        if len(must) > 3:
            count = 3
        if not [a for a in scope if a != "..."] and not must:
            count = self.pick([0, 0, 1])
        places, shape = self.new_places(scope, must, count)
        if len(must) == 1 and count == 1 and self.chance(10) and isinstance(places[0], Affine):
            places, shape = places * 2, shape * 2  # a diagonal
            if self.chance(30):
                places, shape = (*places, places[0]), (*shape, shape[0])
        exact = exact or self.chance(50)
        name = next(self.names)
        t = Tensor(name, (self.leading if lead else ()) + shape, exact=exact)
        self.tensors.append(t)
        return Acc(t, places, lead, not shape and not lead and self.chance(60))

    # conditions

    def condition(self, scope, must, exact) -> Cond:
        visible = [a for a in scope if a != "..."]
        must = [a for a in must if a != "..."]
        if must or (visible and self.chance(50)):
            a = must[0] if must else self.pick(visible)
            op = self.pick(["==", "==", "<", ">=", "!=", ">", "<="])
            other = Affine(self.terms(scope, must[1:]), self.pick([0, 0, 1, -1, 2]), self.style())
            bare = Affine(((1, a),))
            if op == "==" and other.terms and self.chance(35):
                modes = [m for m in MODES if m != "reflect" or self.letters[a] > 1]
                other = Mode(self.pick(modes), other)
            return Cond(op, other, bare) if self.chance(20) else Cond(op, bare, other)
        inexact = not exact and self.chance(25)
        left = self.expr(scope, 1 if self.chance(30) else 0, must, not inexact)
        op = self.pick([">", ">=", "<", "<=", "==", "!="])
        if self.chance(60):
            return Cond(op, left, Num(Fraction(self.pick([0, 0, 1]))), not inexact)
        return Cond(op, left, self.expr(scope, 0, (), not inexact), not inexact)

    # expressions

    def leaf(self, scope, must, exact):
        if must or self.chance(75):
            return self.access(scope, must, exact)
        visible = [a for a in scope if a != "..."]
        kind = self.pick(["number", "number", "index", "size"])
        if kind == "index" and visible:
            return Idx(self.pick(visible))
        if kind == "size" and self.letters:
            return SizeOf(self.pick(list(self.letters)))
        values = [Fraction(v) for v in (2, 1, 3, 0)] + [Fraction(1, 2)]
        return Num(self.pick(values))

    def expr(self, scope, depth, must=(), exact=False):
        must = tuple(must)
        self.budget -= 1
        if depth <= 0 or self.budget <= 0:
            return self.leaf(scope, must, exact)
        kind = self.pick(KINDS)
        return getattr(self, "make_" + kind)(scope, depth - 1, must, exact)

    def make_leaf(self, scope, depth, must, exact):
        return self.leaf(scope, must, exact)

    def make_trace(self, scope, depth, must, exact):
        if not self.room(scope):
            return self.leaf(scope, must, exact)
        k = self.new_letter(scope)
        n = self.letters[k]
        order = self.pick([2, 2, 3])
        usable = [t for t in self.tensors if t.shape == (n,) * order and (t.exact or not exact)]
        if usable and self.chance(50) and not must:
            t, places = self.pick(usable), ()
        else:
            extra, shape = self.new_places(scope, [a for a in must if a != "..."], 1) if must else ((), ())
            lead = self.leading if "..." in must else ()
            t = Tensor(next(self.names), lead + (n,) * order + shape, exact=exact or self.chance(50))
            self.tensors.append(t)
            places = extra
        bare = Affine(((1, k),))
        return Mul(((Acc(t, (bare,) * order + tuple(places), "..." in must), False),), (k,))

    def make_mul(self, scope, depth, must, exact):
        summed: list[str] = []
        while self.room((*scope, *summed)) and len(summed) < 2 and self.chance(45 - 25 * len(summed)):
            summed.append(self.new_letter((*scope, *summed)))
        inner = (*scope, *summed)
        count = self.pick([2, 2, 3])
        shares: list[list[str]] = [[] for _ in range(count)]
        for a in must:
            shares[self.pick(range(count))].append(a)
        for a in summed:
            missing = self.pick([None] * 2 + list(range(count))) if count > 2 else None
            for i in range(count):
                if i != missing:
                    shares[i].append(a)
        factors = []
        for i, share in enumerate(shares):
            kind = self.pick(["leaf"] * 5 + ["expr"] * 3 + ["bracket", "index"])
            visible = [a for a in share if a != "..."]
            if kind == "bracket" and (visible or not share) and len(share) == len(visible):
                factor = Iverson(self.condition(inner, visible, exact))
            elif kind == "index" and len(share) == 1 and visible:
                factor = Idx(visible[0])
            elif kind == "expr":
                factor = self.expr(inner, depth, share, exact)
            else:
                factor = self.leaf(inner, share, exact)
            factor, divides = closed(factor), False
            if i and self.chance(12):
                if exact:
                    if not share:
                        factor, divides = Num(Fraction(self.pick([2, 4]))), True
                else:
                    factor, divides = self.safe(factor), True
            factors.append((factor, divides))
        juxtapose = self.pick(range(8))
        product = Mul(tuple(factors), juxtapose=juxtapose)
        implicit = tuple(a for a in summed if may_be_implicit(product, a) and not self.chance(25))
        product = Mul(product.factors, implicit, juxtapose)
        explicit = tuple(a for a in summed if a not in implicit)
        return Red("sum", explicit, product, exact, self.chance(50)) if explicit else product

    def make_add(self, scope, depth, must, exact):
        terms = [(self.expr(scope, depth, must, exact), self.chance(10))]
        for _ in range(self.pick([1, 1, 2])):
            some = [a for a in must if self.chance(60)]
            terms.append((self.expr(scope, depth, some, exact), self.chance(40)))
        return Add(tuple(terms))

    def make_reduce(self, scope, depth, must, exact):
        if not self.room(scope):
            return self.leaf(scope, must, exact)
        kind = self.pick(["sum", "sum", "prod", "max", "mean", "min"])
        letters: list[str] = []
        for _ in range(self.pick([1, 1, 2])):
            hidden = [a for a in scope if a not in letters and a not in must and a != "..."]
            if hidden and self.chance(15):
                letters.append(self.pick(hidden))
            else:
                letters.append(self.new_letter((*scope, *letters)))
        if self.has_leading and "..." not in must and self.chance(25):
            letters = ["...", *(letters[1:] if self.chance(50) else [])]
        count = math.prod(self.extent(a) for a in letters)
        if exact and ((kind in ("max", "min") and count > 2) or (kind == "mean" and count & (count - 1))):
            kind = "sum"
        if kind == "prod" and count > 6:
            kind = "sum"
        inexact = not exact and (kind not in ("max", "min") or self.chance(20))
        inner = (*(a for a in scope if a not in letters), *letters)
        wanted = [a for a in letters if a == "..." or self.chance(90)]
        body = self.expr(inner, depth, [*must, *wanted], not inexact)
        if kind == "prod" and not exact and self.chance(50):
            body = Call("tanh", (body,))
        return Red(kind, tuple(letters), body, not inexact, self.chance(40))

    def safe(self, e):
        """A positive value, not near zero, from any."""
        kind = self.pick(["square", "sin", "sigmoid", "exp", "exps", "exps"])
        if kind == "exps":  # what a softmax divides by
            first = self.pick([e, Neg(e), Pow(closed(e), Num(Fraction(2)))])
            second = self.pick([Num(Fraction(1)), Call("exp", (Call("sin", (e,)),)), Call("exp", (Neg(first),))])
            return Add(((Call("exp", (Call("tanh", (first,)),)), False), (second, False)))
        if kind == "square":
            return Add(((Num(Fraction(1)), False), (Pow(closed(e), Num(Fraction(2))), False)))
        if kind == "sin":
            return Add(((Num(Fraction(2)), False), (Call("sin", (e,)), False)))
        if kind == "sigmoid":
            return Add(((Call("sigmoid", (e,)), False), (Num(Fraction(1, 2)), False)))
        return Call("exp", (Call("tanh", (e,)),))

    def make_call(self, scope, depth, must, exact):
        kinks = ["relu", "abs", "relu", "sign"]
        name = self.pick(
            kinks if exact else ["tanh", "exp", "sin", "log", "sqrt", "cos", "sigmoid", "erf", "gelu", *kinks]
        )
        if name in kinks:
            inexact = not exact and self.chance(20)
            return Call(name, (self.expr(scope, depth, must, not inexact),), not inexact)
        argument = self.expr(scope, depth, must, exact)
        if name in ("log", "sqrt"):
            argument = self.safe(argument)
        elif name == "exp":
            argument = Mul(((Num(Fraction(1, 4)), False), (closed(argument), False)), juxtapose=0)
            if self.chance(40):
                argument = Neg(argument)
        return Call(name, (argument,))

    def make_pow(self, scope, depth, must, exact):
        base = closed(self.expr(scope, depth, must, exact))
        if exact or self.chance(50):
            return Pow(base, Num(Fraction(self.pick([2, 3, 2, 1, 0]))))
        base = self.safe(base)
        values = [Fraction(v) for v in (2, -1, -2)] + [Fraction(1, 2), Fraction(-1, 2), Fraction(3, 2), Fraction(-3, 2)]
        if self.chance(70):
            return Pow(base, Num(self.pick(values)))
        return Pow(base, Call("tanh", (self.expr(scope, depth - 1, (), exact),)))

    def make_neg(self, scope, depth, must, exact):
        return Neg(self.expr(scope, depth, must, exact))

    def make_where(self, scope, depth, must, exact):
        yes, no = self.expr(scope, depth, must, exact), self.expr(scope, depth - 1, (), exact)
        if self.chance(50):
            yes, no = no, yes
        return Where(self.condition(scope, (), exact), yes, no)

    def make_bracket(self, scope, depth, must, exact):
        bracket = Iverson(self.condition(scope, (), exact))
        other = closed(self.expr(scope, depth, must, exact))
        pair = ((bracket, False), (other, False)) if self.chance(50) else ((other, False), (bracket, False))
        return Mul(pair, juxtapose=self.pick(range(8)))

    def make_two(self, scope, depth, must, exact):
        inexact = not exact and self.chance(20)
        first = self.expr(scope, depth, must, not inexact)
        second = Num(Fraction(0)) if self.chance(25) else self.expr(scope, depth - 1, (), not inexact)
        pair = (second, first) if self.chance(25) else (first, second)
        return Call(self.pick(["max", "min"]), pair, not inexact)

    # statements

    def statement(self, name: str, exact: bool, last: bool) -> Statement:
        self.letters: dict[str, int] = {}
        self.has_leading = self.chance(20)
        if self.chance(25):  # else as in the statement before
            self.leading = self.new_leading()
        self.budget = 14
        left: list[str] = []
        for _ in range(self.pick([1, 2, 0, 1, 2, 3] if last else [1, 2, 1, 0])):
            left.append(self.new_letter(left))
        if self.has_leading and self.chance(70):
            left.insert(0, "...")
        must = [a for a in left if a == "..." or self.chance(92)]
        body = self.expr(tuple(left), self.pick([2, 3, 1, 4]), must, exact)
        used = self.used_letters(body, left)
        s = Statement(name, tuple(left), body, {a: n for a, n in self.letters.items() if a in used}, self.leading)
        self.tensors.append(Tensor(name, s.shape, exact=exact))
        return s

    @staticmethod
    def used_letters(body, left) -> set[str]:
        used = set(left)
        for e in walk(body):
            if isinstance(e, (Idx, SizeOf)):
                used.add(e.letter)
            elif isinstance(e, Affine):
                used |= {a[1] if isinstance(a, tuple) else a for _, a in e.terms if not isinstance(a, Gather)}
            elif isinstance(e, Red):
                used |= set(e.letters)
            elif isinstance(e, Mul):
                used |= set(e.summed)
        return used


def size_only(s: Statement) -> set[str]:
    """Letters that stand in ``size()`` alone."""
    indices = set(s.left)
    for e in walk(s.body):
        if isinstance(e, Affine):
            indices |= {a for _, a in e.terms if isinstance(a, str)}
        elif isinstance(e, Red):
            indices |= set(e.letters)
        elif isinstance(e, Mul):
            indices |= set(e.summed)
        elif isinstance(e, Idx):
            indices.add(e.letter)
    return set(s.letters) - indices


def values(tensor: Tensor, rng, polynomial: bool) -> np.ndarray:
    if tensor.dtype != "float64":
        return rng.integers(tensor.low, tensor.high + 1, tensor.shape).astype(tensor.dtype)
    if polynomial:
        return rng.integers(-3, 4, tensor.shape).astype(np.float64)
    if tensor.exact:  # few values: ties, zeros
        return rng.integers(-4, 5, tensor.shape) / 4.0
    return rng.uniform(-1.5, 1.5, tensor.shape)


def build(choices: bytes, seed: int, polynomial: bool) -> Formula | None:
    """The formula of these choices with random arrays; None if its values are too large, or too near a kink."""
    b = Builder(choices)
    count = b.pick([1, 1, 2, 3])
    parts = [b.statement(OUTPUTS[count - 1 - i], polynomial or b.chance(25), last=i == count - 1) for i in range(count)]
    if any(size_only(s) for s in parts):
        return None
    renamed, sizes = settle(parts, lambda: b.chance(8))
    style = b.chance(50), b.pick(["; ", "\n", " ;\n  "])
    rng = np.random.default_rng(seed)
    used = {e.tensor.name for s in parts for e in walk(s.body) if isinstance(e, (Acc, Gather))}
    inputs = [t for t in (*b.tensors, *b.integers) if t.name in used and t.name not in {s.name for s in parts}]
    arrays = {t.name: values(t, rng, polynomial) for t in inputs}
    dY = np.asarray(rng.integers(-3, 4, parts[-1].shape), np.float64)
    return finished(Formula(parts, written(parts, renamed, *style), sizes, arrays, dY, polynomial))


def written(parts: list[Statement], renamed: list[dict[str, str]], spaces: bool, separator: str) -> str:
    return separator.join(Text(r, spaces).statement(s) for r, s in zip(renamed, parts, strict=True))


def finished(f: Formula) -> Formula | None:
    """The formula with its largest value, if it is fit for comparison."""
    plain = InNumpy(f)
    with np.errstate(all="ignore"):
        plain.run(f.arrays)
    f.largest = max(1.0, plain.largest)
    if plain.margin <= 1e-6:
        return None
    if not f.polynomial:
        return f if plain.largest < FORWARD_LIMIT else None
    sizes = {n: np.abs(a) if a.dtype.kind == "f" else a for n, a in f.arrays.items()}
    Y, gradients = Magnitudes(f).gradients(sizes, np.abs(f.dY))
    return f if all(np.max(a, initial=0) < EXACT_LIMIT for a in (Y, *gradients.values())) else None


@st.composite
def formulas(draw, polynomial: bool = False) -> Formula:
    """A random formula with arrays, sizes and dY; ``polynomial``: everything exact on integers, gradients included."""
    f = build(draw(st.binary(min_size=500, max_size=500)), draw(st.integers(0, 2**16)), polynomial)
    assume(f is not None)
    return f
