"""A trained head or small network: what it reads, what it answers, and the file that it is kept in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import FLOATS, Array, Chain, DataError, DtypeError, OptionError, RunError, ShapeError, XwbError, chain
from ..data import Block, Column, Table
from ..layers import linear, softmax
from ..runs import Run
from ._class_codes import Class
from ._model_checks import ACTIVATIONS, check_arrays, check_words
from ._model_file import metadata_of, settings_of
from ._roles import matched, scalar_names, stacked

BLOCK = 1 << 21  # bytes of the widest float64 array of a block; as text it takes ten times as many


class Model:
    """``scores = chain(linear, activation, ..., linear)`` over standardised features.

    Args:
        params: arrays W1, b1, ..., Wk, bk, all float32 or all float64, Wi of shape (D_i, D_{i+1}); borrowed.
        loss: that it was trained with: ``"softmax"``, ``"squared_hinge"``, ``"hinge"`` or ``"squared_error"``.
        task: ``"classification"``, one score per class, or ``"regression"``, one per target.
        columns: the features in order; their widths add up to D.
        mean, scale: (D,), of the features as they are read: (X − mean) / scale is what W1 sees.
        classes: of a classification, all int, all str or all bool, in the order of the scores.
        targets: of a regression, their names.
        activation: between linear layers: ``"relu"``, ``"tanh"``, ``"gelu"`` or ``"sigmoid"``.
        kind: of the hinges, ``"weston_watkins"`` or ``"crammer_singer"``.
        fingerprint: of the rows for training and validation, by which `evaluate` knows them again.
        dtypes: of the training file's columns, by name; only kept.

    Raises:
        OptionError, ShapeError, DtypeError, DataError: they do not fit together, or hold what is not finite.
    """

    def __init__(
        self,
        params: Sequence[Array],
        *,
        loss: str,
        task: str,
        columns: Sequence[Column],
        mean: Array,
        scale: Array,
        classes: Sequence[Class] = (),
        targets: Sequence[str] = (),
        activation: str = "relu",
        kind: str = "weston_watkins",
        fingerprint: str = "",
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        self.params = list(params)
        self.loss, self.task, self.activation, self.kind = loss, task, activation, kind
        self.columns = tuple(columns)
        self.mean, self.scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
        self.classes: list[Class] = [one.item() if isinstance(one, np.generic) else one for one in classes]
        self.targets = list(targets)
        self.fingerprint, self.dtypes = fingerprint, dict(dtypes or {})
        check_words(self)
        check_arrays(self)
        self.sizes = (len(self.params[0]), *(len(b) for b in self.params[1::2]))
        self.dtype = self.params[0].dtype
        self.net = network(len(self.params) // 2, activation)
        self._values = _class_values(self.classes) if self.classes else None

    @property
    def block_rows(self) -> int:
        """Rows that are worth reading at a time, two megabytes of them."""
        return max(16, BLOCK // (8 * max(self.sizes)))

    def scores(self, X: Any, *, where: str = "", first: int = 0) -> Array:
        """Shape (n, K), in the parameters' dtype: logits, what a hinge compares, or predictions of targets.

        Args:
            X: features as the files have them, (n, D), numbers or booleans; standardised here, in float64.
            where, first: the name of the table that X is from, and how many of its rows are before, for messages.

        Raises:
            ShapeError, DtypeError: X is no matrix of D numbers a row.
            DataError: a feature is missing or infinite, or too large for the parameters' dtype.
        """
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != self.sizes[0]:
            raise ShapeError(f"Model.scores(X): X has the shape {X.shape} and needs (n, {self.sizes[0]})")
        if X.dtype.kind not in "biuf":
            raise DtypeError(f"Model.scores(X): X is {X.dtype}, and features are real numbers")
        with np.errstate(over="ignore", invalid="ignore"):
            Z = np.subtract(X, self.mean, dtype=np.float64)
            Z /= self.scale
            Z = Z.astype(self.dtype, copy=False)
        if not np.isfinite(Z).all():
            n, d = np.argwhere(~np.isfinite(Z))[0].tolist()
            raise self._unusable(X, n, d, _row(where, first + n))
        with np.errstate(over="ignore", invalid="ignore"):
            scores: Array = self.net.forward(Z, *self.params)[0]
        if not np.isfinite(scores).all():
            n = int(np.argmin(np.isfinite(scores).all(1)))
            raise DataError(f"{_row(where, first + n)}: its features are so large that the scores leave {self.dtype}")
        return scores

    def _unusable(self, X: Array, n: int, d: int, row: str) -> DataError:
        name, value = scalar_names(self.columns)[d], X[n, d]
        if np.isfinite(value):
            return DataError(f"{row}: {name} is {value}, too large for a model in {self.dtype}")
        fact = "missing (NaN)" if np.isnan(value) else str(value)
        return DataError(f"{row}: {name} is {fact}; the model needs a finite number for every feature")

    def predict(self, X: Any) -> Array:
        """The class of each row, (n,) of int64, bool or text; of a regression the predictions, (n, K).

        Text is of dtype ``StringDType``; integers beyond int64 are text too, of dtype ``U``.

        Raises:
            ShapeError, DtypeError, DataError: as `scores`.
        """
        return self.decided(self.scores(X))

    def decided(self, scores: Array) -> Array:
        """What `predict` answers for these scores, (n, K); of equal scores the first counts."""
        return scores if self._values is None else self._values[scores.argmax(axis=1)]

    def probabilities(self, X: Any) -> Array:
        """Softmax of the scores, shape (n, K).

        Raises:
            OptionError: it was trained with another loss than softmax, whose scores are no logarithms of probabilities.
            ShapeError, DtypeError, DataError: as `scores`.
        """
        self.refuse_probabilities()
        return self.normalised(self.scores(X))

    def normalised(self, scores: Array) -> Array:
        """What `probabilities` answers for these scores, (n, K)."""
        self.refuse_probabilities()
        probabilities: Array = softmax.forward(scores)[0]
        return probabilities

    def refuse_probabilities(self) -> None:
        """Raise `OptionError` unless the model was trained with softmax."""
        if self.loss != "softmax":
            what = "predicts numbers" if self.task == "regression" else "gives scores"
            raise OptionError(
                f"a model trained with {self.loss} {what}, not probabilities; train with the loss softmax"
            )

    def folded(self, dtype: Any = None) -> list[Array]:
        """Parameters that take features as they are: ``X @ W1 + b1`` with W1 / scale and b1 − mean / scale · W1.

        They are computed in float64 and rounded once. What is lost is not in them but in the sum: X @ W1 and b1 cancel
        where a feature's mean is far from 0, and the scores then move by about ε Σ_d |mean_d / scale_d · W1_d|, with
        ε = 6e-8 in float32 and 1e-16 in float64. An offset of 1e9 scales leaves nothing in float32 and seven digits in
        float64; features near 0 lose nothing that matters.

        Args:
            dtype: float32 or float64; None for the one of the parameters.

        Raises:
            OptionError: another dtype, or one too small for W1 / scale.
        """
        target = self.dtype if dtype is None else np.dtype(dtype)
        if target not in FLOATS:
            raise OptionError(f"Model.folded: dtype is float32 or float64; got {target}")
        W, b = (array.astype(np.float64) for array in self.params[:2])
        with np.errstate(over="ignore", invalid="ignore"):
            W /= self.scale[:, None]
            b -= self.mean @ W
            folded = [array.astype(target) for array in (W, b, *self.params[2:])]
        if not all(np.isfinite(array).all() for array in folded):
            raise OptionError(f"Model.folded: W1 / scale leaves {target}; type  model.folded(np.float64)")
        return folded

    def read(self, table: Table, rows: int) -> Iterator[Array]:
        """The features of a table, ``rows`` rows of (n, D) at a time, found by name and width in any order.

        Raises:
            DataError: by the call itself: columns are missing, are text or have another width; several would fit.
        """
        return (X for X, _ in self.read_with(table, rows, ()))

    def read_with(
        self, table: Table, rows: int, more: Sequence[str], as_text: Collection[str] = ()
    ) -> Iterator[tuple[Array, Block]]:
        """As `read`, each with the block it comes from, in which the columns ``more`` are too."""
        fields = matched(table, self.columns)
        names = [field.column.name for field in fields]
        blocks = fields[0].table.blocks(list(dict.fromkeys([*names, *more])), rows, as_text)
        return ((stacked([block[name] for name in names]), block) for block in blocks)

    def save(self, run: Run) -> None:
        """Write the run's ``model.safetensors``; the same model gives the same bytes.

        Raises:
            RunError: it cannot be written.
        """
        tensors = dict(zip(self.net.params, self.params, strict=True))
        run.save_model({**tensors, "mean": self.mean, "scale": self.scale}, metadata_of(self))

    @classmethod
    def load(cls, run: Run | str | os.PathLike[str]) -> Model:
        """The model of a run.

        Raises:
            RunError: it is no run, has no model, or the model is damaged, of another kind or not finite.
        """
        run = run if isinstance(run, Run) else Run.open(run)
        tensors, metadata = run.load_model()
        settings = settings_of(metadata, str(run.model_path))
        try:
            mean, scale = tensors.pop("mean"), tensors.pop("scale")
            names = [f"{letter}{i}" for i in range(1, len(tensors) // 2 + 1) for letter in "Wb"]
            if set(names) != set(tensors):
                raise ShapeError(f"its tensors are {', '.join(sorted(tensors))}, and W1, b1, W2, … are expected")
            if mean.dtype != np.float64 or scale.dtype != np.float64:
                raise DtypeError("mean and scale are not float64")
            return cls([tensors[name] for name in names], mean=mean, scale=scale, **settings)
        except KeyError as error:
            raise RunError(f"{run.model_path} holds no model that this xwb reads: it lacks {error}") from error
        except (XwbError, TypeError, ValueError) as error:
            raise RunError(f"{run.model_path} holds no model that this xwb reads: {error}") from error


def network(linears: int, activation: str) -> Chain:
    """``chain(linear, activation, ..., linear)`` with so many linear layers."""
    between = ACTIVATIONS[activation]
    return chain(linear, *(layer for _ in range(linears - 1) for layer in (between, linear)))


def _row(where: str, n: int) -> str:
    """``people.csv, row 18``, counted from 1."""
    return f"{where}, row {n + 1}" if where else f"row {n + 1}"


def _class_values(classes: Sequence[Class]) -> Array:
    """The classes as an array, (K,), never of objects."""
    if isinstance(classes[0], str):
        with contextlib.suppress(UnicodeEncodeError):  # a .npy file may hold half a character
            return np.array(classes, np.dtypes.StringDType())
    values = np.array(classes)  # of integers beyond int64 it would be of objects, or unsigned
    return values if values.dtype in (np.bool_, np.int64) else np.array([str(one) for one in classes])
