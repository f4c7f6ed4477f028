"""Formulas in two dimensions: the tree of `_print.Text` with fractions, subscripts and exponents.

What LaTeX and MathML have in common stands here; each says how a fraction, a subscript and so on are written.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

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
    Read,
    Reduce,
    SizeOf,
    Term,
    Value,
    Where,
)
from ._print import Text, leading_apart, sum_last
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation


class Drawn(Text):
    """A printer with signs of its own for what is written above, below and around; one method per node, as in `Text`.

    A printed formula is a row: parts beside each other, with the signs `` = ``, `` + `` and `` - `` between them.
    """

    loss: str
    """The letter of the loss, as it is printed."""
    adjoints: frozenset[str] = frozenset()
    """Tensors that are gradients: ``dY`` is printed as ∂L/∂Y."""

    # -- the signs, which each language writes in its own way ------------------------------------------------------

    @abstractmethod
    def named(self, name: str) -> str:
        """A tensor or an index; a name that spells a Greek letter is that letter."""

    @abstractmethod
    def upright(self, name: str) -> str:
        """A scalar tensor where it could be taken for an index."""

    @abstractmethod
    def subscript(self, name: str, places: Sequence[str]) -> str:
        """``name`` with places at its foot."""

    @abstractmethod
    def fraction(self, above: str, below: str) -> str: ...

    @abstractmethod
    def raised(self, base: str, exponent: str) -> str: ...

    @abstractmethod
    def closed(self, text: str) -> str:
        """Round parentheses."""

    @abstractmethod
    def bracket(self, condition: str) -> str:
        """1 where the condition holds."""

    @abstractmethod
    def magnitude(self, text: str) -> str:
        """The absolute value."""

    @abstractmethod
    def root(self, text: str) -> str: ...

    @abstractmethod
    def cases(self, yes: str, condition: str, no: str) -> str: ...

    @abstractmethod
    def function(self, name: str) -> str: ...

    @abstractmethod
    def at(self, mode: str, place: str) -> str:
        """A boundary mode around a position."""

    @abstractmethod
    def call(self, function: str, argument: str) -> str:
        """A function or a reduction, and what it is taken of in parentheses."""

    @abstractmethod
    def under(self, kind: str, letters: Sequence[str]) -> str:
        """The sign of a sum, product, maximum or minimum, with its indices."""

    @abstractmethod
    def size(self, letter: str) -> str:
        """How many values an index has."""

    @abstractmethod
    def power_of_ten(self, digits: str, exponent: str) -> str: ...

    @abstractmethod
    def product(self, parts: Sequence[str]) -> str:
        """Factors side by side."""

    @abstractmethod
    def partial(self, text: str) -> str: ...

    @abstractmethod
    def transposed(self, text: str) -> str: ...

    @abstractmethod
    def sign(self, sign: str) -> str:
        """One of ⊙, ∘ and the thin space."""

    ones: str
    """A column of ones."""

    # -- the tree --------------------------------------------------------------------------------------------------

    def statement(self, name: str, left: Indices, body: Expr) -> str:
        self.letters.statement(left, body)
        places = [self.letters[index] for index in left]
        above = self.adjoint(name[1:], places) if name in self.adjoints else self.access(name, places)
        return f"{above} = {self.expr(body)}"

    def access(self, name: str, places: Iterable[str]) -> str:
        inside = [self.named(place) if _plain(place) else place for place in places]
        return self.subscript(self.named(name), inside) if inside else self.named(name)

    def adjoint(self, name: str, places: Iterable[str]) -> str:
        return self.slope(self.loss, self.access(name, places))

    def slope(self, above: str, below: str) -> str:
        return self.fraction(self.partial(above), self.partial(below))

    def summed(self, bound: Indices, body: str) -> str:
        return f"{self._under('sum', bound)} {body}" if bound else body

    def _under(self, kind: str, bound: Indices) -> str:
        first = sorted(bound, key=lambda index: index.letter != LEADING)  # `...` comes first, as in text
        return self.under(kind, [self.named(self.letters[index]) for index in first])

    def term(self, term: Term) -> str:
        return self.term_with(leading_apart(term), "")

    def term_with(self, term: Term, last: str) -> str:
        number, divided = self._numbers(abs(term.coefficient))
        if mean := self._mean(term):
            # The sizes of a mean stand before its sum.
            sizes = [(factor, -exponent) for factor, exponent in term.factors if (factor, exponent) not in mean.factors]
            divided = self.product([*([divided] if divided else []), *self._factors(sizes)])
            term = Term(term.coefficient, term.bound, mean.factors)
        front = self.fraction(number, divided) if divided else number if number != "1" else ""
        above = [(factor, exponent) for factor, exponent in term.factors if exponent > 0]
        below = [(factor, -exponent) for factor, exponent in term.factors if exponent < 0]
        body = self._factors(above, ends=not last)
        if below:
            # Gradients are fractions themselves, so they stand beside the fraction.
            outside = [pair for pair in above if self._is_adjoint(pair[0])]
            inside = [pair for pair in above if pair not in outside]
            over = self._within(inside)
            if front and not divided and not term.bound:
                over, front = self.product([front, *self._factors(inside)]), ""
            body = [*self._factors(outside), self.fraction(over, self._within(below))]
        product = self.product([*body, *([last] if last else [])])
        if term.bound:
            product = f"{self._under('sum', term.bound)} {product or '1'}"
        text = " ".join(part for part in (front, product) if part) or "1"
        return f"-{text}" if term.coefficient < 0 else text

    def _numbers(self, value: Fraction) -> tuple[str, str]:
        """A positive number and what it is divided by; ``1e-12`` as a power of ten."""
        above, below = self._number(value)
        digits, e, exponent = above.partition("e")
        return (self.power_of_ten(digits, exponent) if e else above), below

    def _within(self, factors: list[tuple[Any, Fraction]]) -> str:
        """One half of a fraction, where a sum alone needs no parentheses."""
        match factors:
            case [(Expr() as alone, 1)]:
                return self.expr(alone)
        return self.product(self._factors(factors)) or "1"

    def _is_adjoint(self, node: Any) -> bool:
        return isinstance(node, Read) and node.tensor in self.adjoints

    def _factors(self, factors: list[tuple[Any, Fraction]], ends: bool = True) -> list[str]:
        """Factors as text; what has no right end gets parentheses beside others.

        With ``ends`` nothing stands behind them: a sum goes last and needs no parentheses.
        """
        factors, lone = sum_last(factors) if ends and len(factors) > 1 else (factors, None)
        if lone is not None:
            return [*self._factors(factors[:-1], ends=False), self.term(lone)]
        if len(factors) == 1 and isinstance(factors[0][0], Where) and factors[0][1] == 1:
            return [self.atom(factors[0][0])]
        return [
            self.closed(self._power(f, e)) if isinstance(f, Where) and e == 1 else self._power(f, e) for f, e in factors
        ]

    def _power(self, node: Any, exponent: Fraction) -> str:
        text = self.atom(node)
        if exponent == 1:
            return text
        plain = isinstance(node, Read | Value) and not self._is_adjoint(node)
        base = text if plain or isinstance(node, Expr | Compare | Delta) else self.closed(text)
        return self.raised(base, str(exponent))

    def atom(self, node: Any) -> str:
        match node:
            case Expr():
                return self.closed(self.expr(node))
            case Value(at):
                text = self.affine(at)
                return text if len(at.terms) + (at.constant != 0) == 1 and _unit(at) else self.closed(text)
            case Apply():
                return self._apply(node)
            case Compare() | Delta():
                return self.bracket(self.condition(node))
            case Where():
                return self.cases(self.expr(node.yes), self.condition(node.condition), self.expr(node.no))
            case Power():
                return self.raised(self._base(node.base), self.expr(node.exponent))
            case Reduce():
                return self.call(self._under(node.kind, node.bound), self.closed(self.expr(node.body)))
        return super().atom(node)

    def _base(self, base: Expr) -> str:
        """What a power stands at, without parentheses where it is a plain entry."""
        match base.terms:
            case (Term(coefficient=1, factors=((Read() as read, 1),)),) if not self._is_adjoint(read):
                return self.read(read)
        return self.closed(self.expr(base))

    def _apply(self, node: Apply) -> str:
        inside = ", ".join(self.expr(argument) for argument in node.arguments)
        if node.function == "sqrt":
            return self.root(inside)
        if node.function == "abs":
            return self.magnitude(inside)
        return self.call(self.function(node.function), self.closed(inside))

    def read(self, node: Read) -> str:
        places = [self.place(place) for place in node.places]
        if node.tensor in self.adjoints:
            return self.adjoint(node.tensor[1:], places)
        name = node.tensor
        return self.access(name, places) if places or name not in self.letters.ranges else self.upright(name)

    def place(self, place: Place) -> str:
        text = self.affine(place.at)
        return self.at(place.mode, text) if place.mode else text

    def affine(self, at: Affine) -> str:
        return super().affine(at).replace("*", " ")

    def _integer(self, term: Index | SizeOf | Read) -> str:
        if isinstance(term, Index):
            return self.named(self.letters[term])
        if isinstance(term, SizeOf):
            return self.size(self.named(self.letters.size(term)))
        return self.read(term) if term.places else self.upright(term.tensor)


def _plain(place: str) -> bool:
    """Whether a place is a letter that is not printed yet."""
    return place == LEADING or place.isidentifier()


def _unit(at: Affine) -> bool:
    return all(coefficient == 1 for _, coefficient in at.terms) and at.constant >= 0


def broken(pieces: Iterable[str], width: Callable[[str], int], most: int) -> list[str]:
    """The pieces of a sum as lines that are at most so wide; a piece that is wider has one of its own."""
    lines = [""]
    for piece in pieces:
        if lines[-1] and width(f"{lines[-1]} {piece}") > most:
            lines.append(piece)
        else:
            lines[-1] += f" {piece}" if lines[-1] else piece
    return lines


def gradients_of(derivation: Derivation) -> frozenset[str]:
    """The names of tensors that are gradients in the formulas of a derivation."""
    return frozenset(f"d{name}" for name in (*derivation._adjoints, derivation.output))


# -- matrix form ---------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A piece of a matrix form. ``axes``: 0 a number, 1 a column, 2 a matrix.

    ``binds``: 3 what an exponent can stand at, 2 a power, 1 a matrix product, 0 a sum or a product entry by entry.
    """

    by: Drawn
    text: str
    axes: int
    binds: int

    @property
    def factor(self) -> str:
        return self.text if self.binds else self.by.closed(self.text)

    @property
    def base(self) -> str:
        return self.text if self.binds == 3 else self.by.closed(self.text)

    @property
    def turned(self) -> str:
        return self.by.transposed(self.base)

    @property
    def entrywise(self) -> str:
        """A factor of a product entry by entry: matrix products and sums in parentheses."""
        return self.text if self.binds >= 2 else self.by.closed(self.text)

    @property
    def diagonal(self) -> str:
        return self.by.call(self.by.function("diag"), self.by.closed(self.text))


def by_hand(text: str, derivation: Derivation, printer: Drawn) -> str | None:
    """Matrix notation of NumPy as hands write it, ``X.T @ dY`` as Xᵀ ∂L/∂Y.

    Vectors are columns, a bold 1 is a column of ones, a dot in a circle multiplies entry by entry. None for what has no
    such form.
    """
    tree = ast.parse(text, mode="eval").body
    ranks = derivation.named.ranks
    tensors = {}
    for name in (node.id for node in ast.walk(tree) if isinstance(node, ast.Name)):
        if name in ranks:
            tensors[name] = _Piece(printer, printer.named(name), ranks[name], 3)
        elif name in printer.adjoints:
            tensors[name] = _Piece(printer, printer.adjoint(name[1:], ()), ranks[name[1:]], 2)
    piece = _piece(tree, tensors, printer)
    return piece.text if piece else None


def _piece(node: ast.AST, tensors: Mapping[str, _Piece], by: Drawn) -> _Piece | None:
    match node:
        case ast.Name(id=name):
            return tensors.get(name)
        case ast.Constant(value=value):
            return _Piece(by, str(value), 0, 3)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            of = _piece(operand, tensors, by)
            return of and _Piece(by, f"-{of.factor}", of.axes, 0)
        case ast.Attribute(value=value, attr="T"):
            of = _piece(value, tensors, by)
            return of and (_Piece(by, of.turned, 2, 2) if of.axes == 2 else of)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr="outer"), args=[left, right]):
            a, b = _piece(left, tensors, by), _piece(right, tensors, by)
            return _Piece(by, f"{a.factor} {b.turned}", 2, 1) if a and b else None
        case ast.Call(func=ast.Attribute(value=value, attr="sum"), keywords=keywords):
            of = _piece(value, tensors, by)
            axis = keywords[0].value.value if keywords and isinstance(keywords[0].value, ast.Constant) else None
            return of and _sum(of, axis)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Subscript(value=value)):  # A * v[:, None]
            a, b = _piece(left, tensors, by), _piece(value, tensors, by)
            return _Piece(by, f"{b.diagonal} {a.factor}", 2, 1) if a and b else None
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _piece(left, tensors, by), _piece(right, tensors, by)
            return _operation(a, op, b) if a and b else None
    return None


def _sum(of: _Piece, axis: object) -> _Piece | None:
    by, ones = of.by, of.by.ones
    match of.axes, axis:
        case 2, 0:
            return _Piece(by, f"{of.turned} {ones}", 1, 1)
        case 2, 1:
            return _Piece(by, f"{of.factor} {ones}", 1, 1)
        case 2, None:
            return _Piece(by, f"{by.transposed(ones)} {of.factor} {ones}", 0, 1)
        case 1, 0 | None:
            return _Piece(by, f"{by.transposed(ones)} {of.factor}", 0, 1)
    return None


def _operation(a: _Piece, op: ast.operator, b: _Piece) -> _Piece | None:
    by = a.by
    match op:
        case ast.Add():
            return _Piece(by, f"{a.text} + {b.text}", max(a.axes, b.axes), 0)
        case ast.Sub():
            return _Piece(by, f"{a.text} - {b.factor}", max(a.axes, b.axes), 0)
        case ast.Pow():
            exponent = f"{by.sign('∘')} {b.text}" if a.axes else b.text
            return _Piece(by, by.raised(a.base, exponent), a.axes, 2)
        case ast.Mult() if 0 in (a.axes, b.axes):
            negative = a.text.startswith("-")
            first = a.text if negative else a.factor
            return _Piece(by, f"{first} {by.sign(' ')} {b.factor}", max(a.axes, b.axes), 0 if negative else 1)
        case ast.Mult() if a.axes == b.axes:
            return _Piece(by, f"{a.entrywise} {by.sign('⊙')} {b.entrywise}", a.axes, 0)
        case ast.Mult() if (a.axes, b.axes) == (2, 1):
            return _Piece(by, f"{a.factor} {b.diagonal}", 2, 1)
        case ast.MatMult() if (a.axes, b.axes) == (1, 2):
            return _Piece(by, f"{b.turned} {a.factor}", 1, 1)
        case ast.MatMult() if a.axes == 1:
            return _Piece(by, f"{a.turned} {b.factor}", 0, 1)
        case ast.MatMult():
            return _Piece(by, f"{a.factor} {b.factor}", b.axes, 1)
    return None
