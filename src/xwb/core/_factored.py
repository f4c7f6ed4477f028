"""The weight gradient as the pair it is a product of: dW = Xᵀ dY, never formed.

A step only adds dW to W, and that is one BLAS call on (X, dY) with W as its accumulator. Norms, per-example norms,
clipping and second moments have closed forms in the factors too (Goodfellow 2015, arXiv:1510.01799, for the norms).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ._blas import Array, add_scaled, in_blas_order, product, refuse_unwritable, tile_rows
from ._errors import DataError, ShapeError, one_dtype, shapes_table

# Σ|K∘J| / ΣK∘J beyond which the Gram form has lost six of float64's sixteen digits; tiles lose only the root of it.
CANCELLATION = 1e6
# Rows and columns of a dW tile (2 MiB in float64), and the factor rows that are widened to float64 at a time.
TILE = 512
ROWS = 2048


class Term(NamedTuple):
    """``scale · leftᵀ right``: left R×D, right R×M; example n owns the n-th of ``examples`` equal runs of rows."""

    scale: float
    left: Array
    right: Array
    examples: int

    def rows(self, n: int) -> slice:
        """The rows of example ``n``."""
        each = self.left.shape[0] // self.examples
        return slice(n * each, (n + 1) * each)

    def by_row(self, of_examples: Array) -> Array:
        """A number per example, (N,), as a column with one per row, R×1."""
        return np.repeat(of_examples, len(self.left) // max(1, self.examples))[:, None]


# Terms over the same examples (a weight used twice). Different groups are different examples, one after the other.
Group = tuple[Term, ...]


class _Missing(AttributeError, TypeError):
    """An array attribute that a factored gradient does not have."""


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, numbers.Real)


def _refuse(what: str) -> NoReturn:
    raise TypeError(
        f"{what} is not defined for a factored gradient, whose dW is not formed; np.asarray(dW) forms the dense matrix"
    )


def _merge(groups: Sequence[Group], others: Sequence[Group]) -> tuple[Group, ...]:
    """Groups over the same examples, their terms side by side."""
    counts, other_counts = ([group[0].examples for group in part] for part in (groups, others))
    if counts != other_counts:
        raise ShapeError(
            f"same_examples=True: the gradients are over {counts} and {other_counts} examples; "
            "drop it to add the gradients of different examples"
        )
    return tuple(one + two for one, two in zip(groups, others, strict=True))


class FactoredGradient:
    """``dW = Xᵀ dY`` as a sum of terms (scale, left, right) that borrow X and dY; `copy` owns.

    Args:
        left: X, shape (N, ..., D), float32 or float64. The first axis counts the examples; later leading axes are
            summed inside an example.
        right: dY, shape (N, ..., M), same dtype.
        scale: a number in front.

    ::

        W -= 0.1 * dW              # one BLAS call into W
        np.asarray(dW)             # pays: the dense D×M matrix

    It can be scaled by a number (the dtype is kept), negated, added to another, added to or subtracted from an array
    in place, transposed, and multiplied with a vector or matrix. Everything else raises a `TypeError` that says
    ``np.asarray(dW)``.

    Changing X or dY before use changes the result. Values are those of the loss as reduced: under a mean over N
    examples each per-example gradient carries its 1/N.

    Raises:
        ShapeError, DtypeError: left and right do not belong together.
    """

    __slots__ = ("_dense", "_groups", "dtype", "shape")
    ndim = 2

    def __init__(self, left: Array, right: Array, scale: float = 1.0) -> None:
        left, right = np.asarray(left), np.asarray(right)
        dtype = one_dtype("FactoredGradient(X, dY)", X=left, dY=right)
        if min(left.ndim, right.ndim) == 0 or left.shape[:-1] != right.shape[:-1]:
            table = shapes_table([("X", left.shape, "[..., d]"), ("dY", right.shape, "[..., m]")])
            raise ShapeError(
                f"FactoredGradient(X, dY): leading axes differ\n{table}\ndW = Xᵀ dY sums over them: they must agree."
            )
        examples = left.shape[0] if left.ndim > 1 else 1
        rows = math.prod(left.shape[:-1])
        term = Term(float(scale), left.reshape(rows, left.shape[-1]), right.reshape(rows, right.shape[-1]), examples)
        self._groups: tuple[Group, ...] = ((term,),)
        self._dense: tuple[float, Array] | None = None
        self.shape = (left.shape[-1], right.shape[-1])
        self.dtype: np.dtype[Any] = dtype

    @classmethod
    def of_rows(cls, left: Array, right: Array, examples: int) -> FactoredGradient:
        """The gradient of operands that a layer has checked already: left R×D, right R×M."""
        made = object.__new__(cls)
        made._groups = ((Term(1.0, left, right, examples),),)
        made._dense = None
        made.shape = (left.shape[1], right.shape[1])
        made.dtype = left.dtype
        return made

    def with_groups(self, groups: Sequence[Group]) -> FactoredGradient:
        """The gradient with these terms, D×M as they say, in the place of its own."""
        made = self._with(groups)
        if made._groups:
            _, left, right, _ = made._groups[0][0]
            made.shape = (left.shape[1], right.shape[1])
        return made

    def _with(self, groups: Sequence[Group], dense: tuple[float, Array] | None = None) -> FactoredGradient:
        """One of this shape and dtype with other contents."""
        made = object.__new__(FactoredGradient)
        made._groups, made._dense = tuple(groups), dense
        made.shape, made.dtype = self.shape, self.dtype
        return made

    def _map(self, change: Callable[[Term], Term], dense: tuple[float, Array] | None) -> FactoredGradient:
        """Each term replaced by ``change(term)``, and the dense part by ``dense``."""
        return self._with([tuple([change(term) for term in group]) for group in self._groups], dense)

    # What it is

    @property
    def groups(self) -> tuple[Group, ...]:
        """The terms, those over the same examples together; the next group has the next examples."""
        return self._groups

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms (scale, left R×D, right R×M, examples), without a dense part that `+` may have made."""
        if len(self._groups) == 1:
            return self._groups[0]
        return tuple([term for group in self._groups for term in group])

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return sum(group[0].examples for group in self._groups)

    @property
    def nbytes(self) -> int:
        """Bytes of the factors, borrowed or not."""
        factors = sum(term.left.nbytes + term.right.nbytes for term in self.terms)
        return factors + (self._dense[1].nbytes if self._dense else 0)

    def __repr__(self) -> str:
        terms = f"{len(self.terms)} term{'s' * (len(self.terms) != 1)}" + " and a dense part" * bool(self._dense)
        dense = math.prod(self.shape) * self.dtype.itemsize
        return (
            f"FactoredGradient({self.shape[0]}×{self.shape[1]} {self.dtype}: {terms} over {self.examples} examples, "
            f"{self.nbytes:,} bytes of factors for {dense:,} bytes dense)"
        )

    def borrows(self, array: Array) -> bool:
        """Whether ``array`` may share memory with a factor: a step into it then needs a `copy`."""
        for _, left, right, _ in self.terms:
            if np.may_share_memory(array, left) or np.may_share_memory(array, right):
                return True
        return False

    def copy(self) -> FactoredGradient:
        """One that owns its arrays: later changes to X or dY do not reach it."""
        dense = self._dense and (self._dense[0], self._dense[1].copy())
        return self._map(lambda term: Term(term.scale, term.left.copy(), term.right.copy(), term.examples), dense)

    # The dense matrix, on request and into an array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a factored gradient has no dense matrix to share; np.asarray(dW) forms one")
        dense = np.empty(self.shape, self.dtype)
        self.add_into(dense, beta=0.0)
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def add_into(self, out: Array, alpha: float = 1.0, beta: float = 1.0) -> None:
        """``out ← beta · out + alpha · dW`` in place, by BLAS where ``out`` allows, else through a 2 MiB tile.

        Args:
            out: D×M, any real floating dtype and strides; it may share memory with X or dY.
            alpha: minus the learning rate, for a step.
            beta: μ for a velocity, 1 − lr·decay for decoupled decay; 0 overwrites what ``out`` holds.

        Raises:
            ShapeError: ``out`` is not D×M.
            ValueError, TypeError: NumPy's own, for a read-only ``out`` and for one of integers; it stays untouched.
        """
        if out.shape != self.shape:
            raise ShapeError(f"a gradient of shape {self.shape} cannot be added into an array of shape {out.shape}")
        refuse_unwritable(out, self.dtype)
        terms = self.copy().terms if self.borrows(out) else self.terms  # BLAS would read what it writes
        if out.dtype == self.dtype and in_blas_order(out):
            for scale, left, right, _ in terms:
                product(left.T, right, out, alpha * scale, beta)
                beta = 1.0
            if beta == 0.0:
                out.fill(0.0)
            elif beta != 1.0:
                out *= beta
            if self._dense:
                add_scaled(out, alpha * self._dense[0], self._dense[1])
            return
        for rows, columns, tile in self._tiles(terms, self.dtype):
            block = out[rows, columns]
            if beta == 0.0:
                block[...] = 0.0
            elif beta != 1.0:
                block *= beta
            tile *= alpha
            block += tile

    def _tiles(self, terms: Sequence[Term], dtype: Any) -> Iterator[tuple[slice, slice, Array]]:
        """(rows, columns, that block of dW) over the whole matrix, computed in ``dtype``."""
        D, M = self.shape
        for j in range(0, M, TILE):
            columns = slice(j, min(j + TILE, M))
            for i in range(0, D, TILE):
                rows = slice(i, min(i + TILE, D))
                tile = np.zeros((rows.stop - i, columns.stop - j), dtype)
                for scale, left, right, _ in terms:
                    for r in range(0, len(left), ROWS):
                        X = left[r : r + ROWS, rows].astype(dtype, copy=False)
                        dY = right[r : r + ROWS, columns].astype(dtype, copy=False)
                        product(X.T, dY, tile, scale, 1.0)
                if self._dense:
                    tile += self._dense[0] * self._dense[1][rows, columns]
                yield rows, columns, tile

    # The closed set of operations

    def _scaled(self, number: Any) -> FactoredGradient:
        factor = float(number)
        dense = self._dense and (factor * self._dense[0], self._dense[1])
        return self._map(lambda term: Term(factor * term.scale, term.left, term.right, term.examples), dense)

    def __mul__(self, other: Any) -> FactoredGradient:
        return self._scaled(other) if _is_number(other) else _refuse("multiplication by anything but a number")

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> FactoredGradient:
        return (
            self._scaled(np.divide(1.0, float(other)))
            if _is_number(other)
            else _refuse("division by anything but a number")
        )

    def __neg__(self) -> FactoredGradient:
        return self._scaled(-1.0)

    def __add__(self, other: Any) -> FactoredGradient:
        if not isinstance(other, FactoredGradient):
            _refuse("addition to anything but a factored gradient")
        return self.add(other)

    def __radd__(self, other: Any) -> FactoredGradient:
        if not (isinstance(other, int) and other == 0):  # where sum(gradients) starts
            _refuse("addition to anything but a factored gradient")
        return self

    def add(self, other: FactoredGradient, *, same_examples: bool = False) -> FactoredGradient:
        """``dW1 + dW2``, of the next micro-batch or, with ``same_examples``, of a weight's second use.

        Factors are kept until the dense matrix is smaller; then the sum holds that, and per-example quantities are
        no longer known. Over the same examples factors are always kept.

        Raises:
            ShapeError: other shapes, or other numbers of examples with ``same_examples``.
        """
        if self.shape != other.shape:
            raise ShapeError(f"gradients of shapes {self.shape} and {other.shape} cannot be added")
        if self.dtype != other.dtype:
            one_dtype("dW1 + dW2", dW1=self, dW2=other)
        if same_examples and not (self._dense or other._dense):
            return self._with(_merge(self._groups, other._groups))
        parts = [part._dense for part in (self, other) if part._dense]
        if len(parts) < 2:
            made = self._with(self._groups + other._groups, parts[0] if parts else None)
            factors = made.nbytes - (parts[0][1].nbytes if parts else 0)
            if factors < math.prod(self.shape) * self.dtype.itemsize:
                return made
        dense: Array = np.asarray(self)
        other.add_into(dense)
        return self._with((), (1.0, dense))

    @property
    def T(self) -> FactoredGradient:
        """The transpose, M×D: the factors change sides."""
        dense = self._dense and (self._dense[0], self._dense[1].T)
        made = self._map(lambda term: Term(term.scale, term.right, term.left, term.examples), dense)
        made.shape = (self.shape[1], self.shape[0])
        return made

    def __matmul__(self, other: Any) -> Array:
        """``dW @ B`` as Xᵀ (dY B), for a vector (M,) or a matrix (M, C) of the same dtype."""
        if isinstance(other, FactoredGradient):
            _refuse("the product of two factored gradients")
        B = np.asarray(other)
        one_dtype("dW @ B", dW=self, B=B)
        if B.ndim not in (1, 2) or len(B) != self.shape[1]:
            raise ShapeError(
                f"dW @ B: dW is {self.shape} and B is {B.shape}; B has to start with an axis of {self.shape[1]}"
            )
        columns = B if B.ndim == 2 else B[:, None]
        out = np.zeros((self.shape[0], columns.shape[1]), self.dtype)
        for scale, left, right, _ in self.terms:
            product(left.T, product(right, columns), out, scale, 1.0)
        if self._dense:
            product(self._dense[1], columns, out, self._dense[0], 1.0)
        return out if B.ndim == 2 else out[:, 0]

    def __rmatmul__(self, other: Any) -> Array:
        """``A @ dW`` as (A Xᵀ) dY."""
        A = np.asarray(other)
        one_dtype("A @ dW", A=A, dW=self)
        if A.ndim not in (1, 2) or A.shape[-1] != self.shape[0]:
            raise ShapeError(
                f"A @ dW: A is {A.shape} and dW is {self.shape}; A has to end with an axis of {self.shape[0]}"
            )
        return (self.T @ A.T).T

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        """The operators with an array or a NumPy scalar on the left, ``W -= dW`` above all."""
        if method == "__call__" and not kwargs:
            first, last = inputs[0], inputs[-1]
            if out is not None:
                if ufunc in (np.add, np.subtract) and first is out[0] and last is self:
                    self.add_into(first, alpha=1.0 if ufunc is np.add else -1.0)
                    return first
            elif ufunc is np.multiply:
                return self * (first if last is self else last)
            elif ufunc is np.true_divide and first is self:
                return self / last
            elif ufunc is np.negative:
                return -self
            elif ufunc is np.matmul:
                return self @ last if first is self else self.__rmatmul__(first)
        _refuse(f"np.{ufunc.__name__}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        _refuse(f"np.{func.__name__}")

    def __getattr__(self, name: str) -> NoReturn:
        raise _Missing(f"a factored gradient has no {name!r}; np.asarray(dW) forms the dense matrix")

    # Quantities of the gradient

    def norm(self) -> float:
        """‖dW‖, the Frobenius norm, in float64.

        ‖Xᵀ dY‖² = ⟨X Xᵀ, dY dYᵀ⟩ where these Gram matrices are cheaper than dW; by tiles of dW, computed in float64
        and dropped, where they are not and where examples cancel so that the Gram form would lose its digits.
        """
        return math.sqrt(self._squared_norm())

    def _squared_norm(self) -> float:
        rows = sum(len(term.left) for term in self.terms)
        D, M = self.shape
        if not self._dense and rows * (D + M) < 2 * D * M:
            squared, magnitude = self._gram()
            if not magnitude > CANCELLATION * squared:  # a NaN stays what it is
                return squared
        return sum(float(np.einsum("dm,dm->", tile, tile)) for _, _, tile in self._tiles(self.terms, np.float64))

    def _gram(self) -> tuple[float, float]:
        """ΣK∘J and Σ|K∘J| with K = X Xᵀ and J = dY dYᵀ, block by block."""
        each = tile_rows(sum(self.shape), ROWS, 8)
        blocks = [
            (term.scale, term.left[r : r + each], term.right[r : r + each])
            for term in self.terms
            for r in range(0, len(term.left), each)
        ]
        squared = magnitude = 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            for i, (scale, left, right) in enumerate(blocks):
                X, dY = left.astype(np.float64, copy=False), right.astype(np.float64, copy=False)
                for j, (other_scale, other_left, other_right) in enumerate(blocks[: i + 1]):
                    KJ = product(X, other_left.astype(np.float64, copy=False).T)
                    KJ *= product(dY, other_right.astype(np.float64, copy=False).T)
                    KJ *= scale * other_scale * (1 if i == j else 2)  # the blocks above the diagonal are its mirror
                    squared += float(KJ.sum())
                    magnitude += float(np.abs(KJ).sum())
        return squared, magnitude

    def _known_examples(self, quantity: str) -> None:
        if self._dense:
            raise DataError(
                f"{quantity}: the examples are not known any more; adding micro-batches made a dense matrix, which "
                "was smaller than the factors. Take per-example quantities before adding"
            )

    def _each(self) -> Iterator[FactoredGradient]:
        """The gradient of one example after the other, as views of the factors."""
        for group in self._groups:
            for n in range(group[0].examples):
                yield self._with([tuple(Term(t.scale, t.left[t.rows(n)], t.right[t.rows(n)], 1) for t in group)])

    @staticmethod
    def _one_row_each(group: Group) -> bool:
        return len(group) == 1 and len(group[0].left) == group[0].examples

    def per_example(self) -> Array:
        """The N×D×M gradients g_n, one per example, on request only: they sum to dW."""
        self._known_examples("per_example")
        gradients = np.empty((self.examples, *self.shape), self.dtype)
        for n, one in enumerate(self._each()):
            one.add_into(gradients[n], beta=0.0)
        return gradients

    def per_example_norms(self) -> Array:
        """The N norms ‖g_n‖ in float64, never forming g_n: ‖x_n‖ ‖dy_n‖ where an example has one row."""
        self._known_examples("per_example_norms")
        norms = np.empty(self.examples)
        start = 0
        for group in self._groups:
            part = norms[start : start + group[0].examples]
            start += len(part)
            if self._one_row_each(group):
                ((scale, left, right, _),) = group
                part[:] = abs(scale) * _row_norms(left) * _row_norms(right)
            else:
                part[:] = [one.norm() for one in self._with([group])._each()]
        return norms

    def second_moment(self) -> Array:
        """Σ_n g_n², entry by entry, D×M: the product (X²)ᵀ(dY²) where an example has one row."""
        self._known_examples("second_moment")
        moment = np.zeros(self.shape)
        for group in self._groups:
            if self._one_row_each(group):
                ((scale, left, right, _),) = group
                for r in range(0, len(left), ROWS):  # in float64: the squares of float32 overflow apart
                    X2 = np.square(left[r : r + ROWS], dtype=np.float64)
                    dY2 = np.square(scale * right[r : r + ROWS].astype(np.float64))
                    moment += product(X2.T, dY2)
            else:
                dense = np.empty(self.shape, self.dtype)
                for one in self._with([group])._each():
                    one.add_into(dense, beta=0.0)
                    moment += np.square(dense, dtype=np.float64)
        return moment.astype(self.dtype, copy=False)


def _refuses(operator: str) -> Any:
    def refuse(self: FactoredGradient, *_: Any) -> NoReturn:
        _refuse(operator)

    return refuse


# Python's operators and conversions outside the closed set.
_OUTSIDE = (
    "sub rsub mod rmod floordiv rfloordiv divmod rdivmod pow rpow rtruediv and rand or ror xor rxor "
    "lshift rlshift rshift rrshift pos abs invert round eq ne lt le gt ge "
    "len iter contains getitem setitem delitem float int complex index"
)
for _name in _OUTSIDE.split():
    setattr(FactoredGradient, f"__{_name}__", _refuses(f"__{_name}__"))


def _row_norms(A: Array) -> Array:
    """‖a_n‖ of each row in float64."""
    squares: Array = np.einsum("ni,ni->n", A, A, dtype=np.float64)
    return np.sqrt(squares)
