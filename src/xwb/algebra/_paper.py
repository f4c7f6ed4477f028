"""The small case on paper: every entry written out, in the order and numbering of Johnson's notes (source 004)."""

from __future__ import annotations

import ast
import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ._entries import Case, Factor, Node, Sum, Symbol, single
from ._expr import Expr, Term, Value, walk
from ._forms import matrix
from ._latex import in_text, named, printer_for
from ._mathml import Formula, displayed, drawn_name, mathml_printer, mrow, sentence
from ._pen import (
    DOT,
    SUBSCRIPTS,
    Box,
    MathPen,
    Pen,
    Piece,
    TexPen,
    beside,
    box,
    framed,
    joined,
    matrix_latex,
    matrix_mathml,
    matrix_text,
)
from ._print import Letters
from ._read import Statement
from ._tree import LEADING
from ._wrap import wrapped

if TYPE_CHECKING:
    from ._derivation import Derivation

WIDTH = 100
INDENT = 2
ROOM = WIDTH - INDENT - 5  # columns of an equation beside its number
LINE = ROOM - 14  # columns of a sum, which stands beside a left side
REPEATED = 16  # columns from which on a sum that is repeated is given a letter
LISTED = 24  # columns from which on an entry may stand on a line of its own
DETAILED = 12  # entries of a gradient derived one by one; of more, only the first few
FEW = 4

ARROW, TIMES = ("⇒", r"\Rightarrow"), ("×", r"\times")
NOTES = {
    "erf'": ("erf'(x) = 2 exp(-x²)/sqrt(π).", r"$\operatorname{erf}'(x) = 2 e^{-x^2} / \sqrt{\pi}$."),
    "gelu'": (
        "gelu'(x) = (1 + erf(x/sqrt(2)))/2 + x exp(-x²/2)/sqrt(2π).",
        r"$\operatorname{gelu}'(x) = \frac{1}{2} (1 + \operatorname{erf}(x / \sqrt{2})) + x e^{-x^2/2} / \sqrt{2\pi}$.",
    ),
}

At: TypeAlias = tuple[int, ...]
Written: TypeAlias = Callable[[Pen], str]


class Equation(NamedTuple):
    """A numbered equation: lines of text of one width, LaTeX, a row of MathML; all without the number."""

    number: int
    text: tuple[str, ...]
    latex: str
    mathml: str = ""


class Sentence(NamedTuple):
    """What stands between equations."""

    text: str
    latex: str
    html: str = ""


class Paper:
    """Numbered equations of a small case, with the sentences between them; `Derivation.on_paper` makes it.

    ``str(paper)`` is a page for the terminal.
    """

    def __init__(self, parts: Sequence[Sentence | Equation], case: Case) -> None:
        self._parts = tuple(parts)
        self._case = case
        self.equations = tuple(part for part in parts if isinstance(part, Equation))

    def latex(self) -> str:
        """The page in LaTeX, to be put into a document that loads amsmath."""
        widest = max((size for shape in self._case.shape.values() for size in shape), default=0)
        out = [r"\setcounter{MaxMatrixCols}{64}"] if widest > 10 else []
        group: list[Equation] = []
        for part, following in itertools.pairwise((*self._parts, None)):
            if isinstance(part, Sentence):
                out.append(part.latex)
            elif part is not None:
                group.append(part)
                if not (isinstance(following, Equation) and following.latex.startswith("=")):
                    out.append(_displayed(group))
                    group = []
        return "\n\n".join(out)

    def html(self) -> str:
        """The page as a fragment of HTML, its equations in MathML."""
        out = []
        for part in self._parts:
            if isinstance(part, Sentence):
                out.append(f"<p>{part.html}</p>")
                continue
            more = " more" if part.latex.startswith("=") else ""
            shown = displayed([Formula("", part.latex, part.mathml)]) if part.mathml else ""
            box = f'<div class="formula scroll{more}">{shown}</div>'
            out.append(f'<div class="equation">{box}<span class="muted">({part.number})</span></div>')
        return "\n".join(out)

    def __str__(self) -> str:
        widest = max((len(line) for equation in self.equations for line in equation.text), default=0)
        column = min(INDENT + widest + 2, WIDTH - 5)
        parts = []
        for part in self._parts:
            if isinstance(part, Sentence):
                parts.append(textwrap.fill(part.text, WIDTH).replace("\xa0", " "))
                continue
            lines = [f"{' ' * INDENT}{line}" for line in part.text]
            middle = (len(lines) - 1) // 2
            lines[middle] = f"{lines[middle]:<{column}}{f'({part.number})':>5}"
            parts.append("\n".join(line.rstrip() for line in lines))
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return f"<{len(self.equations)} equations of {self._case.program.text}>"


def _displayed(group: Sequence[Equation]) -> str:
    """Equations in display; those that go on from the first are aligned at their equality signs."""
    if len(group) == 1:
        return rf"\[ {group[0].latex} \tag{{{group[0].number}}} \]"
    lines = [group[0].latex.replace(" = ", " &= ", 1), *(f"&{equation.latex}" for equation in group[1:])]
    tagged = [rf"  {line} \tag{{{equation.number}}}" for line, equation in zip(lines, group, strict=True)]
    return "\n".join([r"\begin{align*}", " \\\\\n".join(tagged), r"\end{align*}"])


def on_paper(derivation: Derivation, sizes: Mapping[str, Any]) -> Paper:
    """The page for one small case.

    Args:
        derivation: the formula.
        sizes: of its indices, by letter; integer inputs as values, ``k=[0, 2, 1]``; the shape of an input, as a tuple,
            where letters do not say it. ``...`` stands for one axis.

    Raises:
        FormulaError: a size or the values of an integer input are missing, do not fit, or are too large to write out.
    """
    return _Writer(Case(derivation.whole, sizes)).page()


class _Writer:
    """Writes the page from top to bottom."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.derivation = case.derivation
        self.program = case.program
        self.output = case.program.output
        self.pens = self.text, self.tex, self.drawn = Pen(case), TexPen(case), MathPen(case)
        self.parts: list[Sentence | Equation] = []
        self.count = 0
        self.indent = 0  # of equations that go on from the one before
        self.valued: dict[str, int] = {}  # the number of the equation with the entries of a value
        self.gradients: dict[str, Piece] = {}  # drawn once, for every dot product
        self.shown: list[Sum] = []
        entries = set(self.text.small.values())
        self.letter = next(letter for letter in (*"srqtuvabcdefghkopwxyz", "s_") if letter not in entries)
        self.lettered = 0

    def page(self) -> Paper:
        """All of it, as far as there are gradients."""
        self.forward()
        reached = [name for name in self.case.order if self.case.readers(name)]
        if reached:
            first, *others = reached
            self.given()
            self.chain_rule(reached)
            self.one_by_one(first)
            self.together(first)
            for name in others:
                self.another(name, also=name != others[0])
        self.unreached([name for name in self.case.order if name not in reached])
        self.notes()
        return Paper(self.parts, self.case)

    # -- sentences and equations -----------------------------------------------------------------------------------

    def say(self, written: Written) -> None:
        for pen in self.pens:
            pen.formulas.clear()
        text, latex, shown = map(written, self.pens)
        self.parts.append(Sentence(text, latex, sentence(shown, self.text.formulas, self.tex.formulas)))

    def word(self, written: Written) -> Piece:
        """A formula, wrapped where it is too long for a line."""
        return Piece((box(wrapped(written(self.text), LINE)),), written(self.tex), written(self.drawn))

    def boxed(self, piece: Piece) -> Piece:
        return Piece(tuple(map(framed, piece.blocks)), self.tex.framed(piece.latex), self.drawn.framed(piece.mathml))

    def equals(self, piece: Piece) -> Piece:
        return joined(self.word(lambda w: "="), piece)

    def define(self, left: Written, right: Piece, *more: Piece) -> None:
        """An equation with a left side. A list of entries has a left side for each of them."""
        lead = self.word(left)
        self.indent = lead.blocks[0].width + 1
        if right.listed:
            self.number([Piece(right.blocks, f"{lead.latex} = {right.latex}", f"{lead.mathml} = {right.mathml}")])
        else:
            self.number([joined(lead, self.equals(right)), *more])

    def go_on(self, right: Piece, *more: Piece) -> None:
        """An equation that goes on from the one before, below its equality sign."""
        if right.listed:
            self.number([Piece(right.blocks, f"= {right.latex}", f"= {right.mathml}")])
        else:
            self.number([self.equals(right), *more], self.indent)

    def number(self, pieces: Sequence[Piece], indent: int = 0, apart: bool = False) -> None:
        """The next equation; its blocks fill lines one after the other."""
        gap = 3 if apart else 1
        rows: list[list[Box]] = []
        for block in (block for piece in pieces for block in piece.blocks):
            if rows and indent + sum(b.width + gap for b in rows[-1]) + block.width <= ROOM:
                rows[-1].append(block)
            else:
                rows.append([block])
        lines = [f"{' ' * indent}{line}" for row in rows for line in beside(row, gap).lines]
        self.count += 1
        latex = (r" \quad " if apart else " ").join(piece.latex for piece in pieces)
        mathml = ('<mspace width="1.5em"></mspace>' if apart else " ").join(piece.mathml for piece in pieces)
        self.parts.append(Equation(self.count, box(lines or [""]).lines, latex, mathml))

    # -- tensors written out ---------------------------------------------------------------------------------------

    def grid(
        self, shape: Sequence[int], entries: Mapping[At, Sum], label: Callable[[Pen, At], str], left: str = "∂L/∂X"
    ) -> Piece:
        """A tensor as a matrix, of matrices where it has more than two axes; a number as itself.

        Where that is too wide for the page, the text has a line for each entry instead, which ``label`` begins.
        ``left`` is what stands beside the matrix.
        """
        self.shown += entries.values()
        text, latex, mathml = ({at: pen.sum(entry) for at, entry in entries.items()} for pen in self.pens)
        if not shape:
            return self.word(lambda w: w.sum(entries[()]))
        room = ROOM - len(left) - 3
        blocks = matrix_text(shape, text, room)
        broken = len(blocks) > 3 or len(blocks) == shape[-1] > 1
        long = max(map(len, text.values())) > LISTED
        if max(block.width for block in blocks) > room or (broken and long):
            lines: list[str] = []
            for at in (at for at, entry in entries.items() if entry.terms):
                head = f"{label(self.text, at)} = "
                first, *more = wrapped(text[at], ROOM - len(head))
                lines += [head + first, *(" " * len(head) + line for line in more)]
            if not all(entry.terms for entry in entries.values()):
                lines.append("all others are 0")
            blocks = [box(lines)]
            return Piece(tuple(blocks), matrix_latex(shape, latex), matrix_mathml(shape, mathml), listed=True)
        return Piece(tuple(blocks), matrix_latex(shape, latex), matrix_mathml(shape, mathml))

    def letters_of(self, name: str) -> Piece:
        """A tensor, an entry a letter."""
        entries = {at: self.case.entry(name, at) for at in self.case.entries(name)}
        return self.grid(self.case.shape[name], entries, lambda w, at: w.at(name, at))

    def gradient_of(self, name: str) -> Piece:
        """The derivative of the loss by every entry, as a symbol."""
        if name not in self.gradients:
            entries = {at: single(Symbol(name, at, True)) for at in self.case.entries(name)}
            self.gradients[name] = self.grid(self.case.shape[name], entries, lambda w, at: w.d(w.at(name, at)))
        return self.gradients[name]

    def gradient_entries(self, name: str) -> Piece:
        """The derivative of the loss by every entry, worked out."""
        entries = {at: self.case.gradient(name, at) for at in self.case.entries(name)}
        return self.grid(self.case.shape[name], entries, lambda w, at: w.d(w.at(name, at)), self.text.gradient(name))

    def slopes(self, above: str, name: str, at: At) -> Piece:
        """The derivative of every entry of a value by one entry."""
        below = self.text.at(name, at)
        entries = {there: self.case.slope(above, there, Symbol(name, at)) for there in self.case.entries(above)}
        return self.grid(
            self.case.shape[above], entries, lambda w, there: w.by(w.at(above, there), w.at(name, at)),
            self.text.by(above, below),
        )  # fmt: skip

    # -- the forward pass ------------------------------------------------------------------------------------------

    def forward(self) -> None:
        """The formula, its inputs, the entries of its values."""
        shape, inputs = self.case.shape, self.program.inputs
        statements = self.program.text.replace(";", "\n").splitlines()
        formula = "; ".join(" ".join(line.split()) for line in statements if line.strip())
        of = " for " if self.case.letters else ""
        typed = rf"\texttt{{{in_text(formula)}}}", f"<code>{escape(formula)}</code>"
        self.say(lambda w: w(formula, *typed) + of + self.sizes(w))
        tensors = [name for name in inputs if shape[name]]
        numbers = [name for name in inputs if not shape[name]]
        known = [name for name in tensors if name in self.case.known]
        more = f"; the values of {_and(known)} count from 0, so 0 stands for the first" if known else ""
        if numbers:
            more += f"; {_and(numbers)} {'is a number' if len(numbers) == 1 else 'are numbers'}"
        nodes = [node for statement in self.program.statements for node in walk(statement.body)]
        if any(isinstance(node, Value) and node.free for node in nodes):
            more += "; as numbers, indices count from 0"
        if tensors:
            self.say(lambda w: f"The forward pass in terms of the elements of the inputs, counted from 1{more}:")
            self.number([self.side_by_side(name) for name in tensors], apart=True)
        for statement in self.program.statements:
            self.value(statement)

    def side_by_side(self, name: str) -> Piece:
        return joined(self.word(lambda w: f"{w.name(name)} ="), self.letters_of(name))

    def sizes(self, w: Pen) -> str:
        """``n = 2, d = 2``."""
        return ", ".join(
            w.math(w(f"{letter}\xa0=\xa0{size}", f"{named(letter)} = {size}", f"{drawn_name(letter)} = {size}"))
            + (f" in {w.said(name)}" if len(sizes) > 1 else "")
            for letter, sizes in self.case.letters.items()
            for size, name in sizes.items()
        )

    def value(self, statement: Statement) -> None:
        """A statement, and what it gives for every entry."""
        name, values = statement.name, self.case.values[statement.name]
        letters = self.give_letters(list(values.values()))
        grid = self.grid(self.case.shape[name], values, lambda w, at: w.at(name, at), name)
        source = self.in_matrices(statement)
        if self.text.notation(source):
            self.define(lambda w: w.name(name), self.word(lambda w: w.notation(source)))
            self.go_on(grid)
        else:
            self.number([self.index_formula(name, statement)])
            self.define(lambda w: w.name(name), grid)
        self.valued[name] = self.count
        if letters:
            self.say(lambda w: "where")
            self.number([self.letter_of(inner) for inner in letters], apart=True)
        for at, value in values.items():
            match value.terms:
                case ((1, ((Node() as node, 1),)),):  # such as tanh(…), in whose slope its value stands
                    for pen in self.pens:
                        pen.named.setdefault(node, pen.at(name, at))

    def give_letters(self, values: Sequence[Sum]) -> list[Sum]:
        """Letters for the sums that stand in the values more than once, such as the denominator of a softmax."""
        times = Counter(inner for value in values for inner in _sums(value))
        found: list[Sum] = []
        for inner in sorted(times, key=lambda inner: inner.size):
            new = times[inner] > 1 and len(inner.terms) > 1 and inner not in self.text.named
            if new and len(self.text.sum(inner)) >= REPEATED:
                self.lettered += 1
                number = str(self.lettered)
                self.text.named[inner] = f"{self.letter}{number.translate(SUBSCRIPTS)}"
                self.tex.named[inner] = f"{self.letter}_{{{number}}}"
                self.drawn.named[inner] = f"<msub>{drawn_name(self.letter)}<mn>{number}</mn></msub>"
                found.append(inner)
        return found

    def letter_of(self, inner: Sum) -> Piece:
        return self.word(lambda w: f"{w.named[inner]} = {w.sum(inner)}")

    def in_matrices(self, statement: Statement) -> str | None:
        """A statement in matrix notation; a term with fewer axes is added to every row."""
        out = ""
        for term in statement.body.terms:
            axes = tuple(index for index in statement.left if index in term.free)
            aligned = axes == statement.left[len(statement.left) - len(axes) :]
            if not aligned or not set(term.bound) <= set(term.inside):
                return None
            sign = -1 if out and term.coefficient < 0 else 1
            body = Expr((Term(term.coefficient * sign, term.bound, term.factors),))
            found = matrix(axes, body, self.derivation.classes)
            if found is None:
                return None
            out += f" {'-' if sign < 0 else '+'} {found}" if out else found
        return out or None

    def index_formula(self, name: str, statement: Statement | None = None) -> Piece:
        """A formula in index notation: of the gradient of a tensor, or of a value."""
        derivation = self.derivation
        if statement is None:
            adjoint = derivation._adjoints[name]
            parts = f"d{name}", adjoint.entry, adjoint.body
        else:
            parts = name, statement.left, statement.body
        kinds = printer_for(derivation), mathml_printer(derivation)
        drawn = (kind(Letters(derivation.classes, self.program.ranks)) for kind in kinds)
        printers = (derivation._text(), *drawn)
        written = {pen: printer.statement(*parts) for pen, printer in zip(self.pens, printers, strict=True)}
        return self.word(written.__getitem__)

    # -- the backward pass -----------------------------------------------------------------------------------------

    def given(self) -> None:
        """∂L/∂Y."""
        name = self.output.name
        if not self.output.left:
            self.say(
                lambda w: (
                    f"In the backward pass {w.math(w.gradient(name))} is given, the derivative of a scalar loss "
                    f"{w.math(w.loss)}; it is 1 where {w.said(name)} is itself the loss."
                )
            )
            return
        self.say(
            lambda w: (
                f"{w.said(name)} will be used in other parts of the network, and eventually to compute a scalar "
                f"loss {w.math(w.loss)}. In the backward pass {w.math(w.gradient(name))} has already been computed; it "
                f"has the shape of {w.said(name)}:"
            )
        )
        self.define(lambda w: w.gradient(name), self.gradient_of(name))

    def chain(self, w: Pen, name: str, below: str) -> str:
        """The derivative of the loss by an input or by an entry of it, by way of every value that reads the input."""
        return " + ".join(f"{w.gradient(above)} {w.by(w.name(above), below)}" for above in self.case.readers(name))

    def chain_rule(self, names: Sequence[str]) -> None:
        """Every gradient as a product with a Jacobian, and the shape of the first."""
        self.say(lambda w: "By the chain rule:")
        self.number([self.chained(name) for name in names], apart=True)
        name, rule = names[0], self.count
        above = self.case.readers(name)[0]
        shape, other = self.case.shape[name], self.case.shape[above]
        if not shape:
            return
        if other:
            self.say(
                lambda w: (
                    f"In Equation {rule}, {w.math(w.by(w.name(above), w.name(name)))} is a Jacobian: "
                    f"{math.prod(other)} {w.math(w(*TIMES))} {math.prod(shape)} derivatives, of each element of "
                    f"{w.said(above)} by each element of {w.said(name)}. It is not formed. {w.math(w.gradient(name))} "
                    f"has the shape of {w.said(name)}, and its elements are found one at a time:"
                )
            )
        else:
            self.say(lambda w: f"{w.math(w.gradient(name))} has the shape of {w.said(name)}:")
        arrow = self.word(lambda w: f"{w(*ARROW)} {w.gradient(name)} =")
        self.define(lambda w: w.name(name), self.letters_of(name), joined(arrow, self.gradient_of(name)))

    def chained(self, name: str) -> Piece:
        return self.word(lambda w: f"{w.gradient(name)} = {self.chain(w, name, w.name(name))}")

    def one_by_one(self, name: str) -> None:
        """The entries of one gradient: the first in detail, others in brief."""
        readers, entries = self.case.readers(name), list(self.case.entries(name))
        first, *others = entries if len(entries) <= DETAILED else entries[:FEW]
        self.say(lambda w: f"First {w.math(w.d(w.at(name, first)))}. By the chain rule:")
        self.sums(name, first)
        rule = self.count
        values = [str(self.valued[above]) for above in readers]
        self.say(lambda w: f"From Equation{'s' if len(values) > 1 else ''} {_and(values)}:")
        for above in readers:
            self.slopes_equation(above, name, first)
        numbers = [str(number) for number in range(rule, self.count + 1)]
        self.say(lambda w: f"Combining Equations {_and(numbers)}:")
        self.entry(name, first)
        if others:
            self.say(lambda w: f"In the same way, the other elements of {w.math(w.gradient(name))}, one at a time:")
        for at in others:
            self.entry(name, at)
        if len(entries) > len(others) + 1:
            self.say(lambda w: f"and so on for all {len(entries)} elements.")
        elif self.is_source():
            self.number([])  # the source gives a number to an empty line here

    def sums(self, name: str, at: At) -> None:
        """The chain rule for one entry, with the sums over all entries of the values that read it."""

        def dots(w: Pen) -> str:
            signs = {above: f" {w(*DOT)} " if self.case.shape[above] else " " for above in readers}
            entry = w.at(name, at)
            return " + ".join(f"{w.gradient(y)}{sign}{w.by(w.name(y), entry)}" for y, sign in signs.items())

        readers = self.case.readers(name)
        sums = [self.sum_over(above, name, at) for above in readers]
        plus = self.word(lambda w: "+")
        units = [sums[0], *(joined(plus, unit) for unit in sums[1:])]
        if any(self.case.shape[above] for above in readers):
            units.append(self.equals(self.word(dots)))
        self.define(lambda w: w.d(w.at(name, at)), *units)

    def sum_over(self, above: str, name: str, at: At) -> Piece:
        """``Σ_i Σ_j ∂L/∂y_ij ∂y_ij/∂x``, one sum for each axis."""
        left = next(statement.left for statement in self.program.statements if statement.name == above)
        letters = "ijklmnop"[: len(left)]
        signs = []
        for letter, index, size in zip(letters, left, self.case.shape[above], strict=True):
            limit = str(size) if index.letter == LEADING else index.letter.upper()
            wide = max(len(limit), len(letter) + 2)
            drawn = Box(tuple(line.center(wide) for line in (limit, "Σ", f"{letter}=1")), 1)
            latex = rf"\sum_{{{letter}=1}}^{limit if len(limit) == 1 else f'{{{limit}}}'}"
            below = mrow(f"<mi>{letter}</mi>=1", tight=True)
            signs.append(Piece((drawn,), latex, f"<munderover><mo>∑</mo>{below}{mrow(limit)}</munderover>"))

        def product(w: Pen) -> str:
            entry = w.entry(above, letters)
            return f"{w.d(entry)} {w.by(entry, w.at(name, at))}"

        return joined(*signs, self.word(product))

    def slopes_equation(self, above: str, name: str, at: At) -> None:
        self.define(lambda w: w.by(w.name(above), w.at(name, at)), self.slopes(above, name, at))

    def entry(self, name: str, at: At) -> None:
        """One entry of a gradient: the chain rule, the dot products where these can be drawn, the result."""
        readers = self.case.readers(name)
        self.define(lambda w: w.d(w.at(name, at)), self.word(lambda w: self.chain(w, name, w.at(name, at))))
        slopes = {above: self.slopes(above, name, at) for above in readers}
        if all(self.case.shape[above] and not slopes[above].listed for above in readers):
            units: list[Piece] = []
            for above in readers:
                plus = [self.word(lambda w: "+")] if units else []
                units.append(joined(*plus, self.gradient_of(above)))
                units.append(joined(self.word(lambda w: w(*DOT)), slopes[above]))
            self.go_on(units[0], *units[1:])
        result = self.case.gradient(name, at)
        self.shown.append(result)
        self.go_on(self.word(lambda w: w.sum(result)))

    def together(self, name: str) -> None:
        """The first gradient as a whole, and its formula for any sizes."""
        source = self.derivation[name].matrix
        if self.case.shape[name]:
            self.say(lambda w: f"All elements together give {w.math(w.gradient(name))}:")
            self.define(lambda w: w.gradient(name), self.gradient_entries(name))
            if factors := self.two_matrices(source):
                self.go_on(*factors)
        if self.text.notation(source) and self.case.shape[name]:
            self.go_on(self.boxed(self.word(lambda w: w.notation(source))))
        else:
            self.for_any_sizes(name, source)
        if self.case.letters:
            last = self.count
            self.say(
                lambda w: (
                    f"This was derived for {self.sizes(w)}, but Equation {last} holds for any sizes, and no "
                    "Jacobian is formed."
                )
            )

    def for_any_sizes(self, name: str, source: str | None) -> None:
        """The formula of a gradient, boxed: in matrix notation where it has one, else in index notation."""
        if self.text.notation(source):
            whole = self.word(lambda w: f"{w.gradient(name)} = {w.notation(source)}")
        else:
            self.say(lambda w: self.in_index_notation(w, name))
            whole = self.index_formula(name)
        self.number([self.boxed(whole)])

    @staticmethod
    def in_index_notation(w: Pen, name: str) -> str:
        plain = "In index notation:"
        return w(f"In index notation, with d{name} for {w.gradient(name)}:", plain, plain)

    def another(self, name: str, also: bool) -> None:
        """A further gradient as a whole; a product of two matrices says it without its entries."""
        source = self.derivation[name].matrix
        self.say(lambda w: f"The same strategy {'also ' if also else ''}gives {w.math(w.gradient(name))}:")
        if not self.two_matrices(source):
            self.define(lambda w: w.gradient(name), self.gradient_entries(name))
        self.for_any_sizes(name, source)

    # -- products of matrices --------------------------------------------------------------------------------------

    def two_matrices(self, source: str | None) -> list[Piece]:
        """Both factors of a product of two matrices, written out; nothing where there is another form."""
        match ast.parse(source or "None", mode="eval").body:
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                factors = [self.matrix(left), self.matrix(right)]
                return [factor for factor in factors if factor] if all(factors) else []
        return []

    def matrix(self, node: ast.expr) -> Piece | None:
        """A matrix, or a transposed one, written out."""
        turned = isinstance(node, ast.Attribute)
        match node:
            case ast.Name(id=found) | ast.Attribute(value=ast.Name(id=found), attr="T"):
                adjoint = found not in self.program.ranks
                name = found[1:] if adjoint else found
            case _:
                return None
        shape = self.case.shape[name]
        if len(shape) != 2:
            return None
        entries = {
            at[::-1] if turned else at: single(Symbol(name, at, True)) if adjoint else self.case.entry(name, at)
            for at in self.case.entries(name)
        }
        return self.grid(shape[::-1] if turned else shape, entries, lambda w, at: "")

    def is_source(self) -> bool:
        """Whether this is the formula of source 004: two matrices, multiplied."""
        return len(self.program.statements) == 1 and bool(self.two_matrices(self.in_matrices(self.output)))

    # -- the end of the page ---------------------------------------------------------------------------------------

    def unreached(self, names: Sequence[str]) -> None:
        """The inputs that the output does not depend on."""
        if not self.case.order:
            self.say(lambda w: "There is no input that has a gradient.")
        elif names:
            fate = "its gradient is 0" if len(names) == 1 else "their gradients are 0"
            self.say(
                lambda w: (
                    f"No element of {w.said(self.output.name)} depends on {_and([w.said(n) for n in names])}: {fate}."
                )
            )

    def notes(self) -> None:
        """What the symbols on the page mean, where that is not common knowledge."""
        heads = {node.head for expr in self.shown for node in _nodes(expr)}
        if heads & {"==", "!=", "<", "<=", ">", ">=", "max=", "min="}:
            extremes = [word for head, word in (("max=", "largest"), ("min=", "smallest")) if head in heads]
            ties = f"; several elements that are the {' or '.join(extremes)} share the 1 equally" if extremes else ""
            self.say(lambda w: f"A bracket is 1 where its condition holds and 0 elsewhere{ties}.")
        for head in sorted(heads & NOTES.keys()):
            self.note(head)

    def note(self, head: str) -> None:
        self.say(lambda w: w(*NOTES[head]))


def _sums(expr: Sum) -> Iterator[Sum]:
    """The sums inside a sum, inner ones first."""
    for _, product in expr.terms:
        for factor, _ in product:
            for inner in _inside(factor):
                yield from _sums(inner)
                yield inner


def _nodes(expr: Sum) -> Iterator[Node]:
    for _, product in expr.terms:
        for factor, _ in product:
            if isinstance(factor, Node):
                yield factor
            for inner in _inside(factor):
                yield from _nodes(inner)


def _inside(factor: Factor) -> Sequence[Sum]:
    return factor.arguments if isinstance(factor, Node) else [factor] if isinstance(factor, Sum) else []


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
