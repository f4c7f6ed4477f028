"""Derivations in MathML, which browsers draw without a script."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from ._drawn import Drawn, broken, by_hand, gradients_of
from ._expr import Expr, Indices
from ._latex import LARGE, SMALL, printer_for
from ._page import in_order
from ._print import Letters, Text
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation

# A right side with more letters goes on in a second line, if it is a sum.
LONG = 75
GREEK = dict(zip(f"{SMALL} {LARGE}".split(), "αβγδεζηθικμνξρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", strict=True))
SIGNS = {"sum": "∑", "prod": "∏"}
COMPARED = {"==": "=", "!=": "≠", "<=": "≤", ">=": "≥", "<": "&lt;", ">": "&gt;"}
# Invisible: a product, one with a fraction or a function, which are not to run into others, a function applied.
TIMES, APART, APPLY = "<mo>&#8290;</mo>", '<mo lspace="0.17em">&#8290;</mo>', "<mo>&#8289;</mo>"
# Browsers slant a single letter by themselves. Longer names are set like words in italics, as a product is not.
ITALIC = ' style="font:italic 1em serif"'
UPRIGHT, TIGHT = ' mathvariant="normal"', ' lspace="0" rspace="0"'
# Chromium centres the cells of MathML by its own keyword, and is moved by that alone.
LEFT, RIGHT = (f' style="text-align:{side};text-align:-webkit-{side}"' for side in ("left", "right"))
TAG = re.compile(r"<(/?)[a-z]+[^>]*>")
TOKEN = re.compile(r"(\s+)|(\d+(?:\.\d+)?)|([^\W\d_]+)|(\S)")


class Mathml(Drawn):
    """The printer in MathML Core.

    A row is elements with bare signs and numbers between them; `row` makes these elements too, and puts an invisible
    times where only a space stands between two factors.
    """

    compared: Mapping[str, str] = {op: f"<mo>{sign}</mo>" for op, sign in COMPARED.items()}
    loss = "<mi>L</mi>"
    ones = '<mn style="font-weight:bold">1</mn>'

    def inline(self, formula: str) -> str:
        if formula == "loss":
            shown = self.loss
        elif "<" in formula:
            shown = formula
        else:
            shown = " × ".join(
                self.named(word) if word == LEADING or word.isidentifier() else word for word in formula.split(" × ")
            )
        return f"<math>{mrow(shown)}</math>"

    def named(self, name: str) -> str:
        return drawn_name(name)

    def upright(self, name: str) -> str:
        return f"<mi{UPRIGHT}>{name}</mi>"

    def subscript(self, name: str, places: Sequence[str]) -> str:
        return f"<msub>{name}{mrow(','.join(places), tight=True)}</msub>"

    def fraction(self, above: str, below: str) -> str:
        return f"<mfrac>{mrow(above)}{mrow(below)}</mfrac>"

    def raised(self, base: str, exponent: str) -> str:
        return raised(base, exponent)

    def closed(self, text: str) -> str:
        return closed(text)

    def bracket(self, condition: str) -> str:
        return bracket(condition)

    def magnitude(self, text: str) -> str:
        return bars(text, stretchy=True)

    def root(self, text: str) -> str:
        return f"<msqrt>{mrow(text)}</msqrt>"

    def cases(self, yes: str, condition: str, no: str) -> str:
        return drawn_cases((yes, f"<mtext>if&#160;</mtext>{mrow(condition)}"), (no, "<mtext>otherwise</mtext>"))

    def function(self, name: str) -> str:
        return f"<mi>{name}</mi>"

    def at(self, mode: str, place: str) -> str:
        inside = "".join(_parts(place, tight=True))
        fence = '<mo stretchy="false">'
        return f"<mrow><mi>{mode}</mi>{APPLY}<mrow>{fence}(</mo>{inside}{fence})</mo></mrow></mrow>"

    def call(self, function: str, argument: str) -> str:
        return f"<mrow>{function}{APPLY}{argument}</mrow>"

    def under(self, kind: str, letters: Sequence[str]) -> str:
        sign = f"<mo>{SIGNS[kind]}</mo>" if kind in SIGNS else f"<mi>{kind}</mi>"
        return f"<munder>{sign}{mrow(','.join(letters), tight=True)}</munder>"

    def size(self, letter: str) -> str:
        return size_of(letter)

    def power_of_ten(self, digits: str, exponent: str) -> str:
        power = f"<msup><mn>10</mn>{mrow(exponent, tight=True)}</msup>"
        return power if digits == "1" else f"{digits} · {power}"

    def product(self, parts: Sequence[str]) -> str:
        """Juxtaposed factors; a dot where a bare name would look like a function."""
        out = ""
        for part in parts:
            called = part.startswith("<mrow><mo>") and re.search(r"<mi[^>]*>[^<]*</mi>$", out)
            out += (" · " if called else " " if out else "") + part
        return out

    def slope(self, above: str, below: str) -> str:
        # In steps, the loss comes by its name.
        return super().slope(above if "<" in above else self.loss, below)

    def partial(self, text: str) -> str:
        return f"<mi>∂</mi>{text}"

    def transposed(self, text: str) -> str:
        return raised(text, f"<mo{TIGHT}>⊤</mo>")

    def sign(self, sign: str) -> str:
        return sign


def drawn_name(name: str) -> str:
    """A name of a tensor or an index, as in LaTeX: a letter, a Greek letter where it spells one, else in one slant."""
    if name == LEADING:
        return "<mi>…</mi>"
    if name in GREEK:  # capitals stand upright
        return f"<mi{'' if name.islower() else UPRIGHT}>{GREEK[name]}</mi>"
    return f"<mi{'' if len(name) == 1 else ITALIC}>{name}</mi>"


def bracket(condition: str) -> str:
    """1 where the condition holds."""
    return f"<mrow><mo>[</mo>{''.join(_parts(condition))}<mo>]</mo></mrow>"


def size_of(letter: str) -> str:
    """How many values an index has."""
    return bars(letter, stretchy=False)


def closed(text: str) -> str:
    """Round parentheses."""
    return f"<mrow><mo>(</mo>{''.join(_parts(text))}<mo>)</mo></mrow>"


def raised(base: str, exponent: str) -> str:
    """A power."""
    return f"<msup>{mrow(base)}{mrow(exponent, tight=True)}</msup>"


def drawn_cases(*cases: tuple[str, str]) -> str:
    """Values, and where each is taken, behind a brace."""
    cell = f"<mtd{LEFT}>"
    rows = "".join(f"<mtr>{cell}{mrow(value)}</mtd>{cell}{where}</mtd></mtr>" for value, where in cases)
    return f'<mrow><mo form="prefix">{{</mo><mtable columnalign="left left">{rows}</mtable></mrow>'


def bars(text: str, stretchy: bool) -> str:
    """Vertical bars, as high as what is between them or not."""
    stretch = f'stretchy="{str(stretchy).lower()}"'
    inside = "".join(_parts(text))
    return f'<mrow><mo form="prefix" {stretch}>|</mo>{inside}<mo form="postfix" {stretch}>|</mo></mrow>'


# -- rows ----------------------------------------------------------------------------------------------------------


def mrow(text: str, tight: bool = False) -> str:
    """A row as one element; ``tight`` is the spacing at the foot and at the head of others."""
    parts = list(_parts(text, tight))
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def _parts(text: str, tight: bool = False, after: bool = False) -> Iterator[str]:
    """The elements of a row, what stands bare between them made elements; ``after``: it goes on from a line above."""
    space = TIGHT if tight else ""
    operand, blank = after, False  # whether a factor was last, and a space after it
    last = ""
    for element, chunk in _top(text):
        if element:
            factor = not chunk.startswith(("<mo", "<munder><mo"))
            if operand and blank and factor:
                apart = "<mfrac>" in (chunk[:7], last[:7]) or chunk.startswith("<mrow><mi>")
                yield APART if apart else TIMES
            yield chunk
            operand, blank, last = factor, False, chunk
            continue
        for white, number, letters, sign in TOKEN.findall(chunk):
            if white:
                blank = True
                continue
            if number or letters:
                if operand and blank:
                    yield TIMES
                yield f"<mn>{number}</mn>" if number else f"<mi>{letters}</mi>"
                operand = True
            else:
                sign = "−" if sign == "-" else sign
                form = "" if operand or sign not in "+−" else ' form="prefix"'
                yield f"<mo{form}{space}>{sign}</mo>"
                operand = sign in ")]"
            blank, last = False, ""


def _top(text: str) -> Iterator[tuple[bool, str]]:
    """The outermost elements of a row and what is between them; true for elements."""
    depth = start = end = 0
    for tag in TAG.finditer(text):
        if not tag[1]:
            if depth == 0:
                start = tag.start()
                if start > end:
                    yield False, text[end:start]
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                end = tag.end()
                yield True, text[start:end]
    if end < len(text):
        yield False, text[end:]


def _summands(text: str) -> list[str]:
    """The pieces of a sum, each with the sign before it."""
    pieces = [""]
    for element, chunk in _top(text):
        if element:
            pieces[-1] += chunk
        else:
            first, *others = re.split(r" (?=[+-] )", chunk)
            pieces[-1] += first
            pieces += others
    return pieces


# -- formulas ------------------------------------------------------------------------------------------------------


class Formula(NamedTuple):
    """One formula, printed three times from one tree: as text, in LaTeX, as a row of MathML."""

    text: str
    latex: str
    mathml: str


def inline(text: str, latex: str, mathml: str) -> str:
    """A formula within a sentence, as a ``math`` element."""
    return _math("", text, latex, mrow(mathml))


def sentence(shown: str, texts: Iterable[str], latex: Iterable[str]) -> str:
    """A sentence in HTML; its ``code`` elements stay as they are.

    Its ``math`` elements get their formulas as text and in LaTeX, which come in their order.
    """
    formulas = zip(texts, latex, strict=True)
    out = []
    for piece in re.split(r"(<math>.*?</math>|<code>.*?</code>)", shown):
        if piece.startswith("<math>"):
            out.append(inline(*next(formulas), piece.removeprefix("<math>").removesuffix("</math>")))
        else:
            out.append(piece if piece.startswith("<code>") else prose(piece))
    return "".join(out)


def prose(text: str) -> str:
    """Words in HTML; powers among them are raised."""
    return re.sub(r"\*\*(\w+|\([^()]*\))", r"<sup>\1</sup>", escape(text, quote=False))


def displayed(formulas: Sequence[Formula]) -> str:
    """Formulas below each other, their equality signs in line, as one ``math`` element."""
    lines = [line for formula in formulas for line in _lines(formula)]
    if len(lines) == 1:
        shown = mrow(formulas[0].mathml)
    else:
        cells = "".join(
            f"<mtr><mtd{RIGHT}>{mrow(left) if left else ''}</mtd><mtd{LEFT}>{right}</mtd></mtr>"
            for left, right in lines
        )
        shown = f'<mtable columnalign="right left" displaystyle="true">{cells}</mtable>'
    latex = formulas[0].latex
    if len(formulas) > 1:
        rows = " \\\\\n".join(formula.latex.replace(" = ", " &= ", 1) for formula in formulas)
        latex = f"\\begin{{align*}}\n{rows}\n\\end{{align*}}"
    return _math(' display="block"', "; ".join(formula.text for formula in formulas), latex, shown)


def _lines(formula: Formula) -> Iterator[tuple[str, str]]:
    """Left and right sides; a long sum goes on in further lines, whose left side is empty."""
    left, equals, right = formula.mathml.partition(" = ")
    if not equals:
        left, right = "", left
    for at, line in enumerate(broken(_summands(right), _seen, LONG)):
        start = "<mo>=</mo>" if equals and at == 0 else '<mspace width="2em"></mspace>' if at else ""
        yield mrow(left) if left and at == 0 else "", f"<mrow>{start}{''.join(_parts(line, after=at > 0))}</mrow>"


def _seen(text: str) -> int:
    """About how many letters wide a row is; of a gradient only what stands below the bar."""
    return len(re.sub(r"<mfrac><mrow><mi>∂</mi><mi>.</mi></mrow>|<[^>]*>|&#\d+;| ", "", text))


def _math(display: str, text: str, latex: str, shown: str) -> str:
    said = f'<annotation encoding="application/x-tex">{escape(latex, quote=False)}</annotation>'
    return f'<math{display} alttext="{escape(text)}"><semantics>{shown}{said}</semantics></math>'


def mathml_printer(derivation: Derivation) -> type[Mathml]:
    """The printer that knows which tensors of a derivation are gradients, and a letter for the loss."""

    class Printer(Mathml):
        loss = f"<mi>{'L' if derivation.program.loss == 'L' else 'ℒ'}</mi>"
        adjoints = gradients_of(derivation)

    return Printer


class Scribe:
    """Prints parts of one derivation, each three times."""

    def __init__(self, derivation: Derivation) -> None:
        self.derivation = derivation
        self.kinds: tuple[type[Text], type[Text], type[Text]] = (
            Text,
            printer_for(derivation),
            mathml_printer(derivation),
        )

    def statement(self, name: str, left: Indices, body: Expr) -> Formula:
        """One statement, with letters of its own."""
        classes, taken = self.derivation.classes, self.derivation.named.taken
        return Formula(*(kind(Letters(classes, taken)).statement(name, left, body) for kind in self.kinds))

    def statements(self) -> list[Formula]:
        """All statements of the formula, with every sum."""
        program = self.derivation.named
        printers = [kind(Letters(self.derivation.classes, program.taken)) for kind in self.kinds]
        return [
            Formula(*(printer.statement(s.name, s.left, s.body) for printer in printers)) for s in program.statements
        ]

    def gradient(self, name: str) -> Formula:
        """The gradient with respect to a tensor."""
        adjoint = self.derivation._adjoints[name]
        return self.statement(f"d{name}", adjoint.entry, adjoint.body)

    def matrix(self, name: str) -> Formula | None:
        """The gradient in matrix notation, where it has that and hands write it so."""
        form = self.derivation[name].matrix
        sides = [f"d{name} = {form}"]
        for kind in self.kinds[1:]:
            printer = kind(Letters(self.derivation.classes, ()))
            assert isinstance(printer, Drawn)
            right = by_hand(form, self.derivation, printer) if form else None
            if right is None:
                return None
            sides.append(f"{printer.adjoint(name, ())} = {right}")
        return Formula(*sides)


def mathml(derivation: Derivation, wrt: Collection[str] | None = None) -> str:
    """Formula, gradients and their matrix forms as one ``math`` element for a page in HTML.

    Args:
        derivation: what is shown.
        wrt: the tensors whose gradients are wanted; the gradients that their formulas name come along. All unless told.

    Raises:
        FormulaError: a name in ``wrt`` that has no gradient.
    """
    scribe = Scribe(derivation)
    names = in_order(derivation, wrt)
    return displayed([*scribe.statements(), *_gradients(scribe, names)])


def _gradients(scribe: Scribe, names: Iterable[str]) -> Iterator[Formula]:
    for name in names:
        yield scribe.gradient(name)
        if form := scribe.matrix(name):
            yield form
