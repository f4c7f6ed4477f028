"""Expressions as text that `parse` reads back to the same values."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from ._expr import (
    ONE,
    Affine,
    Apply,
    Atom,
    Compare,
    Delta,
    Expr,
    Factor,
    Index,
    Indices,
    Place,
    Power,
    Range,
    Read,
    Reduce,
    SizeOf,
    Term,
    Value,
    Where,
    children,
)
from ._ranges import Classes, divides
from ._tree import COMPARISONS, LEADING

# Numbers with more digits are written as the double that they are computed with.
LONG = 10**25

# Letters for indices that have none of their own, in the order they are taken.
LETTERS = (*"hijkpqrstuvlmnabcdefgowxyz", *(f"{a}{b}" for a in string.ascii_lowercase for b in "123456789"))


class Letters:
    """Which letter stands for which index: no letter for two ranges, nor for two indices where both are in scope.

    Args:
        classes: which ranges are one.
        taken: names of tensors, which no index may have.
    """

    def __init__(self, classes: Classes, taken: Iterable[str]) -> None:
        self._classes = classes
        self._taken = set(taken)
        self._range: dict[str, Range] = {}
        self._of: dict[Index, str] = {}

    def __getitem__(self, index: Index) -> str:
        return self._of[index]

    def get(self, index: Index, otherwise: str) -> str:
        """The index's letter, or another for one that is not printed."""
        return self._of.get(index, otherwise)

    @property
    def ranges(self) -> dict[str, Range]:
        """The range of every letter used."""
        return dict(self._range)

    def apart(self, indices: Indices) -> None:
        """Name indices with letters that nothing else has."""
        for index in indices:
            self._name(index, set(self._range) - {LEADING})

    def statement(self, left: Indices, body: Expr) -> None:
        """Name the indices of one statement."""
        for index in left:
            self._name(index, {self._of[i] for i in left if i in self._of and i is not index})
        self.expression(body, {self._of[index] for index in left})

    def expression(self, node: Any, live: set[str]) -> None:
        """Name the indices bound inside a node; ``live`` are the letters around it."""
        if isinstance(node, Term | Reduce):
            live = set(live)
            # Letters that stand free inside go first: a bound index must not take one of theirs.
            live |= {self._of[index] for index in node.free if index in self._of}
            for index in node.bound:
                live.add(self._name(index, live))
        for child in children(node):
            self.expression(child, live)

    def _name(self, index: Index, live: set[str]) -> str:
        if index.letter == LEADING:
            self._of[index] = LEADING
            self._range.setdefault(LEADING, index.range)
            return LEADING
        if index in self._of and self._of[index] not in live:
            return self._of[index]
        kind = self._classes.find(index.range)
        alike = [letter for letter, range_ in self._range.items() if self._classes.find(range_) == kind]
        letter: str = next(
            letter
            for letter in (*self._own(index), *alike, *self._classes.alike(kind), *LETTERS)
            if letter not in live and self._fits(letter, kind)
        )
        self._of[index] = letter
        self._range.setdefault(letter, index.range)
        return letter

    def _own(self, index: Index) -> tuple[str, ...]:
        """The index's letter, unless that was made up for leading axes and the formula has others for the range."""
        return () if index.letter in self._classes.invented else (index.letter,)

    def _fits(self, letter: str, kind: Range) -> bool:
        if letter in self._taken or letter == LEADING:
            return False
        return letter not in self._range or self._classes.find(self._range[letter]) == kind

    def divides(self, pair: Factor, index: Index) -> bool:
        """Whether a factor divides by the size of what an index runs over."""
        return divides(pair, index, self._classes)

    def size(self, of: SizeOf) -> str:
        """The letter whose size this is."""
        kind = self._classes.find(of.range)
        for letter, range_ in self._range.items():
            if self._classes.find(range_) == kind:
                return letter
        spare: str = next(x for x in (of.letter, *self._classes.alike(kind), *LETTERS) if self._fits(x, kind))
        self._range[spare] = of.range
        return spare


class Text:
    """The printer. One method per node; each returns text in the grammar."""

    compared: Mapping[str, str] = {op: op for op in COMPARISONS}
    """How each comparison is written."""

    def __init__(self, letters: Letters) -> None:
        self.letters = letters

    def statement(self, name: str, left: Indices, body: Expr) -> str:
        """``name[left] = body``."""
        self.letters.statement(left, body)
        return f"{self.access(name, [self.letters[index] for index in left])} = {self.expr(body)}"

    def access(self, name: str, places: Iterable[str]) -> str:
        inside = ",".join(places)
        return f"{name}[{inside}]" if inside else name

    def adjoint(self, name: str, places: Iterable[str]) -> str:
        """One entry of the gradient of a tensor."""
        return self.access(f"d{name}", places)

    def slope(self, above: str, below: str) -> str:
        """The partial derivative of one entry by another."""
        return f"∂{above}/∂{below}"

    def inline(self, formula: str) -> str:
        """A formula within a sentence."""
        return formula

    def summed(self, bound: Indices, body: str) -> str:
        """A sum around a product."""
        return self._sum(bound, f" {body}") if bound else body

    def term_with(self, term: Term, last: str) -> str:
        """A monomial with one more factor at its end that is no expression."""
        coefficient = term.coefficient
        above, below = self._number(abs(coefficient))
        parts = [self._power(f, e) for f, e in term.factors if e > 0]
        divided = "".join(f"/{self._power(f, -e)}" for f, e in term.factors if e < 0) + (f"/{below}" if below else "")
        if divided:
            product = f"{self._join(parts) or '1'}{divided}{' * ' if last else ''}{last}"
        else:
            product = self._join([*parts, last] if last else parts) or "1"
        text = self.summed(term.bound, product)
        text = f"{above} {text}" if above != "1" else text
        return f"-{text}" if coefficient < 0 else text

    def expr(self, expr: Expr) -> str:
        """A sum, without parentheses around it."""
        if not expr.terms:
            return "0"
        out = ""
        for i, term in enumerate(expr.terms):
            positive = self.term(Term(abs(term.coefficient), term.bound, term.factors))
            minus = term.coefficient < 0
            if i == 0:
                out = f"-{positive}" if minus else positive
            else:
                out += f" {'-' if minus else '+'} {positive}"
        return out

    def term(self, term: Term) -> str:
        """A monomial: its number, its sum, its product."""
        term = leading_apart(term)
        above, below = self._number(term.coefficient)
        if mean := self._mean(term):
            text = f"mean[{self._bound(term.bound)}]({self._inside(mean)})"
            text = f"{above} {text}" if above != "1" else text
            return f"{text}/{below}" if below else text
        factors, last = sum_last([(f, e) for f, e in term.factors if e > 0])
        divisors = [(f, -e) for f, e in term.factors if e < 0]
        parts = [self._power(f, e) for f, e in factors]
        if len(parts) > 1 and not divisors and not below and last:
            parts[-1] = self.term(last)  # a sum that ends a product needs no parentheses
        product = self._join(parts)
        if term.bound:
            inner = product or "1"
            for f, e in divisors:
                inner += f"/{self._power(f, e)}"
            body = f"({inner})" if inner.startswith("(") or below else f" {inner}"
            text = self._sum(term.bound, body)
            text = f"{above} {text}" if above != "1" else text
            return f"{text}/{below}" if below else text
        if above != "1" or not product:
            product = f"{above} {product}" if product else above
        for f, e in divisors:
            product += f"/{self._power(f, e)}"
        return f"{product}/{below}" if below else product

    def _closed_sum(self, term: Term) -> str:
        """A sum over a product as a factor, its product in parentheses."""
        if self._mean(term):
            return self.term(term)
        return self._sum(term.bound, f"({self._inside(Term(ONE, (), term.factors))})")

    def _inside(self, product: Term) -> str:
        """A product within parentheses, where a bracket alone needs none."""
        match product.factors:
            case ((Expr() as alone, 1),) if not _lone_sum(alone, ONE):
                return self.expr(alone)
        return self.term(product)

    def _mean(self, term: Term) -> Term | None:
        """What a term is the mean of: a sum that its own sizes divide; None where it is no mean."""
        factors = list(term.factors)
        for index in term.bound:
            size = next((pair for pair in factors if self.letters.divides(pair, index)), None)
            if size is None:
                return None
            factors.remove(size)
        return Term(ONE, (), tuple(factors)) if term.bound and factors else None

    def _bound(self, bound: Indices) -> str:
        return ",".join(sorted((self.letters[index] for index in bound), key=lambda letter: letter != LEADING))

    def _sum(self, bound: Indices, body: str) -> str:
        return f"sum[{self._bound(bound)}]{body}"

    @staticmethod
    def _number(value: Fraction) -> tuple[str, str]:
        """A positive number as what is written before a product and what it is divided by."""
        if max(value.numerator, value.denominator) >= LONG:
            return repr(_double(value)).replace("+", ""), ""
        if value.denominator == 1:
            return str(value.numerator), ""
        if max(value.numerator, value.denominator) >= 10**6 and not decimal(value) and (inverse := decimal(1 / value)):
            return "1", inverse
        if value.denominator < 10 or not decimal(value):
            return str(value.numerator), str(value.denominator)
        return decimal(value), ""

    @staticmethod
    def _join(parts: list[str]) -> str:
        """Juxtaposed factors; ``*`` after a bare name that would swallow what follows, and before a sum's end."""
        out = ""
        for part in parts:
            if out and part[0] in "([" and _ends_in_name(out):
                out += "*" + part
            else:
                out += f" {part}" if out else part
        return out

    def _power(self, node: Any, exponent: Fraction) -> str:
        text = self.atom(node)
        if exponent == 1:
            return text
        if isinstance(node, Power):
            text = f"({text})"
        plain = decimal(exponent)
        return f"{text}**{plain}" if plain else f"{text}**({exponent.numerator}/{exponent.denominator})"

    def atom(self, node: Any) -> str:
        """A factor; sums in parentheses."""
        match node:
            case Expr() if lone := _lone_sum(node, ONE):
                return self._closed_sum(lone)
            case Expr():
                return f"({self.expr(node)})"
            case Read():
                return self.read(node)
            case Value() if node.at.size == LEADING:
                return f"sum[{LEADING}](1)"
            case Value():
                text = self.affine(node.at)
                return text if node.at.bare or node.at.size else f"({text})"
            case Apply():
                return f"{node.function}({', '.join(self.expr(argument) for argument in node.arguments)})"
            case Compare() | Delta():
                return f"[{self.condition(node)}]"
            case Where():
                return f"where({self.condition(node.condition)}, {self.expr(node.yes)}, {self.expr(node.no)})"
            case Power():
                return f"{self._operand(node.base)}**{self._operand(node.exponent)}"
            case Reduce():
                indices = ",".join(self.letters[index] for index in node.bound)
                return f"{node.kind}[{indices}]({self.expr(node.body)})"
        raise TypeError(node)

    def _operand(self, expr: Expr) -> str:
        """One side of a power: in parentheses unless it is a single plain factor."""
        (only,) = expr.terms if len(expr.terms) == 1 else (None,)
        plain = only is not None and only.coefficient == 1 and not only.bound and [e for _, e in only.factors] == [1]
        if plain and only is not None and isinstance(only.factors[0][0], Read | Apply | Reduce):
            return self.atom(only.factors[0][0])
        return f"({self.expr(expr)})"

    def condition(self, node: Compare | Delta) -> str:
        if isinstance(node, Delta):
            place = Place(node.place.at, None if node.place.mode == "zero" else node.place.mode)
            return f"{self.affine(node.left)} {self.compared['==']} {self.place(place)}"
        return f"{self.expr(node.left)} {self.compared[node.op]} {self.expr(node.right)}"

    def read(self, node: Read) -> str:
        if not node.places:
            return node.tensor if node.tensor not in self.letters.ranges else f"{node.tensor}[]"
        return self.access(node.tensor, [self.place(place) for place in node.places])

    def place(self, place: Place) -> str:
        text = self.affine(place.at)
        return f"{place.mode}({text})" if place.mode else text

    def affine(self, at: Affine) -> str:
        """An index position."""
        parts = [(self._integer(term), c) for term, c in at.terms]
        if at.constant or not parts:
            parts.append(("", at.constant))
        parts.sort(key=lambda part: part[1] < 0)
        out = ""
        for name, c in parts:
            size = str(abs(c)) if not name else name if abs(c) == 1 else f"{abs(c)}*{name}"
            out += f"{'-' if c < 0 else '+' if out else ''}{size}"
        return out

    def _integer(self, term: Index | SizeOf | Read) -> str:
        if isinstance(term, Index):
            return self.letters[term]
        if isinstance(term, SizeOf):
            return f"size({self.letters.size(term)})"
        return self.read(term) if term.places else f"{term.tensor}[]"  # a bare name would be an index


def _double(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def decimal(value: Fraction) -> str:
    """A number as an exact decimal of at most 30 digits; empty where there is none."""
    rest, tens = value.denominator, 0
    while rest % 10 == 0:
        rest //= 10
        tens += 1
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
            tens += 1
    if rest != 1 or tens > 25:
        return ""
    digits = value * 10**tens
    assert digits.denominator == 1
    text = str(abs(digits.numerator)).rstrip("0") or "0"
    if tens > 4 and len(text) < 4:
        lowest = tens - (len(str(abs(digits.numerator))) - len(text)) - len(text) + 1
        scientific = f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e-{lowest}"
        return f"-{scientific}" if value < 0 else scientific
    text = str(abs(digits.numerator)).rjust(tens + 1, "0")
    text = f"{text[:-tens]}.{text[-tens:]}".rstrip("0").rstrip(".") if tens else text
    return f"-{text}" if value < 0 else text


def leading_apart(term: Term) -> Term:
    """A monomial in which ``...`` stands for two things, each sum over it in parentheses, where it hides the others."""
    summed = [index for index in term.bound if index.letter == LEADING]
    if len(summed) + sum(index.letter == LEADING for index in term.free) < 2:
        return term
    factors = term.factors
    for index in summed:
        inner = tuple(pair for pair in factors if index in pair[0].free)
        size: Factor = (Value(Affine(0, ((SizeOf(index.range, LEADING), 1),))), ONE)
        closed: Factor = (Expr((Term(ONE, (index,), inner),)), ONE) if inner else size
        factors = (closed, *(pair for pair in factors if pair not in inner))
    return Term(term.coefficient, tuple(i for i in term.bound if i not in summed), factors)


def sum_last(factors: list[Factor]) -> tuple[list[Factor], Term | None]:
    """A product's factors with a sum that needs no parentheses, if there is one, at the end; and that sum."""
    for pair in factors:
        if lone := _lone_sum(*pair):
            return [*(other for other in factors if other is not pair), pair], lone
    return factors, None


def _lone_sum(factor: Atom, exponent: Fraction) -> Term | None:
    """A factor that is one sum over a product, whose number is 1, as its term."""
    if exponent == 1 and isinstance(factor, Expr) and len(factor.terms) == 1:
        (term,) = factor.terms
        return term if term.bound and term.coefficient == 1 else None
    return None


def _ends_in_name(text: str) -> bool:
    word = text.rsplit(" ", 1)[-1].rsplit("*", 1)[-1]
    return word.isidentifier()
