"""Names for parts of a statement whose values the backward pass wants: a step that a person would write as a line.

``Y = (X - mean)/sqrt(var + eps)*g + b`` becomes three lines: the root, the normalised value, Y. Named are

* what is divided by something that mixes its entries: normalised values, softmax probabilities;
* contractions that feed a function, and the functions ``sqrt``, ``tanh``, ``sigmoid`` of one;
* the logarithm of a sum of exponentials, and brackets with a contraction in them.

Exponentials are never taken out of what they are divided by, so that both stay in range together. Under ``where`` and
beside a bracket nothing is named that may be infinite where the bracket is false.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ._expr import (
    ONE,
    Apply,
    Atom,
    Compare,
    Delta,
    Expr,
    Factor,
    Index,
    Indices,
    Place,
    Read,
    Reduce,
    Substitute,
    Term,
    atom,
    bare,
    entry_of,
    exponential,
    ordered,
    tensors,
    walk,
)
from ._normal import Signatures
from ._ranges import Classes
from ._read import Axis, Program, Statement
from ._tree import LEADING

# Names for parts, by what they are.
STEMS = {"normal": "U", "sqrt": "R", "tanh": "H", "sigmoid": "G", "log": "lse", "sum": "A"}
# Statements and nodes beyond which nothing is named.
MOST_STATEMENTS, MOST_NODES = 60, 400


def named(program: Program, classes: Classes, signatures: Signatures) -> Program:
    """The program with parts of its statements named, where that helps; the same program where nothing does."""
    size = sum(statement.body.weight for statement in program.statements)
    if len(program.statements) > MOST_STATEMENTS or size > MOST_NODES:
        return program
    return _Namer(program, classes, signatures).program()


class _Namer:
    def __init__(self, program: Program, classes: Classes, signatures: Signatures) -> None:
        self._given = program
        self._classes = classes
        self._signatures = signatures
        self._inputs: dict[str, frozenset[str]] = {}
        self._mixes: dict[str, bool] = {}
        self._known: dict[int, tuple[str, Indices, Indices]] = {}
        """By signature: the name, and the indices it was named with, in the order of the signature and of its axes."""
        self._taken = program.taken | {letter for s in program.statements for letter in s.letters} | program.invented
        self._out: list[Statement] = []
        self._statement: Statement

    def program(self) -> Program:
        given = self._given
        for statement in given.statements:
            self._statement = statement
            self._known.clear()
            body = self._expr(statement.body, alone=True)
            self._add(statement if body is statement.body else self._rewritten(statement, body))
        if len(self._out) == len(given.statements):
            return given
        parts = [s for s in self._out if s.name not in given.ranks]
        order: list[str] = []
        for name in given.ranks:  # a part comes after what it reads and before its statement
            at = next((k for k, s in enumerate(self._out) if s.name == name), 0)
            before = self._out[:at]
            order += [s.name for s in before if s.name not in given.ranks and s.name not in order]
            order.append(name)
        lengths = given.ranks | {s.name: len(s.left) for s in parts}
        return replace(
            given,
            statements=self._out,
            ranks={name: lengths[name] for name in order},
            leading=given.leading | {s.name: bool(s.left) and s.left[0].letter == LEADING for s in parts},
            spans=given.spans | {s.name: s.span for s in parts},
        )

    def _rewritten(self, statement: Statement, body: Expr) -> Statement:
        """The statement with its parts by name."""
        parts = {part.name for part in self._out if part.part_of}
        axes = [
            Axis(node.tensor, number, place, statement.span)
            for node in walk(body)
            if isinstance(node, Read) and node.tensor in parts
            for number, place in enumerate(node.places)
        ]
        return replace(statement, body=body, reads=tensors(body), axes=[*statement.axes, *axes])

    def _add(self, statement: Statement) -> None:
        self._out.append(statement)
        self._inputs[statement.name] = self._depends(statement.body)
        self._mixes[statement.name] = self._mixing(statement.body)

    # -- what a part depends on ----------------------------------------------------------------------------------------

    def _depends(self, node: Any) -> frozenset[str]:
        """The inputs with a gradient that a node depends on."""
        out: set[str] = set()
        for tensor in tensors(node):
            if tensor not in self._given.integers:
                out |= self._inputs.get(tensor, {tensor})
        return frozenset(out)

    def _mixing(self, node: Any) -> bool:
        """Whether one entry of a node depends on several entries of a tensor."""
        return any(
            (isinstance(inner, Term | Reduce) and inner.bound)
            or (isinstance(inner, Read) and self._mixes.get(inner.tensor, False))
            for inner in walk(node)
        )

    # -- parts to be named ---------------------------------------------------------------------------------------------

    def _expr(self, expr: Expr, alone: bool = False) -> Expr:
        whole = alone and len(expr.terms) == 1
        terms = tuple(self._term(term, whole) for term in expr.terms)
        return expr if all(a is b for a, b in zip(terms, expr.terms, strict=True)) else Expr(terms)

    def _term(self, term: Term, whole: bool) -> Term:
        """A term with its parts named; ``whole``: it is all of a statement, which has a name already."""
        guarded = any(isinstance(factor, Compare | Delta) for factor, _ in term.factors)
        group = self._normalised(term)
        if group and not (whole and len(group) == len(term.factors) and not term.bound):
            body = Expr((Term(ONE, (), tuple(group)),))
            read = self._name("normal", body)
            at = min(k for k, pair in enumerate(term.factors) if pair in group)
            factors = [pair for pair in term.factors if pair not in group]
            factors.insert(at, (read, ONE))
            return self._term(Term(term.coefficient, term.bound, tuple(factors)), False)
        single = whole and len(term.factors) == 1 and not term.bound and term.coefficient == 1
        alone = sum(bool(self._depends(f)) for f, _ in term.factors) == 1
        factors = [
            # A bracket that nothing else is multiplied by needs no name: its gradient is that of the term.
            self._factor(f, e, e == 1 and (single or (alone and isinstance(f, Expr))), guarded)
            for f, e in term.factors
        ]
        if all(a[0] is b[0] for a, b in zip(factors, term.factors, strict=True)):
            return term
        return Term(term.coefficient, term.bound, tuple(factors))

    def _normalised(self, term: Term) -> list[Factor]:
        """The factors that are one thing divided by what mixes its entries, with the brackets on them."""
        chosen: list[Factor] = []
        inputs: frozenset[str] = frozenset()
        for divisor in ((f, e) for f, e in term.factors if e < 0 and self._mixing(f) and self._depends(f)):
            own = self._depends(divisor[0])
            if chosen and not own & inputs:
                continue
            above = [
                pair
                for pair in term.factors
                if pair[1] > 0 and own & self._depends(pair[0]) and set(divisor[0].free) <= set(pair[0].free)
            ]
            rich = [pair for pair in above if not isinstance(pair[0], Read)]
            if not above or (not rich and len(above) > 1):
                continue
            new = (*(rich or above), divisor)
            inputs = inputs.union(*(self._depends(factor) for factor, _ in new))
            chosen += [pair for pair in new if pair not in chosen]
        indices = set(ordered(*(factor.free for factor, _ in chosen)))
        if not any(set(factor.free) == indices for factor, _ in chosen):
            return []
        brackets = [pair for pair in term.factors if isinstance(pair[0], Compare | Delta)]
        if any(not set(factor.free) <= indices for factor, _ in brackets):
            return []
        rest = [pair for pair in term.factors if pair not in chosen and pair not in brackets]
        if brackets and not _polynomial(Expr((Term(ONE, (), tuple(rest)),))):
            return []  # what would be left without its bracket may be infinite
        return [pair for pair in term.factors if pair in chosen or pair in brackets]

    def _factor(self, node: Atom, exponent: Any, whole: bool, guarded: bool) -> Factor:
        """One factor; ``whole``: it is all of a statement. ``guarded``: a bracket stands beside it."""
        match node:
            case Apply():
                return self._apply(node, whole, guarded), exponent
            case Expr():
                if exponential(node):
                    return self._exponents(node), exponent
                inner = self._expr(node) if not guarded else node
                if not whole and _contracts(inner) and (not guarded or _polynomial(inner)):
                    return self._name("sum", inner), exponent
                return inner, exponent
            case Reduce() if not _read(node.body) and self._depends(node) and (not guarded or _polynomial(node.body)):
                # Its slope holds the body several times.
                return Reduce(node.kind, node.bound, atom(self._name("sum", node.body))), exponent
        return node, exponent

    def _exponents(self, node: Expr) -> Expr:
        """A sum of exponentials, in which only contractions in exponents are named."""
        terms = []
        for term in node.terms:
            guarded = any(isinstance(factor, Compare | Delta) for factor, _ in term.factors)
            factors = [
                (self._apply(f, True, guarded), e)
                if isinstance(f, Apply) and f.function == "exp"
                else (self._exponents(f), e)
                if isinstance(f, Expr) and exponential(f)
                else (f, e)
                for f, e in term.factors
            ]
            terms.append(Term(term.coefficient, term.bound, tuple(factors)))
        same = all(
            a[0] is b[0]
            for new, old in zip(terms, node.terms, strict=True)
            for a, b in zip(new.factors, old.factors, strict=True)
        )
        return node if same else Expr(tuple(terms))

    def _apply(self, node: Apply, whole: bool, guarded: bool) -> Atom:
        if node.function == "log" and any(exponential(inner) for inner in walk(node.arguments[0])):
            if whole or guarded:
                return Apply("log", (self._exponents(node.arguments[0]),)) if not guarded else node
            return self._name("log", atom(node))
        arguments = []
        for argument in node.arguments:
            inner = argument if guarded or exponential(argument) else self._expr(argument)
            feeds = node.function not in ("sqrt", "log") and _contracts(inner)
            feeds = feeds or (node.function in ("max", "min") and self._long(inner))
            if feeds and (not guarded or _polynomial(inner)) and not exponential(inner):
                inner = atom(self._name("sum", inner))
            arguments.append(inner)
        if any(a is not b for a, b in zip(arguments, node.arguments, strict=True)):
            node = Apply(node.function, tuple(arguments))
        if whole or guarded:
            return node
        sums = any(isinstance(inner, Term) and inner.bound for inner in walk(node))
        if node.function == "sqrt" and sums and self._depends(node):
            return self._name("sqrt", atom(node))
        if node.function in ("tanh", "sigmoid") and any(self._mixing(argument) for argument in node.arguments):
            return self._name(node.function, atom(node))
        return node

    def _long(self, expr: Expr) -> bool:
        """Whether an operand that a slope holds several times is more than one entry."""
        return sum(isinstance(node, Read) for node in walk(expr)) > 1 and bool(self._depends(expr))

    def _name(self, kind: str, body: Expr) -> Read:
        """The value of a new line, or of the one that has this body already."""
        signature, free = self._signatures(body)
        if signature in self._known:
            name, before, left = self._known[signature]
            now = dict(zip(before, free, strict=True))
            return entry_of(name, (now[index] for index in left))
        statement = self._statement
        place = {index: n for n, index in enumerate(statement.left)}
        left = tuple(sorted(free, key=lambda i: (i.letter != LEADING, place.get(i, len(place)))))
        name = self._fresh(kind)
        self._known[signature] = name, free, left
        fresh = {index: Index(index.letter, index.range) for index in left}
        moved = Substitute({i: Place(bare(new)) for i, new in fresh.items()}, fresh=True).expr(body)
        inner = self._expr(moved, alone=True)
        axes = [axis for axis in statement.axes if axis.tensor != statement.name]
        axes += [Axis(name, n, Place(bare(index)), statement.span) for n, index in enumerate(fresh.values())]
        part = Statement(
            name,
            tuple(fresh.values()),
            moved,
            axes,
            {},
            statement.letters,
            statement.span,
            tensors(moved),
            part_of=statement.name,
        )
        self._add(part if inner is moved else self._rewritten(part, inner))
        self._classes.adopt(name, tuple(fresh.values()))
        return entry_of(name, left)

    def _fresh(self, kind: str) -> str:
        last = self._statement is self._given.output
        stem = STEMS[kind] if last else f"{STEMS[kind]}_{self._statement.name}"
        names = (stem, *(f"{stem}{number}" for number in range(1, 1000)))
        name = next(n for n in names if n not in self._taken and f"d{n}" not in self._taken)
        self._taken |= {name, f"d{name}"}
        return name


def _read(expr: Expr) -> bool:
    """Whether an expression is one entry of a tensor."""
    match expr.terms:
        case (Term(coefficient=1, bound=(), factors=((Read(), 1),)),):
            return True
    return False


def _contracts(expr: Expr) -> bool:
    """Whether a term of the sum is a contraction of two tensors."""
    return any(term.bound and sum(isinstance(f, Read) for f, _ in term.factors) > 1 for term in expr.terms)


def _polynomial(expr: Expr) -> bool:
    """Whether a sum is finite wherever its tensors are."""
    return all(isinstance(f, Read) and e > 0 and e.denominator == 1 for term in expr.terms for f, e in term.factors)
