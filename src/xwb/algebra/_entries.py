"""A small case of a formula, entry by entry: every value as an expression of the inputs' entries, and its slopes.

Differentiation has a table of its own here: nothing of `_rules` and `_gradient` is used, so that the entries check the
formulas that are derived for any size.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..core import FormulaError, unknown
from ._access import OutOfBounds
from ._expr import Affine, Apply, Compare, Delta, Expr, Index, Place, Power, Range, Read, Reduce, SizeOf, Value, Where
from ._page import in_order
from ._ranges import Sizes, needed, reach, solve
from ._read import Statement
from ._text import pointed
from ._tree import LEADING, Span

if TYPE_CHECKING:
    from ._derivation import Derivation

# What is larger is not legible on paper, and would not be written in a blink.
MAX_ENTRIES = 64  # of a tensor
MAX_TERMS = 64  # of a sum, and factors of a product
MAX_SYMBOLS = 1_000  # in one entry, functions and denominators included
MAX_AXES = 8
MAX_WORK = 50_000  # terms visited for the page
MAX_BITS = 200  # of a number


# -- entries as expressions --------------------------------------------------------------------------------------------


class _TooLarge(Exception):
    """An entry that is too long to write out, and why."""


@dataclass(frozen=True)
class Symbol:
    """An entry of a tensor, its axes counted from 0; ``adjoint``: the derivative of the loss by it."""

    tensor: str
    at: tuple[int, ...]
    adjoint: bool = False
    size = 1


@dataclass(frozen=True)
class Node:
    """A function, a comparison, ``where``, or ``**`` of sums. The head ``"max="`` is the bracket of a maximum's slope:
    1 if the first argument is the largest of the others; those that tie share the 1. So is ``"min="``."""

    head: str
    arguments: tuple[Sum, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.head, self.arguments))

    @cached_property
    def size(self) -> int:
        return sum(argument.size for argument in self.arguments)


@dataclass(frozen=True)
class Sum:
    """``Σ coefficient Π factor ** exponent``, like terms added up; products of sums are not multiplied out."""

    terms: tuple[tuple[Fraction, Product], ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    @cached_property
    def size(self) -> int:
        return sum(sum(factor.size for factor, _ in product) or 1 for _, product in self.terms)

    @property
    def number(self) -> Fraction | None:
        """Its value, where nothing unknown stands in it."""
        if not self.terms:
            return Fraction(0)
        return self.terms[0][0] if len(self.terms) == 1 and not self.terms[0][1] else None


Factor: TypeAlias = Symbol | Node | Sum
Product: TypeAlias = "tuple[tuple[Factor, Fraction], ...]"

ONE = Fraction(1)
COMPARE: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
AT_ZERO = {"exp": ONE, "cos": ONE, "sigmoid": ONE / 2, **dict.fromkeys(("sin", "tanh", "erf", "gelu"), Fraction(0))}
ON_NUMBERS: dict[str, Callable[..., Fraction]] = {
    "abs": abs,
    "relu": lambda x: max(x, Fraction(0)),
    "sign": lambda x: Fraction((x > 0) - (x < 0)),
    "max": max,
    "min": min,
}


def number(value: Fraction | int) -> Sum:
    return Sum(((Fraction(value), ()),) if value else ())


def single(factor: Factor, exponent: Fraction = ONE) -> Sum:
    return factor if isinstance(factor, Sum) and exponent == 1 else Sum(((ONE, ((factor, exponent),)),))


def total(parts: Iterable[Sum]) -> Sum:
    """The sum, like terms added up, in order of first appearance."""
    merged: dict[frozenset[tuple[Factor, Fraction]], tuple[Fraction, Product]] = {}
    for part in parts:
        for coefficient, product in part.terms:
            before = merged.get(key := frozenset(product), (0, product))
            merged[key] = (coefficient + before[0], before[1])
    out = Sum(tuple(term for term in merged.values() if term[0]))
    if len(out.terms) > MAX_TERMS:
        raise _TooLarge(f"has more than {MAX_TERMS} terms")
    if out.size > MAX_SYMBOLS:
        raise _TooLarge(f"names more than {MAX_SYMBOLS:,} entries")
    return out


def times(*parts: Sum) -> Sum:
    """The product; sums of several terms stay in parentheses."""
    coefficient, exponents = ONE, dict[Factor, Fraction]()
    for part in parts:
        if not part.terms:
            return part
        factors: Product = ((part, ONE),)
        if len(part.terms) == 1:
            coefficient, factors = coefficient * part.terms[0][0], part.terms[0][1]
        for factor, exponent in factors:
            exponents[factor] = exponents.get(factor, Fraction(0)) + exponent
    kept = [(f, ONE if _is_bracket(f) and e > 0 else e) for f, e in exponents.items() if e]
    opened = [(f, e) for f, e in kept if isinstance(f, Sum) and len(f.terms) == 1 and e.denominator == 1]
    if opened:  # a root that has been squared is no root any more
        rest = tuple(pair for pair in kept if pair not in opened)
        return times(Sum(((coefficient, rest),)), *(raised(f, e) for f, e in opened))
    if len(kept) > MAX_TERMS:
        raise _TooLarge(f"has a product of more than {MAX_TERMS} factors")
    if any(_bits(value) > MAX_BITS for value in (coefficient, *(e for _, e in kept))):
        raise _TooLarge("has a number that is too long")
    if len(kept) == 1 and isinstance(kept[0][0], Sum) and kept[0][1] == 1 and abs(coefficient) == 1:
        return Sum(tuple((coefficient * c, product) for c, product in kept[0][0].terms))
    return Sum(((coefficient, tuple(kept)),))


def raised(base: Sum, exponent: Fraction | int) -> Sum:
    """A constant power."""
    exponent = Fraction(exponent)
    if exponent == 0:
        return number(1)
    if exponent == 1 or (not base.terms and exponent > 0):
        return base
    if len(base.terms) == 1:
        coefficient, product = base.terms[0]
        whole = exponent.denominator == 1
        if whole and _bits(coefficient) * abs(exponent) > MAX_BITS:
            raise _TooLarge("has a number that is too long")
        if whole or (coefficient == 1 and len(product) == 1 and product[0][1] == 1):
            scaled = tuple((factor, e * exponent) for factor, e in product)
            return times(Sum(((coefficient**exponent.numerator if whole else ONE, scaled),)))
        roots = math.isqrt(coefficient.numerator) if coefficient > 0 else 0, math.isqrt(coefficient.denominator)
        if not product and exponent.denominator == 2 and Fraction(*roots) ** 2 == coefficient:
            return raised(number(Fraction(*roots)), exponent * 2)
    return Sum(((ONE, ((base, exponent),)),))


def apply(head: str, *arguments: Sum) -> Sum:
    """A function, a comparison, ``where`` or ``**``; with numbers it is worked out where the result is one."""
    numbers = [value for argument in arguments if (value := argument.number) is not None]
    known = numbers if len(numbers) == len(arguments) else None
    if head == "sqrt":
        return raised(arguments[0], Fraction(1, 2))
    if head == "**" and (exponent := arguments[1].number) is not None:
        return raised(arguments[0], exponent)
    if head == "where" and (condition := arguments[0].number) is not None:
        return arguments[1] if condition else arguments[2]
    if head in COMPARE and (known or arguments[0] == arguments[1]):
        return number(COMPARE[head](*known) if known else head in ("==", "<=", ">="))
    if head in ("max", "min") and len(arguments) == 1:
        return arguments[0]
    if known and head in ON_NUMBERS:
        return number(ON_NUMBERS[head](*known))
    if known == [Fraction(0)] and head in AT_ZERO:
        return number(AT_ZERO[head])
    if known == [ONE] and head == "log":
        return number(0)
    return single(Node(head, arguments))


def _is_bracket(factor: Factor) -> bool:
    return isinstance(factor, Node) and (factor.head in COMPARE or factor.head in ("max=", "min="))


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length() - 2


def _one_minus(expr: Sum) -> Sum:
    return total([number(1), times(number(-1), expr)])


SLOPE: dict[str, Callable[[Sum], Sum]] = {
    "exp": lambda x: apply("exp", x),
    "log": lambda x: raised(x, -1),
    "abs": lambda x: apply("sign", x),
    "sin": lambda x: apply("cos", x),
    "cos": lambda x: times(number(-1), apply("sin", x)),
    "tanh": lambda x: _one_minus(raised(apply("tanh", x), 2)),
    "sigmoid": lambda x: times(apply("sigmoid", x), _one_minus(apply("sigmoid", x))),
    "relu": lambda x: apply(">", x, number(0)),
    "erf": lambda x: apply("erf'", x),
    "gelu": lambda x: apply("gelu'", x),
}


def slopes(expr: Sum) -> dict[Symbol, Sum]:
    """The derivative by every entry that an expression depends on, in order of appearance."""
    parts: dict[Symbol, list[Sum]] = {}
    for coefficient, product in expr.terms:
        for i, (factor, exponent) in enumerate(product):
            for symbol, inner in _slopes(factor).items():
                before = [single(f, e) for f, e in product[:i]]
                after = [single(f, e) for f, e in product[i + 1 :]]
                outer = raised(single(factor), exponent - 1)
                part = times(number(coefficient * exponent), *before, outer, inner, *after)
                parts.setdefault(symbol, []).append(part)
    return {symbol: slope for symbol, found in parts.items() if (slope := total(found)).terms}


def _slopes(factor: Factor) -> dict[Symbol, Sum]:
    if isinstance(factor, Symbol):
        return {factor: number(1)}
    if isinstance(factor, Sum):
        return slopes(factor)
    parts: dict[Symbol, list[Sum]] = {}
    for argument, outer in zip(factor.arguments, _outer(factor), strict=True):
        for symbol, inner in slopes(argument).items() if outer.terms else ():
            parts.setdefault(symbol, []).append(times(outer, inner))
    return {symbol: total(found) for symbol, found in parts.items()}


def _outer(node: Node) -> list[Sum]:
    """The derivative of a node by each of its arguments."""
    arguments = node.arguments
    if node.head in SLOPE:
        return [SLOPE[node.head](*arguments)]
    if node.head in ("max", "min"):
        return [single(Node(f"{node.head}=", (argument, *arguments))) for argument in arguments]
    if node.head == "**":
        base, exponent = arguments
        lower = apply("**", base, total([exponent, number(-1)]))
        return [times(exponent, lower), times(single(node), apply("log", base))]
    if node.head == "where":
        ((_, ((condition, _),)),) = arguments[0].terms
        assert isinstance(condition, Node)
        return [number(0), arguments[0], apply(OPPOSITE[condition.head], *condition.arguments)]
    return [number(0)] * len(arguments)


# -- the small case ----------------------------------------------------------------------------------------------------


class Case:
    """All entries of a formula at given sizes: the values, their slopes, the gradients.

    Args:
        derivation: the formula.
        given: sizes by letter; shapes (tuples) or integers by input.

    Raises:
        FormulaError: what is given is not enough, does not fit, or is too large.
    """

    def __init__(self, derivation: Derivation, given: Mapping[str, Any]) -> None:
        self.derivation = derivation
        self.program = derivation.program
        self.known: dict[str, np.ndarray[Any, Any]] = {}
        self.sizes = self._solve(given)
        self.letters = self._letters(given)
        self.shape = {
            name: tuple(self.sizes.of[Range(name, axis)] for axis in range(rank))
            for name, rank in self.program.ranks.items()
        }
        for name, shape in self.shape.items():
            self._legible(name, shape)
        self.work = 0
        self.values: dict[str, dict[tuple[int, ...], Sum]] = {}
        self.partial: dict[str, dict[tuple[int, ...], dict[Symbol, Sum]]] = {}
        for statement in self.program.statements:
            try:
                self._compute(statement)
            except _TooLarge as error:
                raise self._too_large(statement.name, f"an entry of {statement.name} {error}") from None
        self.order = [name for name in in_order(derivation) if name not in self.known]

    def _compute(self, statement: Statement) -> None:
        name = statement.name
        entries = {at: dict(zip(statement.left, at, strict=True)) for at in self.entries(name)}
        self.values[name] = {at: self.expr(statement.body, env) for at, env in entries.items()}
        self.partial[name] = {}
        for at, value in self.values[name].items():
            found = {s: slope for s, slope in slopes(value).items() if s.tensor not in self.program.integers}
            self.partial[name][at] = found
            self._worked(sum(slope.size for slope in found.values()))

    def _worked(self, count: int) -> None:
        self.work += count
        if self.work > MAX_WORK:
            raise _TooLarge("takes too long to work out")

    def _too_large(self, name: str, fact: str) -> FormulaError:
        fact = f"too large to write out: {fact}"
        return pointed(self.program.text, fact, self.program.spans[name], more=["give smaller sizes"])

    def _legible(self, name: str, shape: tuple[int, ...]) -> None:
        if 0 in shape:
            fact = f"{name} has no entries to write out: its shape is {shape}"
            raise pointed(self.program.text, fact, self.program.spans[name])
        if math.prod(shape) > MAX_ENTRIES:
            raise self._too_large(name, f"{name} has {math.prod(shape):,} entries, and {MAX_ENTRIES} are legible")
        if len(shape) > MAX_AXES:
            raise self._too_large(name, f"{name} has more than {MAX_AXES} axes")

    def entries(self, name: str) -> Iterable[tuple[int, ...]]:
        return itertools.product(*(range(size) for size in self.shape[name]))

    def entry(self, name: str, at: tuple[int, ...]) -> Sum:
        return number(int(self.known[name][at])) if name in self.known else single(Symbol(name, at))

    # -- gradients -------------------------------------------------------------------------------------------------

    @cached_property
    def leads(self) -> list[Statement]:
        """The statements that the output depends on."""
        needed = {self.program.output.name}
        for statement in reversed(self.program.statements):
            if statement.name in needed:
                needed |= {s.tensor for found in self.partial[statement.name].values() for s in found}
        return [statement for statement in self.program.statements if statement.name in needed]

    def readers(self, name: str) -> list[str]:
        """The values through which the loss depends on a tensor."""
        return [
            statement.name
            for statement in self.leads
            if any(s.tensor == name for found in self.partial[statement.name].values() for s in found)
        ]

    def slope(self, above: str, at: tuple[int, ...], below: Symbol) -> Sum:
        return self.partial[above][at].get(below, number(0))

    def gradient(self, name: str, at: tuple[int, ...]) -> Sum:
        """∂L/∂ entry, in derivatives of the loss by the values that read it."""
        parts = [
            times(single(Symbol(above, there, True)), self.slope(above, there, Symbol(name, at)))
            for above in self.readers(name)
            for there in self.entries(above)
        ]
        try:
            return total(parts)
        except _TooLarge as error:
            raise self._too_large(name, f"an entry of the gradient of {name} {error}") from None

    # -- expressions -----------------------------------------------------------------------------------------------

    def expr(self, expr: Expr, env: Mapping[Index, int]) -> Sum:
        parts = []
        for term in expr.terms:
            for at in self._all(term.bound):
                self._worked(1)
                inner = {**env, **dict(zip(term.bound, at, strict=True))}
                factors = (raised(self.atom(factor, inner), e) for factor, e in term.factors)
                parts.append(times(number(term.coefficient), *factors))
        return total(parts)

    def _all(self, bound: Sequence[Index]) -> Iterable[tuple[int, ...]]:
        return itertools.product(*(range(self.sizes.of[index.range]) for index in bound))

    def atom(self, node: Any, env: Mapping[Index, int]) -> Sum:
        """The value of a factor at one entry."""
        match node:
            case Expr():
                return self.expr(node, env)
            case Read():
                at = [self._place(node, axis, env) for axis in range(len(node.places))]
                return number(0) if None in at else self.entry(node.tensor, tuple(i for i in at if i is not None))
            case Value():
                return number(self._position(node.at, env))
            case Apply():
                return apply(node.function, *(self.expr(argument, env) for argument in node.arguments))
            case Compare():
                return apply(node.op, self.expr(node.left, env), self.expr(node.right, env))
            case Delta():
                assert node.left.bare is not None
                inside = _inside(node.place, self._position(node.place.at, env), self.sizes.of[node.left.bare.range])
                return number(self._position(node.left, env) == inside)
            case Where():
                condition = self.atom(node.condition, env)
                if condition.number is not None:
                    return self.expr(node.yes if condition.number else node.no, env)
                return apply("where", condition, self.expr(node.yes, env), self.expr(node.no, env))
            case Power():
                return apply("**", self.expr(node.base, env), self.expr(node.exponent, env))
            case Reduce():
                entries = (dict(zip(node.bound, at, strict=True)) for at in self._all(node.bound))
                found = [self.expr(node.body, {**env, **entry}) for entry in entries]
                return times(number(1), *found) if node.kind == "prod" else apply(node.kind, *found)
        raise TypeError(node)

    def _position(self, at: Affine, env: Mapping[Index, int]) -> int:
        out = at.constant
        for term, coefficient in at.terms:
            if isinstance(term, Read):
                out += coefficient * int(self.atom(term, env).number or 0)
            else:
                out += coefficient * (env[term] if isinstance(term, Index) else self.sizes.of[term.range])
        return out

    def _place(self, read: Read, axis: int, env: Mapping[Index, int]) -> int | None:
        """The entry that one place reads; None for the zeros around ``zero``."""
        place, size = read.places[axis], self.shape[read.tensor][axis]
        position = self._position(place.at, env)
        inside = _inside(place, position, size)
        if inside is not None and not 0 <= inside < size:
            raise self.derivation._out_of_bounds(OutOfBounds(read.tensor, axis, position, position, size))
        return inside

    # -- sizes -----------------------------------------------------------------------------------------------------

    def _solve(self, given: Mapping[str, Any]) -> Sizes:
        """The size of every range from what is given; axes read at other than bare places are as long as needed."""
        program = self.program
        letters = dict.fromkeys(letter for s in program.statements for letter in s.letters)
        sizes: dict[str, int] = dict(program.sizes)
        shapes: dict[str, tuple[int, ...]] = {}
        for name, value in given.items():
            whole = not isinstance(value, bool) and hasattr(value, "__index__")
            if name in letters and (whole or name not in program.inputs):
                if not whole or value.__index__() < 1:
                    raise pointed(program.text, f"on_paper({name}={value!r}): a size is an integer from 1 on")
                sizes[name] = value.__index__()
            elif name in program.inputs:
                shapes[name] = self._shape(name, value)
            else:
                raise pointed(
                    program.text,
                    f"on_paper({name}=…): the formula has no index or input {name}{unknown(name, letters)}",
                    more=[f"its indices: {', '.join(letters) or 'none'}"],
                )
        for name in program.integers:
            if name not in shapes:
                raise pointed(
                    program.text,
                    f"{name} says which entries are read, so its values are needed",
                    program.integers[name],
                    more=[f"type on_paper({name}=[…], …) with integers from 0 on"],
                )
        find, of = self.derivation.classes.find, dict[Range, int]()
        for statement in program.statements:
            of.update({find(r): sizes[letter] for letter, r in statement.letters.items() if letter in sizes})
        for name, shape in shapes.items():
            for axis, size in enumerate(shape):
                of.setdefault(find(Range(name, axis)), size)
        lacking: dict[str, Span] = {}  # letters without a size
        unshaped: dict[str, Span] = {}  # inputs whose shape no letter says
        for name in program.inputs:
            if name not in shapes:
                axes = range(program.ranks[name])
                shapes[name] = tuple(self._axis(name, axis, of, lacking, unshaped) for axis in axes)
        for statement in program.statements:
            read = [axis.place for axis in statement.axes if axis.tensor != statement.name]
            fixed = {i.letter for place in read if place.mode in (None, "zero") for i in place.at.free}
            for letter, range_ in statement.letters.items():
                if find(range_) not in of and letter not in fixed:
                    lacking.setdefault(letter, statement.spans[range_])
        if lacking or unshaped:
            raise self._lacking(given, lacking, unshaped)
        for name, shape in shapes.items():
            self._legible(name, shape)
        return solve(program, shapes, sizes)

    def _letters(self, given: Mapping[str, Any]) -> dict[str, dict[int, str]]:
        """The sizes of every letter, each with the first statement that has it; the letters that were given first."""
        found: dict[str, dict[int, str]] = {}
        for statement in self.program.statements:
            for letter, range_ in statement.letters.items():
                found.setdefault(letter, {}).setdefault(self.sizes.of[range_], statement.name)
        return {letter: found[letter] for letter in (*given, *found) if letter in found}

    def _lacking(
        self, given: Mapping[str, Any], letters: Mapping[str, Span], inputs: Mapping[str, Span]
    ) -> FormulaError:
        known = [f"{name}={value!r}" for name, value in given.items() if name != LEADING]
        known += [f"{letter}=…" for letter in letters if letter != LEADING] + [f"{name}=(…)" for name in inputs]
        if LEADING in letters:
            name = next(name for name in self.program.inputs if self.program.leading[name])
            known.append(f"{name}=({', '.join('2' * self.program.ranks[name])})")
        elif LEADING in given:
            known.append(f'**{{"...": {given[LEADING]}}}')
        facts = [f"the size{'s' if len(letters) > 1 else ''} of {' and '.join(letters)}"] if letters else []
        facts += [f"the shape{'s' if len(inputs) > 1 else ''} of {' and '.join(inputs)}"] if inputs else []
        plural = len(letters) + len(inputs) > 1
        return pointed(
            self.program.text,
            f"{' and '.join(facts)} {'are' if plural else 'is'} missing",
            *dict.fromkeys((*letters.values(), *inputs.values())),
            more=[f"type on_paper({', '.join(known)})"],
        )

    def _shape(self, name: str, value: Any) -> tuple[int, ...]:
        """The shape of an input that was passed: as a tuple, or the values of one that has no gradient."""
        program = self.program
        discrete = name in program.integers or name in program.compared
        if name in program.integers or (discrete and not isinstance(value, tuple)):
            array = np.asarray(value)
            if array.dtype.kind not in "iu":
                raise pointed(program.text, f"on_paper({name}=…): {name} takes integers", program.spans[name])
            self.known[name], value = array, array.shape
        if not isinstance(value, tuple) or not all(hasattr(n, "__index__") for n in value):
            fact = f"on_paper({name}=…): {name} is written in letters, so only its shape is taken"
            raise pointed(program.text, fact, program.spans[name], more=[f"type on_paper({name}=(2, 3))"])
        if len(value) != program.ranks[name]:
            rank = program.ranks[name]
            axes = f"{rank} ax{'is' if rank == 1 else 'es'}"
            fact = f"on_paper({name}=…) has the shape {value}, and the formula gives it {axes}"
            more = ["... stands for one axis on paper"] if program.leading[name] else []
            raise pointed(program.text, fact, program.spans[name], more=more)
        return tuple(n.__index__() for n in value)

    def _axis(
        self, name: str, number: int, of: Mapping[Range, int], lacking: dict[str, Span], unshaped: dict[str, Span]
    ) -> int:
        """The length of an axis: its letter's size, or as long as all its reads need."""
        find = self.derivation.classes.find
        if (size := of.get(find(Range(name, number)))) is not None:
            return size
        length = 0
        for axis in (axis for statement in self.program.statements for axis in statement.axes):
            if (axis.tensor, axis.number) != (name, number):
                continue
            if axis.place.mode not in (None, "zero"):
                unshaped.setdefault(name, axis.span)
                continue

            def entries(term: Index | SizeOf, span: Span = axis.span) -> int:
                found = of.get(find(term.range))
                if found is None:
                    lacking.setdefault(term.letter, span)
                return found or 0

            ends = reach(axis.place.at, entries, lambda read: int(self.known[read.tensor].max(initial=0)))
            length = max(length, needed(axis.place.mode, *ends))
        return length


def _inside(place: Place, position: int, size: int) -> int | None:
    """Where a position lies under its boundary mode."""
    match place.mode:
        case "zero":
            return position if 0 <= position < size else None
        case "clamp":
            return min(max(position, 0), size - 1)
        case "wrap":
            return position % size
        case "mirror":
            return min(position % (2 * size), -(position + 1) % (2 * size))
        case "reflect":
            period = max(2 * (size - 1), 1)
            return min(position % period, -position % period)
    return position
