"""Derivations as one page in HTML, which needs nothing else and no script to be read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..core import FormulaError
from ..pages import facts, page, section, table
from ._explained import RULES
from ._latex import latex, named, printer_for
from ._mathml import Formula, Scribe, bracket, displayed, drawn_name, inline, mathml_printer, prose, sentence, size_of
from ._page import conditions, cost_cells, in_order, said_size
from ._paper import Paper
from ._steps import CHANGED, Step, steps
from ._tree import LEADING

if TYPE_CHECKING:
    from ._derivation import Derivation

# Characters of MathML after which formulas are written as plain text, and further steps are left out: a page is to be
# read, and a browser to draw it.
MOST = 600_000
# Lines of the small case as text: of a longer one smaller sizes are tried, and how long the smallest may be.
PAPER_LINES, LONGEST = 130, 350
BACKENDS = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX"}

COPY = (
    'document.querySelectorAll("button.copy").forEach(b=>{b.hidden=false;b.onclick=async()=>{'
    "const c=document.getElementById(b.dataset.of),t=b.textContent;let done=true;"
    "try{await navigator.clipboard.writeText(c.textContent)}"
    'catch{getSelection().selectAllChildren(c);done=document.execCommand("copy")}'
    'b.textContent=done?"copied":"press Ctrl+C";setTimeout(()=>{b.textContent=t},1500)}})'
)


def html(
    derivation: Derivation,
    proof: Any = None,
    *,
    wrt: Collection[str] | None = None,
    sizes: Mapping[str, Any] | None = None,
    paper: Mapping[str, Any] | None = None,
) -> str:
    """Formula, gradients, steps, the small case, costs, code, side conditions and LaTeX; the proof, where one is given.

    Args:
        derivation: what is shown.
        proof: what `xwb.check` or `xwb.prove` found.
        wrt: the tensors whose gradients are wanted; the gradients that their formulas name come along. All unless told.
        sizes: as for `Gradient.cost`; symbolic costs unless told.
        paper: the sizes of the small case; small ones are chosen unless told.

    Raises:
        FormulaError: a name in ``wrt`` that has no gradient, sizes that do not fit.
        TypeError: ``proof`` is neither.
        ValueError: ``proof`` is of another layer.
    """
    names = in_order(derivation, wrt)
    values = [name for name in names if name not in derivation.inputs]
    shown = [*values, *(name for name in derivation.inputs if name in names)]
    return _Writer(derivation, shown, proof, sizes, paper).page()


class _Writer:
    """Writes the page from top to bottom."""

    def __init__(
        self,
        derivation: Derivation,
        names: Sequence[str],
        proof: Any,
        sizes: Mapping[str, Any] | None,
        paper: Mapping[str, Any] | None,
    ) -> None:
        if proof is not None and not (hasattr(proof, "findings") or hasattr(proof, "verdicts")):
            raise TypeError(f"proof=…: what check or prove returns, not {type(proof).__name__}")
        if proof is not None and (other := _other_layer(derivation, proof)):
            raise ValueError(f"proof=…: {other}")
        self.derivation = derivation
        self.names = names
        self.proof = proof
        self.sizes = sizes
        self.paper = paper
        self.scribe = Scribe(derivation)
        self.numbers = itertools.count(1)
        self.room = MOST
        self.rules: dict[str, None] = {}
        self.told: set[str] = set()

    def page(self) -> str:
        """The whole document."""
        output, source = self.derivation.output, " ".join(self.derivation.formula.split())
        title = f"{source[:77]}…" if len(source) > 78 else source
        sections = [
            ("formula", "Formula", self.formula()),
            ("gradients", "Gradients", self.gradients()),
            ("steps", "Derivation", self.derivations()),
            ("rules", "The rules", self.explained()),
            ("paper", "The small case on paper", self.small_case()),
            ("cost", "Cost", self.costs()),
            ("code", "Code", self.code()),
            ("conditions", "Side conditions", self.conditions()),
            ("proof", "Numeric proof", self.proved()),
            ("latex", "LaTeX", self.latex()),
        ]
        shown = [(name, heading, list(content)) for name, heading, content in sections]
        shown = [(name, heading, content) for name, heading, content in shown if content]
        links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in shown)
        wrong = [] if self.proof is None or self.proof.ok else [WRONG.format(reason=escape(_reason(self.proof)))]
        lines = "one line of " * (len(self.derivation.program.statements) == 1)
        body = [
            "<header>",
            f"<h1>The backward pass of <i>{escape(output)}</i></h1>",
            f'<p class="muted">Derived from {lines}index notation, with every step.</p>',
            *wrong,
            f'<nav aria-label="On this page"><ul>{links}</ul></nav>',
            "</header>",
            "<main>",
            *(section(heading, *content, name=name) for name, heading, content in shown),
            *(_tip(name) for name in self.rules if name in RULES),
            "</main>",
            '<footer class="muted"><p>Made by <code>xwb.derive</code>.</p></footer>',
        ]
        style = files(__package__).joinpath("derivation.css").read_text(encoding="utf-8")
        return page(f"{title} · xwb", body, style, COPY)

    # -- parts of all sections -------------------------------------------------------------------------------------

    def copyable(self, text: str, what: str, lines: bool = False) -> str:
        """Text to be copied, with a button that the script brings to life."""
        name = f"c{next(self.numbers)}"
        button = (
            f'<button type="button" class="copy" data-of="{name}" aria-label="copy {escape(what)}" hidden>copy</button>'
        )
        if lines:
            box = f'<pre class="scroll" tabindex="0"><code id="{name}">{escape(text)}</code></pre>'
            return f'<div class="copyable lines">{box}{button}</div>'
        return f'<span class="copyable"><code id="{name}">{escape(text)}</code>{button}</span>'

    def display(self, formulas: Sequence[Formula], style: str = "formula") -> str:
        """Formulas in a box of their own that scrolls; plain text where the page has enough of them.

        Browsers give the keyboard to such a box where it overflows, so it needs no tab stop where it does not.
        """
        size = sum(len(formula.mathml) + len(formula.latex) for formula in formulas)
        self.room -= size
        if self.room < 0:
            lines = "\n".join(formula.text for formula in formulas)
            return f'<pre class="{style} long"><code>{escape(lines)}</code></pre>'
        return f'<div class="{style} scroll">{displayed(formulas)}</div>'

    # -- the sections ----------------------------------------------------------------------------------------------

    def formula(self) -> Iterator[str]:
        """The formula as it was written and as it is read, and what its letters mean."""
        program = self.derivation.program
        source = "\n".join(" ".join(program.text[s.span.start : s.span.end].split()) for s in program.statements)
        yield self.display(self.scribe.statements(), "formula main")
        yield self.copyable(source, "the formula", lines=True)
        notes = dict.fromkeys(note for triple in self.read() for note in self.notes(triple))
        about = [note for text, note in notes if " is " in text and not text.startswith("nothing")]
        summed = [note for text, note in notes if text.startswith("summed")]
        if about:
            yield f"<p>{'; '.join(about)}.</p>"
        if len(program.statements) == 1 and summed:
            yield f"<p>{summed[0][0].upper()}{summed[0][1:]}.</p>"
        yield f"<p>{'; '.join(self.legend())}.</p>"

    def read(self) -> Iterator[tuple[Step, Step, Step]]:
        """The first step for every statement in their order, as far as gradients tell."""
        known: dict[str, tuple[Step, Step, Step]] = {}
        wanted = {statement.name for statement in self.derivation.named.statements}
        for name in self.names:
            if {c.statement.name for c in self.derivation._adjoints[name].contributions} & wanted - set(known):
                for triple in self.steps_to(name, "read"):
                    known.setdefault(re.split(r"\W", triple[0].after, maxsplit=1)[0], triple)
        for statement in self.derivation.named.statements:
            if statement.name in known:
                yield known[statement.name]

    def steps_to(self, name: str, only: str = "") -> Iterator[tuple[Step, Step, Step]]:
        """The steps to a gradient, each printed three times; as far as the first that is not ``only``."""
        program, classes = self.derivation.named, self.derivation.classes
        adjoint = self.derivation._adjoints[name]
        for triple in zip(*(steps(program, classes, adjoint, kind) for kind in self.scribe.kinds), strict=True):
            if only and triple[0].rule != only:
                return
            yield triple

    def notes(self, triple: tuple[Step, Step, Step]) -> Iterator[tuple[str, str]]:
        """The notes of a step, as text and in HTML."""
        every = (step.note.split("; ") for step in triple)
        for text, tex, shown in zip(*every, strict=True):
            if text:
                latex = re.findall(r"\$([^$]*)\$", tex)
                yield text, sentence(shown, latex, latex)

    def legend(self) -> Iterator[str]:
        letter = self.derivation.program.loss
        tex, shown = printer_for(self.derivation), mathml_printer(self.derivation)
        loss = inline(letter, tex.loss, shown.loss)
        yield f"{loss} is the loss, a number that is computed from {_name(self.derivation.output)}"
        delta = inline("[i == j]", r"\left[ i = j \right]", bracket("<mi>i</mi><mo>=</mo><mi>j</mi>"))
        yield f"{delta} is 1 where it holds and 0 elsewhere"
        if any("|" in formula.latex for formula in self.scribe.statements()):
            size = inline("size(n)", "|n|", size_of("<mi>n</mi>"))
            yield f"{size} is the number of values of the index {_name('n')}"

    def gradients(self) -> Iterator[str]:
        """Every gradient: drawn, as text to be copied, as einsum and in matrices."""
        if not self.names:
            yield "<p>There is no gradient to be shown.</p>"
        for name in self.names:
            gradient = self.derivation[name]
            formula, form = Formula(gradient.formula, "", ""), None
            if self.room >= 0:
                formula, form = self.scribe.gradient(name), self.scribe.matrix(name)
            rows = [("formula", self.copyable(formula.text, f"the formula of d{name}"))]
            if gradient.einsum:
                rows.append(("einsum", self.copyable(gradient.einsum, f"the einsum of d{name}")))
            if gradient.matrix:
                rows.append(("matrices", self.copyable(gradient.matrix, f"the matrix form of d{name}")))
            yield "\n".join(
                [
                    f'<article id="d-{escape(name)}">',
                    f"<h3>The gradient of {_name(name)}</h3>",
                    self.display([formula, *([form] if form else [])]),
                    facts(rows, "facts forms"),
                    "</article>",
                ]
            )

    def derivations(self) -> Iterator[str]:
        """The steps to every gradient, folded but for the first."""
        left = []
        for at, name in enumerate(self.names):
            if self.room < 0:
                left.append(name)
                continue
            found = list(self.steps_to(name))
            self.room -= sum(len(step.after) for triple in found for step in triple if step.rule == "read")
            found = [triple for triple in found if triple[0].rule != "read"]
            items = list(self.items(name, found)) if found else ["<li>Every slope is 0.</li>"]
            count = f"{len(found)} step{'s' * (len(found) != 1)}"
            yield "\n".join(
                [
                    f'<details class="derivation"{" open" * (at == 0)}>',
                    f'<summary><h3>The gradient of {_name(name)}</h3> <span class="muted">{count}</span></summary>',
                    '<ol class="steps">',
                    *items,
                    "</ol>",
                    "</details>",
                ]
            )
        if left:
            which = f"d{left[0]}" if len(left) == 1 else f"d{left[0]} and {len(left) - 1} others"
            yield f"<p>The steps to {escape(which)} are left out here: ask for fewer gradients at a time.</p>"

    def items(self, name: str, found: Sequence[tuple[Step, Step, Step]]) -> Iterator[str]:
        many = sum(triple[0].rule == "collapse" for triple in found) > 1
        entry, part = Formula("", "", ""), 0
        for triple in found:
            rule = triple[0].rule
            if rule == "chain rule over entries":
                entry = Formula(*(step.after.split(" = ", 1)[0] for step in triple))
            part += rule == "collapse"
            left = _marked(entry, part) if many else entry
            only_last = rule in CHANGED or (rule == "regroup" and not many)
            formulas = list(_equations(triple, left))[-1 if only_last else 0 :]
            if triple is found[-1] and (form := self.scribe.matrix(name)):
                formulas.append(form)
            notes = [(text, note) for text, note in self.notes(triple) if text not in self.told]
            if rule not in ("collapse", "regroup"):
                self.told.update(text for text, _ in notes)
            words = f'<p class="muted">{"; ".join(note for _, note in notes)}</p>' if notes else ""
            yield f'<li><div class="rule">{self.rule(rule)}</div>{self.display(formulas)}{words}</li>'

    def rule(self, rule: str) -> str:
        """The name of a rule, of several joined by "and"; each a button that opens its explanation."""
        out = []
        for name in rule.split(" and "):
            self.rules[name] = None
            if name in RULES:
                said = f'popovertarget="{_slug(name)}" title="{escape(RULES[name])}"'
                out.append(f'<button type="button" class="tip" {said}>{name}</button>')
            else:
                out.append(escape(name))
        return " and ".join(out)

    def explained(self) -> Iterator[str]:
        """The rules that were used."""
        known = [name for name in RULES if name in self.rules]
        if known:
            yield facts([(name, prose(RULES[name])) for name in known], "facts rules")

    def small_case(self) -> Iterator[str]:
        """A small case with every entry written out, or why there is none."""
        found = self.derivation.on_paper(**self.paper) if self.paper is not None else self.smallest()
        if isinstance(found, str):
            yield f"<p>{escape(found)}</p>"
            return
        yield "<p>The same gradients for a small case with every entry written out.</p>"
        yield '<details class="paper">'
        yield f"<summary>{len(found.equations)} equations</summary>"
        yield found.html()
        yield "</details>"

    def smallest(self) -> Paper | str:
        """The small case for sizes that differ as far as it stays short; or a sentence."""
        reason = "it would be too long"
        shortest: Paper | None = None
        least = LONGEST
        if len(self.derivation.formula) > 2000:
            return f"The small case is left out: {reason}."
        program = self.derivation.program
        letters = list(dict.fromkeys(x for s in program.statements for x in s.letters if x != LEADING))
        letters = [letter for letter in letters if letter not in program.sizes]
        patterns = [list(range(2, 2 + len(letters)))] if len(letters) <= 3 else []
        patterns += [[2, 3] * len(letters), [2] * len(letters)]
        for pattern, shaped in itertools.product(patterns, (False, True)):
            sizes = dict(zip(letters, pattern, strict=False))
            try:
                found = self.derivation.on_paper(**sizes, **self.shapes(sizes, shaped))
            except FormulaError as error:
                reason = str(error).splitlines()[0]
                continue
            lines = str(found).count("\n")
            if lines < PAPER_LINES:
                return found
            if lines < least:
                shortest, least = found, lines
        return shortest or f"The small case is left out: {reason}. on_paper writes it out for sizes that are given."

    def shapes(self, sizes: Mapping[str, int], shaped: bool) -> dict[str, Any]:
        """Values of integer inputs, shapes of inputs with leading axes; of all where letters do not say them."""
        program = self.derivation.program
        out: dict[str, Any] = {}
        for name in program.inputs:
            places = next((s.places[name] for s in program.statements if name in s.places), {})
            letters = [place.index.letter if place.index else "" for _, place in sorted(places.items())]
            shape = tuple(2 if letter == LEADING else sizes.get(letter, 3) for letter in letters)
            if name in self.derivation.integers:
                out[name] = _counting(shape, itertools.count())
            elif LEADING in letters or (shaped and "" in letters):
                out[name] = shape
        return out

    def costs(self) -> Iterator[str]:
        """A table of what every gradient costs."""
        gradients = [self.derivation[name] for name in self.names]
        if not gradients:
            return
        found = [cost_cells(gradient.cost(**self.sizes) if self.sizes else gradient.cost()) for gradient in gradients]
        if self.sizes:
            yield f"<p>For {escape(', '.join(f'{name} = {said_size(n)}' for name, n in self.sizes.items()))}.</p>"
        header = ["", *found[0]]
        rows = [[f"d{g.name}", *row.values()] for g, row in zip(gradients, found, strict=True)]
        numbers = range(1, len(header)) if self.sizes else ()
        yield table(header, rows, list(numbers))
        yield (
            "<figcaption>Multiply-adds are counted in the order of products that <code>backward</code> takes. The last "
            "column is the size of the Jacobian of each input, which is never formed.</figcaption>"
        )

    def code(self) -> Iterator[str]:
        """The source of forward and backward for every library, in tabs."""
        sources = {backend: source for backend in BACKENDS if (source := _code(self.derivation, backend))}
        if not sources:
            return
        yield '<div class="tabs" role="group" aria-label="library">'
        for at, backend in enumerate(sources):
            yield f'<input type="radio" name="library" id="tab-{backend}"{" checked" * (at == 0)}>'
            yield f'<label for="tab-{backend}">{BACKENDS[backend]}</label>'
        for backend, source in sources.items():
            box = self.copyable(source, f"the code for {BACKENDS[backend]}", lines=True)
            yield f'<div class="panel {backend}">{box}</div>'
        yield "</div>"

    def conditions(self) -> Iterator[str]:
        """What the gradients take for granted."""
        if found := conditions(self.derivation):
            yield "<ul>"
            yield from (f"<li>{prose(sentence)}</li>" for sentence in found)
            yield "</ul>"

    def latex(self) -> Iterator[str]:
        """The whole derivation in LaTeX, where it is not too long."""
        if self.room < 0:
            yield "<p>Left out, as it is long: <code>d.latex()</code> has it.</p>"
            return
        source = latex(self.derivation, self.names or None)
        yield "<details><summary>For the body of a document that loads amsmath</summary>"
        yield self.copyable(source, "the LaTeX source", lines=True)
        yield "</details>"

    # -- the proof -------------------------------------------------------------------------------------------------

    def proved(self) -> Iterator[str]:
        """What `check` or `prove` found."""
        proof = self.proof
        if proof is None:
            return
        state = "right" if proof.ok else "wrong"
        first, *_ = str(proof).splitlines()
        yield f'<p class="verdict {state}"><strong>{"Agrees" if proof.ok else "WRONG"}</strong> {escape(first)}</p>'
        yield from _checked(proof) if hasattr(proof, "findings") else _cases(proof)
        yield "<details><summary>The whole report</summary>"
        yield f'<pre class="scroll" tabindex="0"><code>{escape(str(proof))}</code></pre>'
        yield "</details>"


WRONG = (
    '<p class="verdict wrong" role="alert"><strong>WRONG</strong> The numeric proof on this page failed. {reason} '
    '<a href="#proof">See there</a>.</p>'
)


def _other_layer(derivation: Derivation, proof: Any) -> str:
    """Which other layer a proof is of, and how that shows; empty where nothing shows it."""
    program = derivation.program
    inputs = f"{derivation.output}({', '.join(derivation.inputs)})"
    known = re.search(r"\(([^()]*)\)$", proof.call)
    names = known[1].split(", ") if known else [row.name for row in proof.rows if hasattr(row, "name")]
    numbered = all(re.fullmatch(r"input \d+", name) for name in names)  # of a function that does not name them
    ours, theirs = ({name.lower() for name in each} for each in (derivation.inputs, names))
    fits = len(names) == len(derivation.inputs) if numbered else theirs == ours
    if known and not fits:
        return f"it is of {proof.call}, and this page is of {inputs}"
    texts = [formula.text for formula in getattr(proof, "formulas", ())]
    if texts and not any(_same_formula(derivation, text) for text in texts):
        formulas = " or ".join(" ".join(text.split()) for text in texts)
        return f"it is of {formulas}, and this page is of {' '.join(derivation.formula.split())}"
    for row in proof.rows if not texts else ():
        axes = program.ranks.get(row.name, len(row.shape))
        if len(row.shape) < axes - 1 or (len(row.shape) != axes and not program.leading.get(row.name)):
            shape = "×".join(map(str, row.shape)) or "a number"
            return f"it is of {proof.call} where {row.name} is {shape}, and {row.name} has {axes} axes on this page"
    return ""


def _same_formula(derivation: Derivation, text: str) -> bool:
    """Whether a formula is the derivation's own, however it is spaced."""
    if text.split() == derivation.formula.split():
        return True
    try:
        other = type(derivation)(text, derivation.program.sizes)
    except FormulaError:
        return False
    ours, theirs = (
        [d._text().statement(s.name, s.left, s.body) for s in d.program.statements] for d in (derivation, other)
    )
    return ours == theirs


def _reason(proof: Any) -> str:
    """Why a proof failed, in a sentence or several."""
    if not proof.rows:
        return "Nothing was compared."
    if hasattr(proof, "verdicts"):
        found = [verdict.sentence for verdict in proof.verdicts] or ["Not every formula was proved."]
    else:
        found = [f"d{tensor}: {sentence}" for tensor, _, sentence in proof.diagnosis]
        told = {tensor for tensor, *_ in proof.diagnosis}
        found += [
            f"d{row.name} disagrees with finite differences{f': {row.note}' * bool(row.note)}."
            for row in proof.rows
            if not row.ok and row.name not in told
        ]
        found += [f"{finding.name}: {finding.detail}" for finding in proof.findings if finding.ok is False]
    return " ".join(sentence if sentence.endswith(".") else f"{sentence}." for sentence in dict.fromkeys(found))


def _checked(report: Any) -> Iterator[str]:
    """The rows of a report of `check`, its faults and its diagnosis."""
    header = ("input", "shape", "closed form", "finite difference", "relative", "allowed", "")
    rows = [
        (
            row.name,
            "×".join(map(str, row.shape)) or "a number",
            f"{row.closed_form:.7e}",
            f"{row.numeric:.7e}",
            f"{row.relative:.1e}",
            f"{row.allowed:.1e}",
            "agrees" if row.ok else f"DISAGREES at {row.worst}",
        )
        for row in report.rows
    ]
    yield _verdicts(header, rows, [row.ok for row in report.rows])
    yield (
        "<figcaption>Both numbers at the entry where they differ most; relative to the largest entry of the gradient."
        "</figcaption>"
    )
    faults = [f"d{tensor}: {sentence}" for tensor, _, sentence in report.diagnosis]
    faults += [f"{finding.name}: {finding.detail}" for finding in report.findings if finding.ok is False]
    if faults:
        yield f"<ul>{''.join(f'<li>{escape(fault)}</li>' for fault in faults)}</ul>"


def _cases(proof: Any) -> Iterator[str]:
    """What `prove` found for every formula: the largest errors, and what is wrong."""
    header = ("formula", "cases", "value", "gradient", "finite difference", "")
    rows, states = [], []
    for variant, formula in enumerate(proof.formulas):
        cases = [row for row in proof.rows if row.variant == variant]
        states.append(bool(cases) and all(case.ok for case in cases))
        errors = [f"{error:.1e}" for error in proof.largest(variant, "float64")]
        wrong = sum(not case.ok for case in cases)
        verdict = "agrees" if states[-1] else f"WRONG in {wrong} of {len(cases)}" if cases else "nothing proved"
        rows.append((str(formula), str(len(cases)), *errors, verdict))
    yield _verdicts(header, rows, states)
    yield (
        "<figcaption>The largest relative errors of the closed form in float64: against the formula (value, gradient) "
        "and against finite differences.</figcaption>"
    )
    sentences = [sentence for verdict in proof.verdicts for sentence in (verdict.sentence, *verdict.details)]
    if sentences:
        yield f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _verdicts(header: Sequence[str], rows: Sequence[Sequence[str]], states: Sequence[bool]) -> str:
    """A table whose last column is a verdict; a wrong row looks wrong."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for row, right in zip(rows, states, strict=True):
        first, *middle, last = (escape(cell) for cell in row)
        cells = "".join(f"<td>{cell}</td>" for cell in middle)
        state = "right" if right else "wrong"
        body.append(f'<tr class="{state}"><th scope="row">{first}</th>{cells}<td class="state">{last}</td></tr>')
    return (
        f'<div class="scroll" tabindex="0"><table class="proof">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        f"{chr(10).join(body)}\n</tbody>\n</table></div>"
    )


# -- equations and sentences ---------------------------------------------------------------------------------------


def _equations(triple: tuple[Step, Step, Step], left: Formula) -> Iterator[Formula]:
    """The lines of one step. ``left`` is the entry of the gradient, which a collapse is the value of."""
    text = triple[0]
    match (text.rule, " = " in text.before, " = " in text.after):
        case ("collapse", _, _):
            if text.before != text.after:
                yield Formula(*(f"{side} = {step.before}" for side, step in zip(left, triple, strict=True)))
                left = Formula("", "", "")
            yield Formula(*(f"{side} = {step.after}" for side, step in zip(left, triple, strict=True)))
        case ("chain rule over entries", _, _) | (_, False, True):
            yield Formula(*(step.after for step in triple))
        case (_, True, _):
            before = Formula(*(step.before for step in triple))
            after = Formula(*(step.after for step in triple))
            if before.text != after.text:
                yield before
            yield after
        case _:
            yield Formula(*(f"{step.before} = {step.after}" for step in triple))


def _marked(entry: Formula, part: int) -> Formula:
    """The part of a gradient's entry that comes through one occurrence: a bar with its number."""
    bar = f'<msub><mrow>{entry.mathml}<mo form="postfix">|</mo></mrow><mn>{part}</mn></msub>'
    return Formula(f"{entry.text} ({part})", rf"\left. {entry.latex} \right|_{{{part}}}", bar)


def _name(name: str) -> str:
    """The name of a tensor or an index in a sentence."""
    return inline(name, named(name), drawn_name(name))


def _slug(name: str) -> str:
    return "rule-" + re.sub(r"\W+", "-", name.lower())


def _tip(name: str) -> str:
    return f'<div popover id="{_slug(name)}" class="explained"><strong>{name}</strong> {prose(RULES[name])}</div>'


def _counting(shape: Sequence[int], numbers: Iterator[int]) -> Any:
    """Zeros and ones in turn, nested."""
    if not shape:
        return next(numbers) % 2
    return [_counting(shape[1:], numbers) for _ in range(shape[0])]


def _code(derivation: Derivation, backend: str) -> str:
    """The source for one library; empty where there is none."""
    write = getattr(derivation, "code", None)
    if write is None:
        return ""
    try:
        return str(write(backend))
    except FormulaError:
        return ""
