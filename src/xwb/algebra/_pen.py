"""How the small case is written: boxes of text for a terminal, LaTeX for a paper, MathML for a page; a pen for each."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from ._entries import Case, Factor, Node, Sum, Symbol, single
from ._latex import COMMANDS, named, printer_for
from ._mathml import APPLY, TIGHT, Mathml, bars, bracket, closed, drawn_cases, drawn_name, mrow, raised
from ._print import decimal

SUBSCRIPTS = str.maketrans("0123456789ijklmnop", "₀₁₂₃₄₅₆₇₈₉ᵢⱼₖₗₘₙₒₚ")
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
COMPARISONS = {"==": ("=", "="), "!=": ("≠", r"\neq"), "<=": ("≤", r"\leq"), ">=": ("≥", r"\geq")}
DOT, ENTRYWISE = ("·", r"\cdot"), ("⊙", r"\odot")

Rows: TypeAlias = list[list[Any]]
Powers: TypeAlias = Sequence[tuple[Factor, Fraction]]


# -- boxes -------------------------------------------------------------------------------------------------------------


class Box(NamedTuple):
    """Lines of one width; ``base`` is the line that stands in line with what is beside it."""

    lines: tuple[str, ...]
    base: int = 0

    @property
    def width(self) -> int:
        return len(self.lines[0])

    def framed(self, width: int, above: int, below: int) -> Box:
        """The box in the middle of a wider one, with so many lines above and below its base."""
        lines = [line.center(width) for line in self.lines]
        top, bottom = above - self.base, below - (len(lines) - 1 - self.base)
        return Box((" " * width,) * top + tuple(lines) + (" " * width,) * bottom, above)


def box(lines: Iterable[str], base: int = 0) -> Box:
    """Lines, padded to one width."""
    lines = list(lines)
    return Box(tuple(f"{line:<{max(map(len, lines))}}" for line in lines), base)


def beside(boxes: Sequence[Box], gap: int = 1) -> Box:
    """Boxes in a row, their bases in one line."""
    above = max(box.base for box in boxes)
    below = max(len(box.lines) - 1 - box.base for box in boxes)
    framed = [box.framed(box.width, above, below) for box in boxes]
    return Box(tuple((" " * gap).join(lines) for lines in zip(*(box.lines for box in framed), strict=True)), above)


def _table(rows: Sequence[Sequence[Box]]) -> Box:
    widths = [max(box.width for box in column) for column in zip(*rows, strict=True)]
    gap = 3 if any(" " in box.lines[0] for row in rows for box in row) else 2
    lines: list[str] = []
    for row in rows:
        above = max(box.base for box in row)
        below = max(len(box.lines) - 1 - box.base for box in row)
        lines += beside([b.framed(w, above, below) for b, w in zip(row, widths, strict=True)], gap).lines
    return box(lines, (len(lines) - 1) // 2)


def _fenced(rows: Sequence[Sequence[Box]], opens: bool = True, closes: bool = True) -> Box:
    """A matrix in parentheses, or some of its columns: dots then stand for the others."""
    lines, base = _table(rows)
    dots = ["⋯" if line == base else " " for line in range(len(lines))]
    left = _fence(("(", "⎛", "⎜", "⎝"), len(lines)) if opens else dots
    right = _fence((")", "⎞", "⎟", "⎠"), len(lines)) if closes else dots
    return Box(tuple(f"{a} {line} {b}" for a, line, b in zip(left, lines, right, strict=True)), base)


def _fence(signs: tuple[str, str, str, str], height: int) -> list[str]:
    alone, top, middle, bottom = signs
    return [alone] if height == 1 else [top, *[middle] * (height - 2), bottom]


def framed(inner: Box) -> Box:
    """A box with a frame around it."""
    edge = "─" * (inner.width + 2)
    lines = (f"┌{edge}┐", *(f"│ {line} │" for line in inner.lines), f"└{edge}┘")
    return Box(lines, inner.base + 1)


class Piece(NamedTuple):
    """A part of an equation in all forms; the text in blocks, between which a line may end.

    ``listed``: the blocks are equations of their own, one for each entry.
    """

    blocks: tuple[Box, ...]
    latex: str
    mathml: str
    listed: bool = False


def joined(*pieces: Piece) -> Piece:
    """Pieces side by side that no line end takes apart."""
    blocks = pieces[0].blocks
    for piece in pieces[1:]:
        blocks = (*blocks[:-1], beside([blocks[-1], piece.blocks[0]]), *piece.blocks[1:])
    latex, mathml = ([*filter(None, parts)] for parts in zip(*((p.latex, p.mathml) for p in pieces), strict=True))
    return Piece(blocks, " ".join(latex), " ".join(mathml))


def matrix_text(shape: Sequence[int], entries: Mapping[tuple[int, ...], str], room: int) -> list[Box]:
    """A tensor drawn with parentheses, in blocks of columns of at most ``room`` columns of text where that can be."""
    rows = _nested(shape, (), lambda at: box([entries[at]]), _fenced)
    blocks: list[list[Sequence[Box]]] = []
    for column in zip(*rows, strict=True):
        if blocks and _fenced(list(zip(*blocks[-1], column, strict=True))).width <= room:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    last = len(blocks) - 1
    return [_fenced(list(zip(*block, strict=True)), i == 0, i == last) for i, block in enumerate(blocks)]


def matrix_latex(shape: Sequence[int], entries: Mapping[tuple[int, ...], str]) -> str:
    """A tensor as a matrix, of matrices where it has more than two axes."""
    return _pmatrix(_nested(shape, (), entries.__getitem__, _pmatrix))


def matrix_mathml(shape: Sequence[int], entries: Mapping[tuple[int, ...], str]) -> str:
    """A tensor as a matrix, of matrices where it has more than two axes."""
    return _mtable(_nested(shape, (), entries.__getitem__, _mtable))


def _nested(shape: Sequence[int], at: tuple[int, ...], cell: Callable[[tuple[int, ...]], Any], fence: Any) -> Rows:
    """Rows of a tensor's cells: one row where the number of axes is odd; cells are fenced rows of the inner axes."""
    outer, inner = (shape[:1], shape[1:]) if len(shape) % 2 else (shape[:2], shape[2:])

    def filled(*last: int) -> Any:
        there = (*at, *last)
        return fence(_nested(inner, there, cell, fence)) if inner else cell(there)

    if len(outer) == 1:
        return [[filled(j) for j in range(outer[0])]]
    return [[filled(i, j) for j in range(outer[1])] for i in range(outer[0])]


def _pmatrix(rows: Sequence[Sequence[str]]) -> str:
    inside = r" \\ ".join(" & ".join(row) for row in rows)
    return rf"\begin{{pmatrix}} {inside} \end{{pmatrix}}"


def _mtable(rows: Sequence[Sequence[str]]) -> str:
    inside = "".join(f"<mtr>{''.join(f'<mtd>{mrow(cell)}</mtd>' for cell in cells)}</mtr>" for cells in rows)
    return closed(f"<mtable>{inside}</mtable>")


# -- the pens ----------------------------------------------------------------------------------------------------------


class Pen:
    """Writes symbols and expressions: as text for a terminal; `TexPen` and `MathPen` draw them.

    ``named`` are parts of expressions that are written as one symbol: sums that were given a letter, and the values of
    statements. ``formulas`` are those within the sentence that was written last.
    """

    drawn = False
    """Whether fractions and exponents are drawn."""

    def __init__(self, case: Case) -> None:
        self.case = case
        names = list(case.program.ranks)
        taken = Counter(name.lower() for name in names)
        # The entries of X are x, unless that is another tensor.
        self.small = {name: name.lower() if taken[name.lower()] == 1 else name for name in names}
        self.named: dict[Factor, str] = {}
        self.formulas: list[str] = []
        self.loss = self("L" if printer_for(case.derivation).loss == "L" else "ℒ", printer_for(case.derivation).loss)

    def __call__(self, text: str, latex: str, mathml: str | None = None) -> str:
        """What this pen writes; in MathML what stands in the text, unless told."""
        return text

    def math(self, written: str) -> str:
        """A symbol in a sentence."""
        self.formulas.append(written)
        return written

    def said(self, tensor: str) -> str:
        """A tensor in a sentence."""
        return self.math(self.name(tensor))

    def name(self, tensor: str) -> str:
        return tensor

    def entry(self, tensor: str, at: Iterable[str]) -> str:
        """An entry; the axes of a small tensor need no comma between them."""
        at = list(at)
        if not at:
            return self.name(tensor)
        return self.subscript(self.small[tensor], at, "," if max(self.case.shape[tensor]) > 9 else "")

    def subscript(self, name: str, at: Sequence[str], comma: str = "") -> str:
        return f"{name}{comma.join(at).translate(SUBSCRIPTS)}"

    def at(self, tensor: str, at: tuple[int, ...]) -> str:
        """An entry, counted from 1."""
        return self.entry(tensor, (str(i + 1) for i in at))

    def by(self, above: str, below: str) -> str:
        """A derivative."""
        return f"∂{above}/∂{below}"

    def d(self, below: str) -> str:
        """The derivative of the loss."""
        return self.by(self.loss, below)

    def gradient(self, tensor: str) -> str:
        return self.d(self.name(tensor))

    def symbol(self, symbol: Symbol) -> str:
        entry = self.at(symbol.tensor, symbol.at)
        return self.d(entry) if symbol.adjoint else entry

    def paren(self, inner: str) -> str:
        return f"({inner})"

    def fraction(self, top: str, bottom: str) -> str:
        return f"{top}/{bottom}"

    def root(self, inner: str) -> str:
        return f"sqrt({inner})"

    def raised(self, base: str, exponent: str) -> str:
        """A power whose exponent is no number."""
        return f"{base}^({exponent})"

    def magnitude(self, inner: str) -> str:
        return f"abs({inner})"

    def bracket(self, condition: str) -> str:
        return f"[{condition}]"

    def cases(self, condition: str, yes: str, no: str) -> str:
        return f"where({condition}, {yes}, {no})"

    def compared(self, head: str) -> str:
        return COMPARISONS.get(head, (head, head))[0]

    def call(self, head: str, inner: str) -> str:
        return f"{head}{self.paren(inner)}"

    def transposed(self, inner: str) -> str:
        return f"{inner}ᵀ"

    def framed(self, inner: str) -> str:
        """With a frame around it; text is framed in its box."""
        return inner

    def sum(self, expr: Sum) -> str:
        out = ""
        for coefficient, product in expr.terms:
            sign = "-" if coefficient < 0 else "+"
            term = self.term(abs(coefficient), product)
            out += f" {sign} {term}" if out else f"-{term}" if coefficient < 0 else term
        return out or "0"

    def term(self, coefficient: Fraction, product: Powers) -> str:
        """A product; a gradient stands beside the fraction, as it is one itself."""
        above = [(f, e) for f, e in product if e > 0]
        below = [(f, -e) for f, e in product if e < 0]
        slopes = [pair for pair in above if isinstance(pair[0], Symbol) and pair[0].adjoint] if below else []
        top = self.product([pair for pair in above if pair not in slopes])
        bottom = self.product(below)
        words = [self.number(coefficient)] if coefficient != 1 or not (top or slopes or below) else []
        words += [self.product(slopes)] if slopes else []
        if not below:
            return " ".join([*words, top] if top else words)
        if self.drawn:
            return " ".join([*words, self.fraction(top or "1", bottom)])
        bottom = bottom if len(below) == 1 else f"({bottom})"
        if slopes and not top:
            return f"{' '.join(words)} / {bottom}"
        return " ".join([*words, f"{top or 1}/{bottom}"])

    def number(self, value: Fraction) -> str:
        if value.denominator == 1 or (value.denominator > 12 and decimal(value)):
            return decimal(value)
        return self.fraction(str(value.numerator), str(value.denominator))

    def product(self, factors: Powers) -> str:
        """Factors side by side, without a space between entries of tensors with names of one letter."""
        out, before = "", False
        for factor, exponent in factors:
            short = isinstance(factor, Symbol) and not factor.adjoint and len(factor.tensor) == 1 and factor.at != ()
            out += f"{' ' if out and not (before and short) else ''}{self.power(factor, exponent)}"
            before = short
        return out

    def power(self, factor: Factor, exponent: Fraction) -> str:
        if exponent == Fraction(1, 2):
            return self.root(self.argument(single(factor)))
        base = self.factor(factor)
        if exponent == 1:
            return base
        if isinstance(factor, Node) and factor.head == "**":
            base = self.paren(base)
        if self.drawn:
            return self.raised(base, str(exponent))
        return f"{base}{str(exponent).translate(SUPERSCRIPTS)}" if exponent.denominator == 1 else f"{base}^({exponent})"

    def argument(self, expr: Sum) -> str:
        """A sum where it needs no parentheses."""
        return self.named.get(expr) or self.sum(expr)

    def factor(self, factor: Factor) -> str:
        if factor in self.named:
            return self.named[factor]
        match factor:
            case Symbol():
                return self.symbol(factor)
            case Sum():
                value = factor.number
                plain = value is not None and value >= 0 and value.denominator == 1
                return self.sum(factor) if plain else self.paren(self.sum(factor))
            case Node():
                return self.node(factor.head, factor.arguments)

    def node(self, head: str, arguments: Sequence[Sum]) -> str:
        inner = [self.argument(argument) for argument in arguments]
        match head:
            case "max=" | "min=":
                return self.bracket(f"{inner[0]} = {self.factor(Node(head[:-1], tuple(arguments[1:])))}")
            case "where":
                if isinstance(condition := arguments[0].terms[0][1][0][0], Node):
                    inner[0] = self.comparison(condition.head, condition.arguments)
                return self.cases(*inner)
            case "**":
                return self.raised(self.paren(inner[0]), inner[1])
            case "abs":
                return self.magnitude(inner[0])
            case _ if not head[0].isalpha():
                return self.bracket(self.comparison(head, arguments))
        return self.call(head, ", ".join(inner))

    def comparison(self, head: str, arguments: Sequence[Sum]) -> str:
        left, right = (self.argument(argument) for argument in arguments)
        return f"{left} {self.compared(head)} {right}"

    # -- matrix notation -------------------------------------------------------------------------------------------

    def notation(self, source: str | None) -> str:
        """Matrix notation, ``dY @ W.T``, as it is written by hand; empty where hands have no notation for it."""
        try:
            return self._notation(ast.parse(source, mode="eval").body)[0] if source else ""
        except LookupError:
            return ""

    def _notation(self, node: ast.expr) -> tuple[str, int, int]:
        """The notation, its number of axes, and how it binds: 2 an atom, 1 a product, 0 a sum."""
        match node:
            case ast.Name(id=name):
                ranks = self.case.program.ranks
                return (self.name(name), ranks[name], 2) if name in ranks else (self.d(name[1:]), ranks[name[1:]], 2)
            case ast.Constant(value=value):
                return str(value), 0, 2
            case ast.Attribute(value=value, attr="T"):
                inner, rank, _ = self._notation(value)
                plain = isinstance(value, ast.Name) and value.id in self.case.program.ranks
                return self.transposed(inner if plain else self.paren(inner)), rank, 2
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner, rank, binds = self._notation(operand)
                return f"-{inner if binds else self.paren(inner)}", rank, 0
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                (a, rank, _), (b, other, binds) = self._notation(left), self._notation(right)
                minus = isinstance(op, ast.Sub)
                return f"{a} {'-' if minus else '+'} {self.paren(b) if minus and not binds else b}", max(rank, other), 0
            case ast.BinOp(left=left, op=ast.MatMult() | ast.Mult() as op, right=right):
                (a, rank, tied), (b, other, binds) = self._notation(left), self._notation(right)
                a, b = a if tied else self.paren(a), b if binds else self.paren(b)
                if isinstance(op, ast.Mult) and rank and other:
                    return f"{a} {self(*ENTRYWISE)} {b}", max(rank, other), 1
                if isinstance(op, ast.Mult):
                    return f"{a} {b}", max(rank, other), 1
                sign = self(" · ", r" \cdot ") if rank == other == 1 else "" if len(a) == len(b) == 1 else " "
                return f"{a}{sign}{b}", rank + other - 2, 1
        raise LookupError(node)


class TexPen(Pen):
    """Writes LaTeX."""

    drawn = True

    def __call__(self, text: str, latex: str, mathml: str | None = None) -> str:
        return latex

    def math(self, written: str) -> str:
        return f"${super().math(written)}$"

    def name(self, tensor: str) -> str:
        return named(tensor)

    def subscript(self, name: str, at: Sequence[str], comma: str = "") -> str:
        return f"{self.name(name)}_{{{','.join(at)}}}"

    def by(self, above: str, below: str) -> str:
        return self.fraction(rf"\partial {above}", rf"\partial {below}")

    def paren(self, inner: str) -> str:
        return rf"\left({inner}\right)"

    def fraction(self, top: str, bottom: str) -> str:
        return rf"\frac{{{top}}}{{{bottom}}}"

    def root(self, inner: str) -> str:
        return rf"\sqrt{{{inner}}}"

    def raised(self, base: str, exponent: str) -> str:
        return f"{base}^{{{exponent}}}"

    def magnitude(self, inner: str) -> str:
        return rf"\left|{inner}\right|"

    def cases(self, condition: str, yes: str, no: str) -> str:
        return rf"\begin{{cases}} {yes} & {condition} \\ {no} & \text{{else}} \end{{cases}}"

    def compared(self, head: str) -> str:
        return COMPARISONS.get(head, (head, head))[1]

    def call(self, head: str, inner: str) -> str:
        plain = head.removesuffix("'")
        name = rf"\{head}" if head in COMMANDS else rf"\operatorname{{{plain}}}{head[len(plain) :]}"
        return f"{name}{self.paren(inner)}"

    def transposed(self, inner: str) -> str:
        return f"{inner}^T"

    def framed(self, inner: str) -> str:
        return rf"\boxed{{{inner}}}"


class MathPen(Pen):
    """Writes MathML."""

    drawn = True

    def __call__(self, text: str, latex: str, mathml: str | None = None) -> str:
        return text if mathml is None else mathml

    def math(self, written: str) -> str:
        return f"<math>{mrow(super().math(written))}</math>"

    def name(self, tensor: str) -> str:
        return drawn_name(tensor)

    def subscript(self, name: str, at: Sequence[str], comma: str = "") -> str:
        return f"<msub>{self.name(name)}{mrow(','.join(at), tight=True)}</msub>"

    def by(self, above: str, below: str) -> str:
        return self.fraction(f"<mi>∂</mi>{above}", f"<mi>∂</mi>{below}")

    def paren(self, inner: str) -> str:
        return closed(inner)

    def fraction(self, top: str, bottom: str) -> str:
        return f"<mfrac>{mrow(top)}{mrow(bottom)}</mfrac>"

    def root(self, inner: str) -> str:
        return f"<msqrt>{mrow(inner)}</msqrt>"

    def raised(self, base: str, exponent: str) -> str:
        return raised(base, exponent)

    def magnitude(self, inner: str) -> str:
        return bars(inner, stretchy=True)

    def bracket(self, condition: str) -> str:
        return bracket(condition)

    def cases(self, condition: str, yes: str, no: str) -> str:
        return drawn_cases((yes, mrow(condition)), (no, "<mtext>else</mtext>"))

    def compared(self, head: str) -> str:
        return Mathml.compared[head]

    def call(self, head: str, inner: str) -> str:
        plain = head.removesuffix("'")
        name = f"<mi>{plain}</mi>" if plain == head else f"<msup><mi>{plain}</mi><mo{TIGHT}>′</mo></msup>"
        return f"<mrow>{name}{APPLY}{closed(inner)}</mrow>"

    def transposed(self, inner: str) -> str:
        return raised(inner, f"<mo{TIGHT}>⊤</mo>")

    def framed(self, inner: str) -> str:
        return f'<mrow style="border:1px solid;padding:.4em .5em">{mrow(inner)}</mrow>'
