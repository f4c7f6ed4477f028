"""Derivations in LaTeX."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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
from ._page import conditions, in_order
from ._print import Letters, Text
from ._steps import CHANGED, Step, steps
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation

SMALL = "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi rho sigma tau upsilon phi chi psi omega"
LARGE = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
GREEK = frozenset(SMALL.split() + LARGE.split())
COMMANDS = frozenset(("exp", "log", "sin", "cos", "tanh", "max", "min"))
COMPARED = {"==": "=", "!=": r"\neq", "<=": r"\leq", ">=": r"\geq", "<": "<", ">": ">"}
# A right side that looks longer than this goes on in a second line, if it is a sum.
LONG = 75


def latex(derivation: Derivation, wrt: Collection[str] | None = None) -> str:
    r"""Formula, steps, gradients and side conditions, for the body of a document that loads amsmath.

    Args:
        derivation: what is shown.
        wrt: the tensors whose gradients are wanted; the gradients that their formulas name come along. All unless told.

    Raises:
        FormulaError: a name in ``wrt`` that has no gradient.
    """
    printer = printer_for(derivation)
    found = {
        name: list(steps(derivation.named, derivation.classes, derivation._adjoints[name], printer))
        for name in in_order(derivation, wrt)
    }
    formula = _formula(derivation, printer, [step for each in found.values() for step in each if step.rule == "read"])
    told: set[str] = set()
    gradients = [
        _gradient(derivation, name, [step for step in each if step.rule != "read"], told)
        for name, each in found.items()
    ]
    parts = [formula, _legend("".join([formula, *gradients]), printer.loss), *gradients]
    if about := conditions(derivation):
        items = "\n".join(rf"\item {in_text(sentence)}" for sentence in about)
        parts.append(f"\\noindent Side conditions:\n\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts)


class Latex(Text):
    r"""The printer in LaTeX: subscripts, fractions, `\sum`; one method per node, as in `Text`."""

    compared = COMPARED
    loss = "L"
    adjoints: frozenset[str] = frozenset()
    """Tensors that are gradients: ``dY`` is printed as ∂L/∂Y."""

    def statement(self, name: str, left: Indices, body: Expr) -> str:
        self.letters.statement(left, body)
        places = [self.letters[index] for index in left]
        above = self.adjoint(name[1:], places) if name in self.adjoints else self.access(name, places)
        return f"{above} = {self.expr(body)}"

    def access(self, name: str, places: Iterable[str]) -> str:
        inside = ",".join(named(place) if place == LEADING or place.isidentifier() else place for place in places)
        return f"{named(name)}_{{{inside}}}" if inside else named(name)

    def adjoint(self, name: str, places: Iterable[str]) -> str:
        return self.slope(self.loss, self.access(name, places))

    def slope(self, above: str, below: str) -> str:
        return rf"\frac{{\partial {above}}}{{\partial {below}}}"

    def inline(self, formula: str) -> str:
        if formula == "loss":
            return f"${self.loss}$"
        words = (named(word) if word == LEADING or word.isidentifier() else word for word in formula.split(" × "))
        return f"${' × '.join(words)}$".replace("×", r"\times").replace("·", r"\cdot")

    def summed(self, bound: Indices, body: str) -> str:
        return f"{self._under('sum', bound)} {body}" if bound else body

    def _under(self, command: str, bound: Indices) -> str:
        return rf"\{command}_{{{','.join(named(self.letters[index]) for index in bound)}}}"

    def term(self, term: Term) -> str:
        return self.term_with(term, "")

    def term_with(self, term: Term, last: str) -> str:
        number, divided = self._number(abs(term.coefficient))
        front = rf"\frac{{{number}}}{{{divided}}}" if divided else number if number != "1" else ""
        above = [(factor, exponent) for factor, exponent in term.factors if exponent > 0]
        below = [(factor, -exponent) for factor, exponent in term.factors if exponent < 0]
        body = self._factors(above)
        if below:
            # Gradients are fractions themselves, so they stand beside the fraction.
            outside = [pair for pair in above if self._is_adjoint(pair[0])]
            inside = [pair for pair in above if pair not in outside]
            over = self._within(inside)
            if front and not divided and not term.bound:
                over, front = self._product([front, *self._factors(inside)]), ""
            body = [*self._factors(outside), rf"\frac{{{over}}}{{{self._within(below)}}}"]
        product = self._product([*body, *([last] if last else [])])
        if term.bound:
            product = f"{self._under('sum', term.bound)} {product or '1'}"
        text = " ".join(part for part in (front, product) if part) or "1"
        return f"-{text}" if term.coefficient < 0 else text

    def _within(self, factors: list[tuple[Any, Fraction]]) -> str:
        """One half of a fraction, where a sum alone needs no parentheses."""
        match factors:
            case [(Expr() as alone, 1)]:
                return self.expr(alone)
        return self._product(self._factors(factors)) or "1"

    def _is_adjoint(self, node: Any) -> bool:
        return isinstance(node, Read) and node.tensor in self.adjoints

    def _factors(self, factors: list[tuple[Any, Fraction]]) -> list[str]:
        """Factors as text; what has no right end gets parentheses beside others."""
        if len(factors) == 1 and isinstance(factors[0][0], Where) and factors[0][1] == 1:
            return [self.atom(factors[0][0])]
        return [
            _closed(self._power(f, e)) if isinstance(f, Where) and e == 1 else self._power(f, e) for f, e in factors
        ]

    @staticmethod
    def _product(parts: list[str]) -> str:
        """Juxtaposed factors; a dot where a bare name would look like a function."""
        out = ""
        for part in parts:
            name = out.rsplit(" ", 1)[-1]
            called = part.startswith(r"\left") and re.fullmatch(r"[A-Za-z]|\\math\w+\{[^}]*\}|\\[A-Za-z]+", name)
            out += (r" \cdot " if called else " " if out else "") + part
        return out

    def _power(self, node: Any, exponent: Fraction) -> str:
        text = self.atom(node)
        if exponent == 1:
            return text
        plain = isinstance(node, Read | Value) and not self._is_adjoint(node)
        base = text if plain or isinstance(node, Expr | Compare | Delta) else _closed(text)
        return f"{base}^{{{exponent}}}"

    def atom(self, node: Any) -> str:
        match node:
            case Expr():
                return _closed(self.expr(node))
            case Value(at):
                text = self.affine(at)
                return text if len(at.terms) + (at.constant != 0) == 1 and _unit(at) else _closed(text)
            case Apply():
                return self._apply(node)
            case Compare() | Delta():
                return rf"\left[ {self.condition(node)} \right]"
            case Where():
                no = rf"{self.expr(node.no)} & \text{{otherwise}}"
                yes = rf"{self.expr(node.yes)} & \text{{if }} {self.condition(node.condition)}"
                return rf"\begin{{cases}} {yes} \\ {no} \end{{cases}}"
            case Power():
                return f"{self._base(node.base)}^{{{self.expr(node.exponent)}}}"
            case Reduce():
                return f"{self._under(node.kind, node.bound)} {_closed(self.expr(node.body))}"
        return super().atom(node)

    def _base(self, base: Expr) -> str:
        """What a power stands at, without parentheses where it is a plain entry."""
        match base.terms:
            case (Term(coefficient=1, factors=((Read() as read, 1),)),) if not self._is_adjoint(read):
                return self.read(read)
        return _closed(self.expr(base))

    def _apply(self, node: Apply) -> str:
        inside = ", ".join(self.expr(argument) for argument in node.arguments)
        if node.function == "sqrt":
            return rf"\sqrt{{{inside}}}"
        if node.function == "abs":
            return rf"\left| {inside} \right|"
        return f"{_function(node.function)} {_closed(inside)}"

    def read(self, node: Read) -> str:
        places = [self.place(place) for place in node.places]
        if node.tensor in self.adjoints:
            return self.adjoint(node.tensor[1:], places)
        name = node.tensor
        return self.access(name, places) if places or name not in self.letters.ranges else _upright(name)

    def place(self, place: Place) -> str:
        text = self.affine(place.at)
        return f"{_function(place.mode)}({text})" if place.mode else text

    def affine(self, at: Affine) -> str:
        return super().affine(at).replace("*", " ")

    def _integer(self, term: Index | SizeOf | Read) -> str:
        if isinstance(term, Index):
            return named(self.letters[term])
        if isinstance(term, SizeOf):
            return f"|{named(self.letters.size(term))}|"
        return self.read(term) if term.places else _upright(term.tensor)


def named(name: str) -> str:
    """A name of a tensor or an index: one letter as it is, a Greek letter where it spells one, else in one slant."""
    if name == LEADING:
        return r"\ldots"
    if len(name) == 1:
        return name
    if name in GREEK:
        return rf"\{name}"
    escaped = name.replace("_", r"\_")
    return rf"\mathit{{{escaped}}}"


def _upright(name: str) -> str:
    """A scalar tensor where it could be taken for an index."""
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}"


def _function(name: str) -> str:
    return rf"\{name}" if name in COMMANDS else rf"\operatorname{{{name}}}"


def _closed(text: str) -> str:
    return rf"\left( {text} \right)"


def _unit(at: Affine) -> bool:
    return all(coefficient == 1 for _, coefficient in at.terms) and at.constant >= 0


def printer_for(derivation: Derivation) -> type[Latex]:
    """The printer that knows which tensors of a derivation are gradients, and a letter for the loss."""

    class Printer(Latex):
        loss = "L" if derivation.program.loss == "L" else r"\mathcal{L}"
        adjoints = frozenset(f"d{name}" for name in (*derivation._adjoints, derivation.output))

    return Printer


# -- the document --------------------------------------------------------------------------------------------------


def _formula(derivation: Derivation, printer: type[Latex], read: Iterable[Step]) -> str:
    """The statements with their sums, and the shapes."""
    program = derivation.named
    names = program.taken
    text = printer(Letters(derivation.classes, names))
    rows = [_equation(text.statement(s.name, s.left, s.body), "") for s in program.statements]
    comments = "\n".join(f"% {line.strip()}" for line in program.text.splitlines() if line.strip())
    notes = dict.fromkeys(note for step in read for note in step.note.split("; ") if " is " in note)
    shapes = rf"\noindent where {in_text('; '.join(notes))}." if notes else ""
    return "\n".join(filter(None, [comments, _align(rows), shapes]))


def _legend(body: str, loss: str) -> str:
    """What the signs mean that occur."""
    signs = [rf"${loss}$ is the loss", r"$[\,\cdot\,]$ is $1$ where its condition holds and $0$ elsewhere"]
    if re.search(r"(?<!\\left)(?<!\\right)\|", body):
        signs.append("$|n|$ is the number of values of the index $n$")
    if r"\mathrm{" in body:
        signs.append("an upright name is a number that is given, not an index")
    if r"\right|_" in body:
        signs.append("a bar with a number marks the part of a gradient that comes through one occurrence")
    if r"\odot" in body or r"\circ" in body:
        signs.append(r"$\odot$ and $\circ$ work entry by entry")
    if r"\mathbf{1}" in body:
        signs.append(r"vectors are columns, and $\mathbf{1}$ is one of ones")
    return rf"\noindent Here {'; '.join(signs)}."


def _gradient(derivation: Derivation, name: str, found: list[Step], told: set[str]) -> str:
    """The steps to one gradient, its closed form and its matrix form; then in words what is not in ``told`` yet."""
    rows = list(_rows(found))
    above = printer_for(derivation)(Letters(derivation.classes, ())).adjoint(name, ())
    if not found:
        rows.append(_equation(f"{above} = 0", ""))
    matrix = derivation[name].matrix
    if matrix and (form := matrix_form(matrix, derivation)):
        rows.append(_equation(f"{above} = {form}", "matrix form"))
    words = []
    for step in found:
        notes = [note for note in step.note.split("; ") if note and note not in told]
        if step.rule not in ("collapse", "regroup"):
            told.update(notes)
        words += [f"{step.rule[0].upper()}{step.rule[1:]}: {in_text('; '.join(notes))}."] if notes else []
    lines = [rf"\noindent The gradient of ${named(name)}$:", _align(rows)]
    return "\n".join([*lines, rf"\noindent {' '.join(words)}"] if words else lines)


def _rows(found: list[Step]) -> Iterator[str]:
    """The rows of the steps. Of several occurrences each has a part of the gradient, marked by a bar and its number."""
    many = sum(step.rule == "collapse" for step in found) > 1
    entry, part = "", 0
    for step in found:
        if step.rule == "chain rule over entries":
            entry = step.after.split(" = ", 1)[0]
            yield _equation(step.after, step.rule)
        elif step.rule == "collapse":
            part += 1
            left = rf"\left. {entry} \right|_{{{part}}}" if many else entry
            if step.before != step.after:
                yield _equation(f"{left} = {step.before}", "")
                left = ""
            yield _equation(f"{left} = {step.after}", step.rule)
        elif step.rule in CHANGED:
            yield _equation(step.after, step.rule)
        elif step.rule == "regroup":
            if many:
                yield _equation(step.before, "")
            yield _equation(step.after, step.rule)
        else:
            yield _equation(f"{step.before} = {step.after}", step.rule.replace(" and ", ", "))


def _equation(equation: str, rule: str) -> str:
    """One row of an align environment, or several where a sum is long; ``rule`` beside the last."""
    left, right = equation.split(" = ", 1)
    lines = [""]
    for piece in _summands(right):
        if lines[-1] and _seen(f"{lines[-1]} {piece}") > LONG:
            lines.append(piece)
        else:
            lines[-1] += f" {piece}" if lines[-1] else piece
    rows = [f"{left.strip()} &= {lines[0]}".strip(), *(rf"&\quad {{}} {line}" for line in lines[1:])]
    return " \\\\\n".join(rows) + (rf" && \text{{{rule}}}" if rule else "")


def _summands(text: str) -> list[str]:
    """The pieces of a sum, each with the sign before it; nothing inside braces or parentheses is a piece."""
    pieces, depth, start = [], 0, 0
    for match in re.finditer(r"\{|\}|\\left|\\right|\\begin|\\end| (?=[+-] )", text):
        depth += {"{": 1, "}": -1, r"\left": 1, r"\right": -1, r"\begin": 1, r"\end": -1}.get(match[0], 0)
        if match[0] == " " and depth == 0:
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _seen(text: str) -> int:
    """About how many letters wide a formula is."""
    flat = re.sub(r"\\frac\{\\partial ([^}]*)\}", "", text)
    flat = re.sub(r"\\(left|right|begin|end|operatorname|mathit|frac|,|quad)", "", flat)
    return len(re.sub(r"\\[A-Za-z]+|[{}_^ ]", "", flat))


def _align(rows: Iterable[str]) -> str:
    body = " \\\\\n".join(rows)
    return f"\\begin{{align*}}\n{body}\n\\end{{align*}}"


TEXT = {
    "\\": r"\textbackslash{}",
    **{char: rf"\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"${char}$" for char in "<>|"},
    "×": r"$\times$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
    "∂": r"$\partial$",
}


def in_text(sentence: str) -> str:
    """A sentence as LaTeX text; what stands between dollars is mathematics."""
    pieces = re.split(r"(\$[^$]*\$)", sentence)
    for at in range(0, len(pieces), 2):  # between what is mathematics already
        plain = "".join(TEXT.get(char, char) for char in pieces[at])
        pieces[at] = re.sub(r"\*\*(\w+|\([^()]*\))", r"$^{\1}$", plain)
    return "".join(pieces)


# -- matrix form ---------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A piece of a matrix form. ``axes``: 0 a number, 1 a column, 2 a matrix.

    ``binds``: 3 what an exponent can stand at, 2 a power, 1 a matrix product, 0 a sum or a product entry by entry.
    """

    text: str
    axes: int
    binds: int

    @property
    def factor(self) -> str:
        return self.text if self.binds else _closed(self.text)

    @property
    def base(self) -> str:
        return self.text if self.binds == 3 else _closed(self.text)

    @property
    def turned(self) -> str:
        return rf"{self.base}^{{\top}}"


def matrix_form(text: str, derivation: Derivation) -> str | None:
    r"""Matrix notation of NumPy in LaTeX, ``X.T @ dY`` as ``X^{\top} \frac{\partial L}{\partial Y}``.

    Vectors are columns, a bold 1 is a column of ones, a dot in a circle multiplies entry by entry. None for what has no
    such form.
    """
    program, printer = derivation.program, printer_for(derivation)
    text_of = printer(Letters(derivation.classes, ()))
    tensors = {name: _Piece(named(name), axes, 3) for name, axes in program.ranks.items()}
    for name, axes in program.ranks.items():
        if f"d{name}" in printer.adjoints:
            tensors[f"d{name}"] = _Piece(text_of.adjoint(name, ()), axes, 2)
    piece = _piece(ast.parse(text, mode="eval").body, tensors)
    return piece.text if piece else None


def _piece(node: ast.AST, tensors: Mapping[str, _Piece]) -> _Piece | None:
    match node:
        case ast.Name(id=name):
            return tensors.get(name)
        case ast.Constant(value=value):
            return _Piece(str(value), 0, 3)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            of = _piece(operand, tensors)
            return of and _Piece(f"-{of.factor}", of.axes, 0)
        case ast.Attribute(value=value, attr="T"):
            of = _piece(value, tensors)
            return of and (_Piece(of.turned, 2, 2) if of.axes == 2 else of)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr="outer"), args=[left, right]):
            a, b = _piece(left, tensors), _piece(right, tensors)
            return _Piece(f"{a.factor} {b.turned}", 2, 1) if a and b else None
        case ast.Call(func=ast.Attribute(value=value, attr="sum"), keywords=keywords):
            of = _piece(value, tensors)
            axis = keywords[0].value.value if keywords and isinstance(keywords[0].value, ast.Constant) else None
            return of and _sum(of, axis)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Subscript(value=value)):  # A * v[:, None]
            a, b = _piece(left, tensors), _piece(value, tensors)
            return _Piece(rf"\operatorname{{diag}} {_closed(b.text)} {a.factor}", 2, 1) if a and b else None
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _piece(left, tensors), _piece(right, tensors)
            return _operation(a, op, b) if a and b else None
    return None


def _sum(of: _Piece, axis: object) -> _Piece | None:
    ones = r"\mathbf{1}"
    match of.axes, axis:
        case 2, 0:
            return _Piece(f"{of.turned} {ones}", 1, 1)
        case 2, 1:
            return _Piece(f"{of.factor} {ones}", 1, 1)
        case 2, None:
            return _Piece(rf"{ones}^{{\top}} {of.factor} {ones}", 0, 1)
        case 1, 0 | None:
            return _Piece(rf"{ones}^{{\top}} {of.factor}", 0, 1)
    return None


def _operation(a: _Piece, op: ast.operator, b: _Piece) -> _Piece | None:
    match op:
        case ast.Add():
            return _Piece(f"{a.text} + {b.text}", max(a.axes, b.axes), 0)
        case ast.Sub():
            return _Piece(f"{a.text} - {b.factor}", max(a.axes, b.axes), 0)
        case ast.Pow():
            exponent = rf"\circ {b.text}" if a.axes else b.text
            return _Piece(f"{a.base}^{{{exponent}}}", a.axes, 2)
        case ast.Mult() if 0 in (a.axes, b.axes):
            negative = a.text.startswith("-")
            first = a.text if negative else a.factor
            return _Piece(rf"{first} \, {b.factor}", max(a.axes, b.axes), 0 if negative else 1)
        case ast.Mult() if a.axes == b.axes:
            return _Piece(rf"{_entrywise(a)} \odot {_entrywise(b)}", a.axes, 0)
        case ast.Mult() if (a.axes, b.axes) == (2, 1):
            return _Piece(rf"{a.factor} \operatorname{{diag}} {_closed(b.text)}", 2, 1)
        case ast.MatMult() if (a.axes, b.axes) == (1, 2):
            return _Piece(f"{b.turned} {a.factor}", 1, 1)
        case ast.MatMult() if a.axes == 1:
            return _Piece(f"{a.turned} {b.factor}", 0, 1)
        case ast.MatMult():
            return _Piece(f"{a.factor} {b.factor}", b.axes, 1)
    return None


def _entrywise(piece: _Piece) -> str:
    """A factor of a product entry by entry: matrix products and sums in parentheses."""
    return piece.text if piece.binds >= 2 else _closed(piece.text)
