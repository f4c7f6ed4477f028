"""``derive``: a layer written in index notation, its gradients, and both on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core import (
    FLOATS,
    Array,
    DtypeError,
    FormulaError,
    Layer,
    ShapeError,
    named_tuple,
    one_dtype,
    shapes_table,
    unknown,
)
from ._access import OutOfBounds
from ._cost import Cost, cost
from ._evaluate import Evaluation
from ._expr import ONE, Expr, Range, Read, Term, tensors
from ._forms import einsum, matrix
from ._gradient import Adjoint, Adjoints
from ._named import named
from ._normal import Signatures
from ._print import Letters, Text
from ._ranges import Classes, Sizes, solve
from ._read import Program, Statement, checked_sizes, read
from ._rules import Occurrence, occurrences, own_value
from ._schedule import Assign, Schedule, forward_lines, needed, schedule
from ._steps import Step, steps
from ._text import pointed
from ._tree import LEADING

if TYPE_CHECKING:
    from ._paper import Paper
    from ._running import Running


class Gradient:
    """The gradient with respect to one tensor of a derivation, ``d["W"]``."""

    def __init__(self, derivation: Derivation, name: str) -> None:
        self._derivation = derivation
        self.name = name

    @cached_property
    def _adjoint(self) -> Adjoint:
        return self._derivation._adjoints[self.name]

    @cached_property
    def formula(self) -> str:
        """One line of index notation, ``dW[d,m] = sum[n] X[n,d] dY[n,m]``.

        It may name values of earlier statements and other gradients, which have formulas of their own; `program` has
        them all.
        """
        adjoint = self._adjoint
        return self._derivation._text().statement(f"d{self.name}", adjoint.entry, adjoint.body)

    @cached_property
    def einsum(self) -> str | None:
        """The subscripts for ``np.einsum`` over the tensors in the order of `formula`; None where it is no einsum."""
        return einsum(self._adjoint, self._derivation.classes)

    @cached_property
    def matrix(self) -> str | None:
        """The gradient in matrix notation, ``X.T @ dY``, or None.

        Claimed only after it gave the same numbers as `formula` on signed random integers at several sizes.
        """
        return matrix(self._adjoint.entry, self._adjoint.body, self._derivation.classes)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The derivation, step by step: ``Step(rule, before, after, note)``."""
        found = list(steps(self._derivation.named, self._derivation.classes, self._adjoint))
        if found:
            forms = [f"as einsum: {self.einsum}"] if self.einsum else []
            forms += [f"as matrices: {self.matrix}"] if self.matrix else []
            found[-1] = found[-1]._replace(note="; ".join(note for note in (found[-1].note, *forms) if note))
        return tuple(found)

    def cost(self, /, *, dtype: Any = np.float32, **sizes: Any) -> Cost:
        """What the gradient costs, and what its Jacobian would have.

        Args:
            dtype: for the bytes; float32 unless told.
            sizes: every index by its letter, ``n=64``, or a tensor's shape, ``X=(64, 4096)``; without any the cost
                is symbolic.

        Raises:
            FormulaError: a letter that the formula does not have, or one that is missing.
        """
        return cost(self._derivation, self.name, np.dtype(dtype), sizes)

    @property
    def program(self) -> str:
        """Everything that `formula` names: values of earlier statements, other gradients, then the formula itself."""
        return self._program[0]

    def letters(self, /, sizes: Mapping[str, int] | None = None, **arrays: Any) -> dict[str, int]:
        """The size of every letter of `program`, for ``derive(program).forward(sizes=…)``.

        Raises:
            FormulaError: as for `forward`; or ``sizes`` are smaller than an axis, which `program` does not know.
        """
        derivation = self._derivation
        bound = derivation._bind(arrays, sizes)
        for statement in derivation.program.statements:
            for axis in statement.axes:
                index, length = axis.place.index, bound.sizes.of[Range(axis.tensor, axis.number)]
                equal = index is not None and derivation.classes.equal(index.range, Range(axis.tensor, axis.number))
                if index is not None and equal and bound.sizes.of[index.range] != length:
                    fact = (
                        f"{index.letter} is given shorter than {axis.tensor}, which the printed formula does not know"
                    )
                    raise pointed(
                        derivation.formula, fact, axis.span, more=["give the sizes to derive: derive(…, sizes={…})"]
                    )
        return {letter: bound.sizes.of[range_] for letter, range_ in self._program[1].items() if letter != LEADING}

    @cached_property
    def _program(self) -> tuple[str, dict[str, Range]]:
        derivation = self._derivation
        text = derivation._text()
        wanted: set[str] = set()
        pending = [f"d{self.name}"]
        adjoint_of = {f"d{name}": name for name in derivation._adjoints}
        statement_of = {statement.name: statement for statement in derivation.named.statements}
        while pending:
            name = pending.pop()
            if name in wanted or (name not in adjoint_of and name not in statement_of):
                continue
            wanted.add(name)
            source = derivation._adjoints[adjoint_of[name]].body if name in adjoint_of else statement_of[name].body
            pending += tensors(source)
        lines = [text.statement(s.name, s.left, s.body) for s in derivation.named.statements if s.name in wanted]
        for name in reversed(list(derivation._adjoints)):
            if f"d{name}" in wanted and name != self.name:
                adjoint = derivation._adjoints[name]
                lines.append(text.statement(f"d{name}", adjoint.entry, adjoint.body))
        lines.append(text.statement(f"d{self.name}", self._adjoint.entry, self._adjoint.body))
        return "; ".join(lines), text.letters.ranges

    def __repr__(self) -> str:
        return f"<gradient {self.formula}>"


class _Bound(NamedTuple):
    """Arrays that fit the formula: by name, leading axes made one; their original shapes; all sizes; the dtype."""

    arrays: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    sizes: Sizes
    dtype: np.dtype[Any]


class Derivation:
    """A formula that has been read and differentiated; `xwb.derive` makes it.

    ``d["W"]`` is the `Gradient` with respect to W. `forward`, `values`, `backward` and `jvp` compute with NumPy arrays,
    all of one floating dtype, float32 or float64, and all but `jvp` with PyTorch tensors or JAX arrays too; nothing of
    the Jacobian's size is ever formed.

    Args:
        text: statements in index notation.
        sizes: of indices by letter, fixed for all that is made from it.
        parts: whether parts of statements get names where the gradients want their values.

    Raises:
        FormulaError: a mistake in ``text``, or a size that does not fit it.
    """

    program: Program
    """The statements as they were written."""
    classes: Classes
    """Which ranges have one size, whatever the arrays."""
    signatures: Signatures
    """What makes equal parts of formulas look equal."""

    def __init__(self, text: str, sizes: Mapping[str, int] | None = None, *, parts: bool = True) -> None:
        self._parts = parts
        self._by_sizes: dict[tuple[tuple[str, int], ...], Derivation] = {}
        self.program = read(text, sizes)
        self.formula = text
        self.inputs: tuple[str, ...] = self.program.inputs
        self.integers: tuple[str, ...] = tuple(self.program.integers)
        self.output: str = self.program.output.name
        self.classes = Classes(self.program)
        self.signatures = Signatures(self.classes)
        self._runs: dict[str, Running] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Derivation, parts=self._parts), (self.formula, self.program.sizes)

    @cached_property
    def named(self) -> Program:
        """The program with names for parts of statements that the backward pass wants."""
        return named(self.program, self.classes, self.signatures) if self._parts else self.program

    @cached_property
    def whole(self) -> Derivation:
        """The same without names for parts of statements."""
        return Derivation(self.formula, self.program.sizes, parts=False)

    def _sized(self, sizes: Mapping[str, int]) -> Derivation:
        """The same for given sizes, which may make an index shorter than its axis."""
        given = {**self.program.sizes, **checked_sizes(self.program, sizes)}
        known = tuple(sorted(given.items()))
        if known not in self._by_sizes:
            self._by_sizes[known] = Derivation(self.formula, given, parts=self._parts)
        return self._by_sizes[known]

    @cached_property
    def _occurrences(self) -> list[list[Occurrence]]:
        """Every occurrence of a tensor that has a gradient, by statement."""
        return [
            [
                at
                for at in map(own_value(s.name, s.left, s.body), occurrences(s.body))
                if at.read.tensor not in self.integers
            ]
            for s in self.named.statements
        ]

    @cached_property
    def _adjoints(self) -> Adjoints:
        self._refuse_taken_names()
        return Adjoints(self.named, self.classes, self.signatures, self._occurrences)

    @cached_property
    def _forward(self) -> tuple[Assign, ...]:
        return forward_lines(self.named)

    @cached_property
    def _schedule(self) -> Schedule:
        return schedule(self)

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The inputs that have a gradient: all but integer ones."""
        return tuple(name for name in self.inputs if name not in self.integers)

    def __getitem__(self, name: str) -> Gradient:
        """The gradient with respect to an input, or to the value of an earlier statement.

        Raises:
            FormulaError: the formula has no such tensor, or it has no gradient: an integer input, the output.
        """
        program = self.named
        known = (*self.differentiable, *program.values[:-1])
        if name in self.integers:
            raise pointed(
                program.text,
                f"{name} is an integer input: it says which entries are read, and has no gradient",
                program.integers[name],
                more=[f"those that have one: {', '.join(known) or 'none'}"],
            )
        if name == self.output:
            raise pointed(program.text, f"{name} is the output: d{name} is what backward is given", program.spans[name])
        if name not in known:
            raise pointed(
                program.text,
                f"the formula has no tensor {name}{unknown(str(name), known)}",
                more=[f"those that have a gradient: {', '.join(known) or 'none'}"],
            )
        self._refuse_taken_names()
        return Gradient(self, name)

    def _refuse_taken_names(self) -> None:
        """A gradient is called d and the tensor's name: a formula that uses both cannot be differentiated."""
        for name in self.program.spans:
            if f"d{name}" in self.program.spans and name not in self.integers:
                raise pointed(
                    self.program.text,
                    f"d{name} is the gradient of {name}, so no other tensor can have that name here",
                    self.program.spans[f"d{name}"],
                    more=["rename one of the two to differentiate this formula"],
                )

    # -- on arrays ---------------------------------------------------------------------------------------------------

    def forward(self, /, sizes: Mapping[str, int] | None = None, **arrays: Any) -> Array:
        """The value of the last statement.

        Args:
            sizes: of indices that no array fixes, by letter.
            arrays: every input by name; floating ones all float32 or all float64, integer ones of any integer dtype.
                PyTorch tensors and JAX arrays run where they are, and come back as such.

        Raises:
            FormulaError: an array that is missing, unknown or does not fit.
            DtypeError: mixed or other dtypes.
        """
        if sizes:
            return self._sized(sizes).forward(**arrays)
        if (running := self._running(arrays)) is not None:
            found: Array = running.forward(arrays)
            return found
        return self.values(**arrays)[self.output]

    def values(self, /, sizes: Mapping[str, int] | None = None, **arrays: Any) -> dict[str, Array]:
        """The values of all statements by name, those of named parts among them.

        Raises:
            FormulaError, DtypeError: as for `forward`.
        """
        if sizes:
            return self._sized(sizes).values(**arrays)
        if (running := self._running(arrays)) is not None:
            return running.values(arrays)
        bound = self._bind(arrays, sizes)
        evaluation = self._evaluation(bound)
        for line in self._forward:
            self._compute(evaluation, line)
        return {s.name: self._unfolded(evaluation.arrays[s.name], s, bound) for s in self.named.statements}

    def backward(self, dY: Any, /, sizes: Mapping[str, int] | None = None, **arrays: Any) -> dict[str, Array]:
        """The gradients of ⟨dY, Y⟩ with respect to every input that has one, in its shape.

        Args:
            dY: the shape and dtype of Y; a number for a scalar Y.
            sizes, arrays: as for `forward`.

        Raises:
            FormulaError, DtypeError: as for `forward`.
            ShapeError: dY is not like Y.
        """
        return self._backward(dY, self.differentiable, sizes, arrays)

    def _backward(
        self, dY: Any, wanted: Sequence[str], sizes: Mapping[str, int] | None, arrays: Mapping[str, Any]
    ) -> dict[str, Array]:
        self._refuse_taken_names()
        if sizes:
            return self._sized(sizes)._backward(dY, wanted, None, arrays)
        if (running := self._running({**arrays, f"d{self.output}": dY})) is not None:
            return running.backward(dY, arrays, wanted)
        bound = self._bind(arrays, sizes)
        evaluation = self._evaluation(bound)
        lines = needed(self._schedule.backward, {f"d{name}" for name in wanted})
        for value in needed(self._forward, {name for line in lines for name in line.reads}):
            self._compute(evaluation, value)
        evaluation.arrays[f"d{self.output}"] = self._like_output(dY, bound)
        with np.errstate(all="ignore"):
            for line in lines:
                before = evaluation.arrays.get(line.name)
                if isinstance(line, Assign):
                    evaluation.arrays[line.name] = evaluation.value(line.body, line.left)
                else:
                    evaluation.arrays[line.name] = self._scatter(evaluation, line.term, line.where, before)
        return {
            name: evaluation.arrays[f"d{name}"].reshape(bound.shapes[name])
            for name in wanted
            if bound.arrays[name].dtype.kind == "f"
        }

    def jvp(self, /, sizes: Mapping[str, int] | None = None, **arrays: Any) -> Array:
        """The tangent of Y along tangents of the inputs, ``d.jvp(X=(X, Xdot), W=W)``: forward mode.

        ⟨dY, jvp⟩ equals the sum of ⟨gradient, tangent⟩ over the inputs.

        Raises:
            FormulaError, DtypeError: as for `forward`; a tangent that is not like its array, or of an integer input.
        """
        if sizes:
            return self._sized(sizes).jvp(**arrays)
        plain = {name: a[0] if isinstance(a, tuple) else a for name, a in arrays.items()}
        bound = self._bind(plain, sizes)
        evaluation = self._evaluation(bound)
        for name, pair in arrays.items():
            if isinstance(pair, tuple):
                evaluation.arrays[f"{name}'"] = self._tangent(name, pair, bound)
        with np.errstate(all="ignore"):
            for statement, line, found in zip(self.named.statements, self._forward, self._occurrences, strict=True):
                self._compute(evaluation, line)
                terms = [
                    occurrence.term((Read(f"{occurrence.read.tensor}'", occurrence.read.places), ONE))
                    for occurrence in found
                    if f"{occurrence.read.tensor}'" in evaluation.arrays
                ]
                if terms:
                    evaluation.arrays[f"{statement.name}'"] = evaluation.value(Expr(tuple(terms)), statement.left)
        output = self.program.output
        tangent = evaluation.arrays.get(f"{output.name}'")
        if tangent is None:
            tangent = np.zeros_like(evaluation.arrays[output.name])
        return self._unfolded(tangent, output, bound)

    def layer(self) -> Layer:
        """The formula as a `Layer` with the same inputs in order of appearance, usable in `chain`.

        Its backward gives None for integer inputs.
        """
        saved = named_tuple("Saved", self.inputs)

        def forward(*arrays: Any) -> tuple[Array, Any]:
            if len(arrays) != len(self.inputs):
                call = f"{self.output}({', '.join(self.inputs)})"
                raise ShapeError(f"{call} takes {len(self.inputs)} arrays and got {len(arrays)}")
            return self.forward(**dict(zip(self.inputs, arrays, strict=True))), saved(*arrays)

        def backward(dY: Any, saved: Any, needs: Sequence[str]) -> list[Array | None]:
            wanted = [name for name in needs if name in self.differentiable]
            arrays = dict(zip(self.inputs, saved, strict=True))
            grads: Mapping[str, Array | None] = self._backward(dY, wanted, None, arrays)
            return [grads.get(name) for name in self.inputs]

        forward.__doc__ = f"{self.formula}\n\nDerived from its formula by `derive`."
        layer = Layer(self.output, self.formula, forward, backward, inputs=self.inputs)
        layer.derived = True
        return layer

    # -- as code -----------------------------------------------------------------------------------------------------

    def code(self, backend: str, /, **sizes: int) -> str:
        """Forward and backward as source text, which imports nothing of xwb.

        ``forward(*arrays)`` returns ``(Y, saved)``, ``backward(dY, saved)`` the gradients of `differentiable` in order.
        For PyTorch and JAX there is ``layer(*arrays)`` too, for autograd and ``jax.grad``.

        Args:
            backend: numpy, torch or jax.
            sizes: of indices by letter, for the order of products alone; the code holds for all sizes.

        Raises:
            OptionError: another backend.
            FormulaError: a letter that the formula does not have.
        """
        from ._code import code

        return code(self, backend, sizes)

    def _running(self, arrays: Mapping[str, Any]) -> Running | None:
        """The emitted code for PyTorch tensors or JAX arrays; None for NumPy's."""
        if all(isinstance(array, np.ndarray | int | float) for array in arrays.values()):
            return None
        from ._running import Running, framework

        backend = framework(arrays)
        if backend == "numpy":
            return None
        if backend not in self._runs:
            self._runs[backend] = Running(self, backend)
        return self._runs[backend]

    # -- binding -----------------------------------------------------------------------------------------------------

    def _bind(self, arrays: Mapping[str, Any], sizes: Mapping[str, int] | None) -> _Bound:
        program = self.program
        for name in arrays:
            if name not in self.inputs:
                hint = f"{unknown(name, self.inputs)}; its inputs: {', '.join(self.inputs) or 'none'}"
                if name in program.values:
                    hint = ": it is computed"
                raise pointed(program.text, f"{name} is no input of the formula{hint}")
        missing = [name for name in self.inputs if name not in arrays]
        if missing:
            raise pointed(
                program.text,
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
                *(program.spans[name] for name in missing),
                more=[f"pass {', '.join(f'{name}={name}' for name in missing)}"],
            )
        given = {name: np.asarray(arrays[name]) for name in self.inputs}
        numbers = [name for name in self.differentiable if type(arrays[name]) in (int, float)]
        floats = {array.dtype for name, array in given.items() if name not in numbers and array.dtype.kind == "f"}
        weak = floats.pop() if len(floats) == 1 else FLOATS[1]  # the dtype that plain numbers take
        given.update({name: np.asarray(arrays[name], dtype=weak) for name in numbers})
        dtype = self._dtype(given)
        shapes = {name: array.shape for name, array in given.items()}
        found = self.with_parts(solve(program, shapes, {**program.sizes, **checked_sizes(program, sizes)}))
        folded = {
            name: array.reshape([found.of[Range(name, axis)] for axis in range(program.ranks[name])])
            if program.leading[name]
            else array
            for name, array in given.items()
        }
        return _Bound(folded, shapes, found, dtype)

    def with_parts(self, sizes: Sizes) -> Sizes:
        """The sizes, those of named parts among them."""
        for statement in self.named.statements:
            for number, index in enumerate(statement.left):
                axis = Range(statement.name, number)
                sizes.of[axis] = sizes.of[index.range]
                if index.range in sizes.leading:
                    sizes.leading[axis] = sizes.leading[index.range]
        return sizes

    def _dtype(self, arrays: Mapping[str, Array]) -> np.dtype[Any]:
        for name in self.integers:
            if arrays[name].dtype.kind not in "iu":
                raise DtypeError(
                    f"{name} says which entries are read, so it holds integers\n"
                    f"{shapes_table([(name, arrays[name].shape, str(arrays[name].dtype))])}\n"
                    f"type  {name} = {name}.astype(np.int64)"
                )
        for name in self.program.compared:
            if arrays[name].dtype.kind not in "biuf":
                raise DtypeError(f"{name} is compared with numbers and holds {arrays[name].dtype}")
        floating = {
            name: arrays[name]
            for name in self.differentiable
            if name not in self.program.compared or arrays[name].dtype.kind == "f"
        }
        if not floating:
            return FLOATS[1]
        return one_dtype(self.formula, **floating)

    def _like_output(self, dY: Any, bound: _Bound) -> Array:
        """dY in the shape of the output, leading axes made one."""
        output = self.program.output
        folded = tuple(bound.sizes.of[index.range] for index in output.left)
        array = np.asarray(dY, bound.dtype) if isinstance(dY, int | float) else np.asarray(dY)
        shape = bound.sizes.shape(output)
        if array.shape != shape:
            table = shapes_table(
                [
                    (f"d{self.output}", array.shape, ""),
                    (self.output, shape, f"[{', '.join(index.letter for index in output.left)}]"),
                ]
            )
            raise ShapeError(f"backward(d{self.output}): d{self.output} has the shape of {self.output}\n{table}")
        if array.dtype != bound.dtype:
            raise DtypeError(
                f"backward(d{self.output}): d{self.output} is {array.dtype} and the inputs are {bound.dtype}; "
                f"type  d{self.output} = d{self.output}.astype(np.{bound.dtype.name})"
            )
        return array.reshape(folded)

    def _tangent(self, name: str, pair: tuple[Any, ...], bound: _Bound) -> Array:
        if len(pair) != 2:
            raise FormulaError(f"jvp({name}=…): a pair (array, tangent), and this has {len(pair)} entries")
        if name not in self.differentiable:
            raise FormulaError(f"jvp({name}=…): {name} has no gradient, so it has no tangent; pass {name}={name}")
        tangent = np.asarray(pair[1])
        if tangent.shape != bound.shapes[name]:
            table = shapes_table([(name, bound.shapes[name], ""), ("tangent", tangent.shape, "")])
            raise ShapeError(f"jvp({name}=({name}, tangent)): the tangent has the shape of {name}\n{table}")
        one_dtype(f"jvp({name}=({name}, tangent))", **{name: bound.arrays[name], "tangent": tangent})
        return tangent.reshape(bound.arrays[name].shape)

    def _evaluation(self, bound: _Bound) -> Evaluation:
        return Evaluation(bound.arrays, bound.sizes.of, bound.dtype)

    def _compute(self, evaluation: Evaluation, line: Assign) -> None:
        with np.errstate(all="ignore"):
            try:
                evaluation.arrays[line.name] = evaluation.value(line.body, line.left)
            except OutOfBounds as error:
                raise self._out_of_bounds(error) from None

    def _scatter(self, evaluation: Evaluation, term: Term, where: Read, target: Array | None) -> Array:
        try:
            return evaluation.scatter(term, where, target)
        except OutOfBounds as error:
            raise self._out_of_bounds(error) from None

    def _out_of_bounds(self, error: OutOfBounds) -> FormulaError:
        tensor, number, low, high, length = error.args
        axis = next(
            a
            for s in self.program.statements
            for a in s.axes
            if (a.tensor, a.number) == (tensor, number) and a.place.at.gathers
        )
        written = self.formula[axis.span.start : axis.span.end]
        names = ", ".join(dict.fromkeys(read.tensor for read in axis.place.at.gathers))
        return pointed(
            self.formula,
            f"{tensor}[{written}] reads from {low} to {high}, and there are entries 0 to {length - 1}",
            axis.span,
            more=[f"{names} must hold numbers from 0 to {length - 1}; negative ones do not count from the end"],
        )

    def _unfolded(self, array: Array, statement: Statement, bound: _Bound) -> Array:
        out: Array = array.reshape(bound.sizes.shape(statement))
        return out[()] if out.ndim == 0 else out

    # -- printing ----------------------------------------------------------------------------------------------------

    def _text(self) -> Text:
        """A printer with letters of its own."""
        return Text(Letters(self.classes, self.named.taken))

    @cached_property
    def explicit(self) -> str:
        """The formula with every sum written out."""
        text = self._text()
        return "; ".join(text.statement(s.name, s.left, s.body) for s in self.program.statements)

    def on_paper(self, /, **sizes: Any) -> Paper:
        """The small case with every entry written out, numbered as in Johnson's notes (source 004).

        ``print(d.on_paper(n=2, d=2, m=3))``; ``.latex()`` for a paper. Sizes are given by letter, as a tensor's shape
        ``x=(4,)`` where letters do not say it, and integer inputs by their values, ``k=[0, 2, 2]``.

        Raises:
            FormulaError: a size is missing, unknown, or too large to write out.
        """
        from ._paper import on_paper

        return on_paper(self, sizes)

    def latex(self) -> str:
        """Formula, steps and gradients in LaTeX, to be put into a document that loads amsmath."""
        from ._latex import latex

        return latex(self)

    def mathml(self) -> str:
        """Formula, gradients and their matrix forms in MathML: one ``math`` element for a page in HTML."""
        from ._mathml import mathml

        return mathml(self)

    def html(self, proof: Any = None) -> str:
        """One page in HTML that needs nothing else: formula, gradients, steps, the small case, costs, conditions.

        Args:
            proof: what `xwb.check` or `xwb.prove` found, to be shown too.

        Raises:
            TypeError: ``proof`` is neither.
            ValueError: it is of another layer.
        """
        from ._html import html

        return html(self, proof)

    def __str__(self) -> str:
        """A page for the terminal: formula, gradients with their forms and costs, steps, side conditions."""
        from ._page import page

        return page(self)

    def __repr__(self) -> str:
        return f"<derivation {self.formula}>"
