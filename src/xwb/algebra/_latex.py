"""Derivations in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ._drawn import Drawn, broken, by_hand, gradients_of
from ._page import conditions, in_order
from ._print import Letters
from ._steps import CHANGED, Step, steps
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation

SMALL = "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi rho sigma tau upsilon phi chi psi omega"
LARGE = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
GREEK = frozenset(SMALL.split() + LARGE.split())
COMMANDS = frozenset(("exp", "log", "sin", "cos", "tanh", "max", "min"))
COMPARED = {"==": "=", "!=": r"\neq", "<=": r"\leq", ">=": r"\geq", "<": "<", ">": ">"}
SIGNS = {"⊙": r"\odot", "∘": r"\circ", " ": r"\,"}
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


class Latex(Drawn):
    r"""The printer in LaTeX: subscripts, fractions, `\sum`."""

    compared = COMPARED
    loss = "L"
    ones = r"\mathbf{1}"

    def inline(self, formula: str) -> str:
        if formula == "loss":
            return f"${self.loss}$"
        words = (named(word) if word == LEADING or word.isidentifier() else word for word in formula.split(" × "))
        return f"${' × '.join(words)}$".replace("×", r"\times").replace("·", r"\cdot")

    def named(self, name: str) -> str:
        return named(name)

    def upright(self, name: str) -> str:
        escaped = name.replace("_", r"\_")
        return rf"\mathrm{{{escaped}}}"

    def subscript(self, name: str, places: Sequence[str]) -> str:
        return f"{name}_{{{','.join(places)}}}"

    def fraction(self, above: str, below: str) -> str:
        return rf"\frac{{{above}}}{{{below}}}"

    def raised(self, base: str, exponent: str) -> str:
        return f"{base}^{{{exponent}}}"

    def closed(self, text: str) -> str:
        return _closed(text)

    def bracket(self, condition: str) -> str:
        return rf"\left[ {condition} \right]"

    def magnitude(self, text: str) -> str:
        return rf"\left| {text} \right|"

    def root(self, text: str) -> str:
        return rf"\sqrt{{{text}}}"

    def cases(self, yes: str, condition: str, no: str) -> str:
        rows = rf"{yes} & \text{{if }} {condition} \\ {no} & \text{{otherwise}}"
        return rf"\begin{{cases}} {rows} \end{{cases}}"

    def function(self, name: str) -> str:
        return rf"\{name}" if name in COMMANDS else rf"\operatorname{{{name}}}"

    def at(self, mode: str, place: str) -> str:
        return f"{self.function(mode)}({place})"

    def call(self, function: str, argument: str) -> str:
        return f"{function} {argument}"

    def under(self, kind: str, letters: Sequence[str]) -> str:
        return rf"\{kind}_{{{','.join(letters)}}}"

    def size(self, letter: str) -> str:
        return f"|{letter}|"

    def power_of_ten(self, digits: str, exponent: str) -> str:
        power = f"10^{{{exponent}}}"
        return power if digits == "1" else rf"{digits} \cdot {power}"

    def product(self, parts: Sequence[str]) -> str:
        """Juxtaposed factors; a dot where a bare name would look like a function."""
        out = ""
        for part in parts:
            name = out.rsplit(" ", 1)[-1]
            called = part.startswith(r"\left") and re.fullmatch(r"[A-Za-z]|\\math\w+\{[^}]*\}|\\[A-Za-z]+", name)
            out += (r" \cdot " if called else " " if out else "") + part
        return out

    def partial(self, text: str) -> str:
        return rf"\partial {text}"

    def transposed(self, text: str) -> str:
        return rf"{text}^{{\top}}"

    def sign(self, sign: str) -> str:
        return SIGNS[sign]


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


def _closed(text: str) -> str:
    return rf"\left( {text} \right)"


def printer_for(derivation: Derivation) -> type[Latex]:
    """The printer that knows which tensors of a derivation are gradients, and a letter for the loss."""

    class Printer(Latex):
        loss = "L" if derivation.program.loss == "L" else r"\mathcal{L}"
        adjoints = gradients_of(derivation)

    return Printer


def matrix_form(text: str, derivation: Derivation) -> str | None:
    r"""Matrix notation of NumPy in LaTeX, ``X.T @ dY`` as ``X^{\top} \frac{\partial L}{\partial Y}``.

    None for what has no such form.
    """
    return by_hand(text, derivation, printer_for(derivation)(Letters(derivation.classes, ())))


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
    lines = broken(_summands(right), _seen, LONG)
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
