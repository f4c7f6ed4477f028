"""The derivation in named steps, as a person writes it: one entry at a time, then the general formula."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from ._closed import Change
from ._collapse import Eaten, Remaining, collapse, deltas, gathered, spelled, tidied
from ._expr import ONE, Delta, Expr, Index, Term, walk
from ._gradient import Adjoint, Contribution, spelled_out
from ._print import LETTERS, Letters, Text
from ._ranges import Classes
from ._read import Program, Statement
from ._rules import KINKS, Occurrence, Rule
from ._tree import LEADING

Printer: TypeAlias = Callable[[Letters], Text]


class Step(NamedTuple):
    """One step: the rule's name, what stood before, what stands after, and why."""

    rule: str
    before: str
    after: str
    note: str


def steps(program: Program, classes: Classes, adjoint: Adjoint, printer: Printer = Text) -> Iterator[Step]:
    """The steps from the formula to one gradient, written by ``printer``."""
    return _Steps(program, classes, adjoint, printer).all()


def _spare(program: Program) -> Iterator[str]:
    """Letters that the formula does not use."""
    used = {letter for statement in program.statements for letter in statement.letters} | set(program.spans)
    return (letter for letter in LETTERS if letter not in used)


class _Steps:
    def __init__(self, program: Program, classes: Classes, adjoint: Adjoint, printer: Printer) -> None:
        self.program = program
        self.classes = classes
        self.adjoint = adjoint
        self.printer = printer
        letters = _spare(program)
        self.entry = tuple(
            index if index.letter == LEADING else Index(next(letters), index.range) for index in adjoint.entry
        )
        self.leading = [index for index in self.entry if index.letter == LEADING]
        self.texts: dict[str, Text] = {}

    def all(self) -> Iterator[Step]:
        statements = list({c.statement.name: c.statement for c in self.adjoint.contributions}.values())
        if not statements:
            return
        for statement in statements:
            yield self.read(statement)
        yield self.chain(statements)
        for statement in statements:
            for contribution in (c for c in self.adjoint.contributions if c.statement is statement):
                yield from self.occurrence(contribution)
        yield self.regroup()
        yield from self.changes()

    def text(self, statement: Statement) -> Text:
        """The printer of a statement, which knows its letters and those of the entry."""
        if statement.name not in self.texts:
            letters = Letters(self.classes, self.program.taken)
            letters.statement(statement.left, statement.body)
            letters.apart(self.entry)
            self.texts[statement.name] = self.printer(letters)
        return self.texts[statement.name]

    def name(self, text: Text, statement: Statement) -> str:
        return text.access(statement.name, [text.letters[index] for index in statement.left])

    def variable(self, text: Text) -> str:
        return text.access(self.adjoint.name, [text.letters[index] for index in self.entry])

    def read(self, statement: Statement) -> Step:
        text = self.text(statement)
        source = self.program.text[statement.span.start : statement.span.end]
        explicit = text.statement(statement.name, statement.left, statement.body)
        shapes = []
        for name in (*statement.reads, statement.name):
            indices = [place.index for _, place in sorted(statement.places.get(name, {}).items())]
            length = ["·" if index is None else text.letters.get(index, index.letter) for index in indices]
            said = text.inline(" × ".join(length)) if length else "a number"
            shapes.append(f"{text.inline(name)} is {said}")
        summed = [text.letters[i] for node in walk(statement.body) if isinstance(node, Term) for i in node.bound]
        shown = ", ".join(text.inline(letter) for letter in dict.fromkeys(summed))
        about = [*shapes, f"summed: {shown}" if shown else "nothing is summed"]
        if statement.part_of:
            about.append(f"{text.inline(statement.name)} names a part of {text.inline(statement.part_of)}")
        return Step("read", explicit if statement.part_of else " ".join(source.split()), explicit, "; ".join(about))

    def chain(self, statements: Sequence[Statement]) -> Step:
        parts = []
        for statement in statements:
            text = self.text(statement)
            slope = text.slope(self.name(text, statement), self.variable(text))
            factor = text.adjoint(statement.name, [text.letters[index] for index in statement.left])
            parts.append(text.summed(statement.left, f"{factor} {slope}"))
        text = self.text(statements[0])
        entry = [text.letters[index] for index in self.entry]
        after = f"{text.adjoint(self.adjoint.name, entry)} = {' + '.join(parts)}"
        loss = self.program.loss
        through = " and ".join(
            f"{'every entry of ' if statement.left else ''}{text.inline(statement.name)}" for statement in statements
        )
        name = text.inline(self.adjoint.name)
        what = (
            f"one entry of {name}: {text.inline(loss)} depends on it"
            if self.entry
            else f"{name} is a number, and {text.inline(loss)} depends on it"
        )
        return Step(
            "chain rule over entries", text.slope(loss, self.variable(text)), after, f"{what} through {through}"
        )

    def occurrence(self, contribution: Contribution) -> Iterator[Step]:
        statement, occurrence = contribution.statement, contribution.occurrence
        text = self.text(statement)
        letters = text.letters
        live = {letters[index] for index in (*statement.left, *self.entry)}
        here = text.read(occurrence.read)
        slope = text.slope(self.name(text, statement), self.variable(text))

        inner = spelled(occurrence.term())
        letters.expression(Term(ONE, inner.bound, inner.factors), live)
        product = text.term_with(inner, text.slope(here, self.variable(text)))
        rule, note = _rules(occurrence, len(statement.body.terms))
        yield Step(rule, slope, product, note)

        facing = [delta for delta in deltas(self.entry, occurrence.read) if delta.left.bare not in self.leading]
        shown = " ".join(text.atom(delta) for delta in facing) or "1"
        note = (
            "an entry changes itself alone: one delta for each index"
            if facing
            else f"the slope of {text.inline(self.adjoint.name)} in itself is 1"
        )
        yield Step("Kronecker delta", text.slope(here, self.variable(text)), shown, note)

        whole = spelled(contribution.whole)
        letters.expression(whole, {letters[index] for index in self.entry})
        before = text.term_with(whole, shown if facing else "")
        collapsed, events = collapse(contribution.whole, self.entry, occurrence.read, self.classes)
        final = tidied(spelled(collapsed))
        letters.expression(final, {letters[index] for index in self.entry})
        yield Step("collapse", before, text.expr(Expr((final,))), "; ".join(self.told(text, e) for e in events)
                   or "no index, no delta")  # fmt: skip

    def told(self, text: Text, event: Eaten | Remaining) -> str:
        shown = text.inline(text.atom(Delta(event.delta.left, event.delta.place)))
        if isinstance(event, Remaining):
            return f"{shown} remains: {event.why}"
        if event.index.letter == LEADING:
            return f"the leading axes of {text.inline(self.adjoint.name)} are those of the statement"
        letter, place = text.inline(text.letters[event.index]), text.inline(text.affine(event.place.at))
        if event.place.mode is None:
            return f"{shown} eats the sum over {letter}: {letter} becomes {place}"
        return (
            f"{shown} eats the sum over {letter}: {letter} becomes {place}, "
            f"read under zero() where that leaves the range of {letter}"
        )

    def regroup(self) -> Step:
        body = gathered([self._collapsed(contribution) for contribution in self.adjoint.contributions])
        first = self.printer(Letters(self.classes, self.program.taken))
        before = first.statement(f"d{self.adjoint.name}", self.entry, body)
        last = self.printer(Letters(self.classes, self.program.taken))
        after = last.statement(f"d{self.adjoint.name}", self.adjoint.entry, self.adjoint.raw)
        renamed = [
            f"{first.inline(first.letters[a])} is called {last.inline(last.letters[b])} again"
            for a, b in zip(self.entry, self.adjoint.entry, strict=True)
            if first.letters[a] != last.letters[b]
        ]
        count = len(self.adjoint.contributions)
        added = [f"the {count} occurrences are added"] if count > 1 else []
        return Step("regroup", before, after, "; ".join([*added, *renamed]))

    def changes(self) -> Iterator[Step]:
        """From what the rules of calculus gave to the closed form."""
        before = self.formula(self.adjoint.raw)
        for change in self.adjoint.changes:
            after = self.formula(spelled_out(change.body))
            if after != before:
                yield Step(change.rule, before, after, "; ".join(self.because(change)))
            before = after

    def formula(self, body: Expr) -> str:
        text = self.printer(Letters(self.classes, self.program.taken))
        return text.statement(f"d{self.adjoint.name}", self.adjoint.entry, body)

    def because(self, change: Change) -> Iterator[str]:
        """What a change relies on: the statements whose values it names, the gradient it writes out."""
        for name in change.used:
            text = self.printer(Letters(self.classes, self.program.taken))
            statement = next((s for s in self.program.statements if s.name == name), None)
            if statement is not None:
                yield text.inline(text.statement(name, statement.left, statement.body))
            else:
                yield f"{text.inline(name)} is written out"
        if change.rule != "substitute":
            yield CHANGED[change.rule]

    def _collapsed(self, contribution: Contribution) -> Term:
        term, _ = collapse(contribution.whole, self.entry, contribution.occurrence.read, self.classes)
        return tidied(spelled(term))


def _rules(occurrence: Occurrence, terms: int) -> tuple[str, str]:
    """The name of the step for one occurrence, and what each rule on the way down said."""
    names = list(dict.fromkeys(rule.name for rule in occurrence.rules))
    notes = list(dict.fromkeys(_told(rule) for rule in occurrence.rules))
    if not notes:
        notes = ["the other terms do not depend on this entry" if terms > 1 else "nothing stands beside it"]
    return " and ".join(names) or "sum rule", "; ".join(note for note in notes if note)


def _told(rule: Rule) -> str:
    if rule.name == "product rule":
        return "every other factor stays"
    if rule.name == "function rule":
        return SAID[rule.what] + (f" ({KINKS[rule.what]})" if rule.what in KINKS else "")
    if rule.name == "reduction rule":
        return SAID[f"{rule.what}[]"]
    if rule.name == "power rule":
        return "(x**a)' = a x**(a-1)" if rule.what != "**" else "(a**b)' by a: b a**(b-1), by b: a**b log(a)"
    return "the branch that is taken counts, the other not"


CHANGED = {
    "substitute": "a gradient is written out",
    "reuse": "what forward has computed is named, and what stands above and below cancels",
    "cancel": "what stands above and below cancels, like terms are added",
    "factor": "common factors go before the bracket",
}

SAID = {
    "exp": "exp' = exp",
    "log": "log'(x) = 1/x",
    "sqrt": "sqrt'(x) = 1/(2 sqrt(x))",
    "abs": "abs' = sign",
    "sin": "sin' = cos",
    "cos": "cos' = -sin",
    "tanh": "tanh' = 1 - tanh**2",
    "sigmoid": "sigmoid' = sigmoid (1 - sigmoid)",
    "relu": "relu'(x) = [x > 0]",
    "erf": "erf'(x) = 2/sqrt(pi) exp(-x**2)",
    "gelu": "gelu'(x) = Phi(x) + x phi(x)",
    "max": "max(a, b)' by a = [a >= b]/(1 + [a == b])",
    "min": "min(a, b)' by a = [a <= b]/(1 + [a == b])",
    "max[]": "a maximum has slope 1 at its place, shared equally among ties",
    "min[]": "a minimum has slope 1 at its place, shared equally among ties",
    "prod[]": "the slope of a product in one factor is the product of all others",
}
