"""Derivations as a page for the terminal."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core import FormulaError
from ._cost import Cost, in_bytes, shown
from ._expr import Apply, Compare, Delta, Read, Reduce, Where, tensors, walk
from ._rules import KINKS
from ._schedule import needed
from ._steps import CHANGED, SAID, Step
from ._wrap import wrapped

if TYPE_CHECKING:
    from ._derivation import Derivation, Gradient

WIDTH = 100
# Columns from which on the names of the rules stand beside the formulas, not above them.
BESIDE = 80
# Lines of steps after which the steps to further gradients are left out: a page is to be read.
MOST = 2000
LEGEND = "In the steps {loss}dT is ∂{letter}/∂T for any T, and [i == j] is 1 where it holds, else 0."
MODES = {
    "zero": "zero() reads 0 outside the axis",
    "clamp": "clamp() reads the nearest end outside the axis",
    "wrap": "wrap() goes round: after the last entry comes the first",
    "mirror": "mirror() turns back at the ends and reads the end twice",
    "reflect": "reflect() turns back at the ends and reads the end once",
}


def page(
    derivation: Derivation,
    *,
    wrt: Collection[str] | None = None,
    sizes: Mapping[str, Any] | None = None,
    width: int = WIDTH,
) -> str:
    """The formula, its gradients with their forms and costs, every step, side conditions.

    Args:
        derivation: what is shown.
        wrt: the tensors whose gradients are wanted; the gradients that their formulas name come along. All unless told.
        sizes: as for `Gradient.cost`; symbolic costs unless told.
        width: columns; longer formulas are wrapped at spaces, never inside an index list.

    Raises:
        FormulaError: a name in ``wrt`` that has no gradient, sizes that do not fit.
    """
    gradients = [derivation[name] for name in in_order(derivation, wrt)]
    parts = [_head(derivation, gradients, width)]
    if gradients:
        letter = derivation.program.loss
        legend = LEGEND.format(loss="L is the loss, " if letter == "L" else "", letter=letter)
        parts += [_gradients(gradients, width), _costs(gradients, sizes, width), "\n".join(wrapped(legend, width, 0))]
        parts += _steps(gradients, width)
    parts.append(_list("Side conditions", conditions(derivation), width))
    return "\n\n".join(part for part in parts if part)


def in_order(derivation: Derivation, wrt: Collection[str] | None = None) -> tuple[str, ...]:
    """The tensors whose gradient has a formula, each after those whose gradients its formula may name.

    With ``wrt`` only these, and what their formulas name.

    Raises:
        FormulaError: a name in ``wrt`` that has no gradient, or none with a formula.
    """
    program, adjoints = derivation.named, derivation._adjoints
    names = list(adjoints)
    reads = [tensors(statement.body) for statement in program.statements]
    before = [set[str]().union(*reads[:number]) for number in range(len(reads))]
    order = [
        name
        for here, earlier in zip(reversed(reads), reversed(before), strict=True)
        for name in here
        if name in names and name not in earlier
    ]
    order += [name for name in names if name not in order]  # read by products that are 0
    if wrt is None:
        return tuple(name for name in order if not _refusal(derivation, name))
    wanted = {derivation[name].name for name in wrt}
    for name in reversed(order):
        if name in wanted:
            read = tensors(adjoints[name].body)
            wanted |= {other for other in order if f"d{other}" in read}
    return tuple(name for name in order if name in wanted)


def closed_forms(derivation: Derivation) -> list[str]:
    """The gradients of the inputs and those that they name, each below what it names; parts that have names first."""
    found = in_order(derivation, derivation.differentiable)
    names = [*(n for n in found if n not in derivation.inputs), *(n for n in derivation.differentiable if n in found)]
    read = {tensor for name in names for tensor in tensors(derivation._adjoints[name].body)}
    computed = {line.name for line in needed(derivation._forward, read)}
    parts = [s for s in derivation.named.statements if s.part_of and s.name in computed]
    text = [derivation._text().statement(s.name, s.left, s.body) for s in parts]
    return [*text, *(derivation[name].formula for name in names)]


def _refusal(derivation: Derivation, name: str) -> str:
    """Why a gradient has no formula; empty where it has one."""
    try:
        _ = derivation[name].formula
    except FormulaError as error:
        return str(error)
    return ""


def conditions(derivation: Derivation) -> list[str]:
    """What the gradients take for granted: ties, inputs without a gradient, boundaries, sizes."""
    program = derivation.program
    nodes = [node for statement in program.statements for node in walk(statement.body)]
    functions = dict.fromkeys(node.function for node in nodes if isinstance(node, Apply))
    reductions = dict.fromkeys(f"{node.kind}[]" for node in nodes if isinstance(node, Reduce) and node.kind != "prod")
    out = [KINKS[function] for function in functions if function in KINKS]
    out += [SAID[reduction] for reduction in reductions]
    if any(isinstance(node, Where) for node in nodes):
        out.append("where(): the branch that is not taken counts as 0, even where its slope is infinite")
    if any(isinstance(node, Compare | Delta) for node in nodes):
        out.append("a bracket and a condition are constant: their jumps have no slope")
    out += [
        f"{name} holds integers, positions to read: no gradient; one out of bounds, negatives included, is an error"
        for name in program.integers
    ]
    out += [f"{name} is only compared: its gradient is 0" for name in program.compared]
    places = [place for node in nodes if isinstance(node, Read) for place in node.places]
    places += [node.place for node in nodes if isinstance(node, Delta)]
    out += [MODES[mode] for mode in dict.fromkeys(place.mode for place in places) if mode is not None]
    for statement in program.statements:
        fixed = {i.letter for axis in statement.axes if axis.tensor != statement.name for i in axis.place.at.free}
        out += [
            f"{index.letter} stands only on the left of {statement.name}: its size is to be given"
            for index in statement.left
            if index.letter not in fixed and index.letter not in program.sizes
        ]
    out += [why for name in derivation._adjoints if (why := _refusal(derivation, name))]
    if program.sizes:
        out.append(f"sizes given: {', '.join(f'{letter} = {size}' for letter, size in program.sizes.items())}")
    if not program.output.left:
        out.append(f"{derivation.output} is a number; where it is the loss itself, its own gradient is 1")
    return out


def _block(text: str, width: int, left: int, indent: int = 2) -> list[str]:
    """Wrapped lines, all moved to the right."""
    return [" " * left + line for line in wrapped(text, width - left, indent)]


def _list(title: str, items: Iterable[str], width: int) -> str:
    lines = [line for item in items for line in _block(item, width, 2, 0)]
    return "\n".join([title, *lines]) if lines else ""


def _sentences(notes: Iterable[str], width: int, left: int) -> list[str]:
    """Notes, as many to a line as fit."""
    packed: list[str] = []
    for note in notes:
        if packed and left + len(packed[-1]) + len(note) + 2 <= width:
            packed[-1] += f"; {note}"
        else:
            packed.append(note)
    return [line for words in packed for line in _block(words, width, left, 0)]


def _head(derivation: Derivation, gradients: Sequence[Gradient], width: int) -> str:
    """The formula as it was written, and as it is read."""
    program = derivation.program
    sources = [" ".join(program.text[s.span.start : s.span.end].split()) for s in program.statements]
    names = [statement.name for statement in derivation.named.statements]
    read: dict[str, Step] = {}
    for gradient in gradients:
        if len(read) < len(names):
            read |= {re.split(r"\W", step.after, maxsplit=1)[0]: step for step in gradient.steps if step.rule == "read"}
    known = [read[name] for name in names if name in read]
    lines = [line for source in sources for line in wrapped(source, width)]
    notes = dict.fromkeys(note for step in known for note in step.note.split("; "))
    about = [note for note in notes if len(known) == 1 or not note.startswith(("summed", "nothing"))]
    if known:
        sums = [line for step in known if step.after not in sources for line in _block(step.after, width, 2)]
        lines += ["", "Read as", *sums, *_sentences(about, width, 2)]
    return "\n".join(lines)


def _gradients(gradients: Sequence[Gradient], width: int) -> str:
    """Every gradient's formula, the equality signs below each other."""
    pairs = [gradient.formula.split(" = ", 1) for gradient in gradients]
    wide = min(max(len(left) for left, _ in pairs), 20)
    lines = []
    for left, right in pairs:
        first, *rest = wrapped(f"= {right}", width - wide - 3, 0)
        lines += [f"  {left:<{wide}} {first}", *(" " * (wide + 3) + line for line in rest)]
    return "\n".join(["Gradients", *lines])


def _costs(gradients: Sequence[Gradient], sizes: Mapping[str, Any] | None, width: int) -> str:
    """The forms and the cost of every gradient: a table, or a list where a table would be too wide."""
    rows = []
    for gradient in gradients:
        cost = gradient.cost(**sizes) if sizes else gradient.cost()
        rows.append({"einsum": gradient.einsum or "", "matrix": gradient.matrix or "", **cost_cells(cost)})
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    wide = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    names = [f"d{gradient.name}" for gradient in gradients]
    front = max(map(len, names))
    title = f"Cost for {', '.join(f'{name} = {said_size(n)}' for name, n in sizes.items())}" if sizes else "Cost"
    if 2 + front + sum(2 + wide[column] for column in columns) <= width:
        head = "".join(f"  {column:<{wide[column]}}" for column in columns)
        body = ["".join(f"  {row[column] or '-':<{wide[column]}}" for column in columns) for row in rows]
        table = [f"  {left:<{front}}{cells}".rstrip() for left, cells in zip(["", *names], [head, *body], strict=True)]
        return "\n".join([title, *table])
    lines = [title]
    for name, row in zip(names, rows, strict=True):
        label = max(len(column) for column in columns)
        cells = [f"{column:<{label}}  {row[column]}" for column in columns if row[column]]
        lines += [f"  {name}", *(line for cell in cells for line in _block(cell, width, 4, label))]
    return "\n".join(lines)


def said_size(size: Any) -> str:
    """The size of an index, or the shape of a tensor."""
    return " × ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def cost_cells(cost: Cost) -> dict[str, str]:
    """The columns of a table of costs."""
    cells = {"multiply-adds": shown(cost.multiply_adds)}
    entries = shown(cost.jacobian_entries)
    if isinstance(cost.jacobian_bytes, int):
        cells |= {"traffic": in_bytes(cost.bytes), "temporary": in_bytes(cost.largest_temporary)}
        entries += f" ({in_bytes(cost.jacobian_bytes)})"
    return {**cells, "Jacobian entries avoided": entries}


def _steps(gradients: Sequence[Gradient], width: int) -> Iterator[str]:
    """The derivation of every gradient, up to `MOST` lines; a note that has been told is not told again."""
    told: set[str] = set()
    count = 0
    for at, gradient in enumerate(gradients):
        if count > MOST:
            names = ", ".join(f"d{later.name}" for later in gradients[at:])
            yield "\n".join(wrapped(f"The steps to {names} are left out here: ask for the gradient alone.", width, 0))
            return
        lines = _steps_to(gradient, width, told)
        count += len(lines)
        yield "\n".join(lines)


def _steps_to(gradient: Gradient, width: int, told: set[str]) -> list[str]:
    steps = [step for step in gradient.steps if step.rule != "read"]
    if not steps:
        return [f"d{gradient.name}", "  every slope is 0"]
    occurrences = sum(step.rule == "collapse" for step in steps)
    wide = min(max(len(step.rule) for step in steps), 24) if width >= BESIDE else 0
    room = width - wide - 7
    lines = [f"d{gradient.name}"]
    for number, step in enumerate(steps, start=1):
        right = _formulas(step, occurrences, room)
        if step is steps[-1] and gradient.matrix:
            right += wrapped(f"d{gradient.name} = {gradient.matrix}", room)
        notes = [note for note in step.note.split("; ") if note and note not in told]
        notes = [note for note in notes if not note.startswith(("as einsum:", "as matrices:"))]  # they stand above
        if step.rule not in ("collapse", "regroup"):
            told.update(notes)
        right += _sentences(notes, room, 2)
        left = textwrap.wrap(step.rule, wide or width)
        right = right if wide else ["" for _ in left] + right
        for i, (rule, text) in enumerate(itertools.zip_longest(left, right, fillvalue="")):
            lines.append(f"{number if i == 0 else '':>3}  {rule:<{wide}}  {text}".rstrip())
    return lines


def _formulas(step: Step, occurrences: int, width: int) -> list[str]:
    """The formulas of a step; one line where both fit, else the second begins a line."""
    if step.rule == "regroup":
        return [line for text in (step.before, step.after)[occurrences == 1 :] for line in wrapped(text, width)]
    if step.before == step.after or step.rule in CHANGED:
        return wrapped(step.after, width)  # what stood before is the step above
    both = f"{step.before} = {step.after}"
    if len(both) <= width or " = " in step.after:
        return wrapped(both, width)
    return [*wrapped(step.before, width), *_block(f"= {step.after}", width, 2, 0)]
