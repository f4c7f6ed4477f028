"""What has to hold of a model's settings and arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..core import FLOATS, DataError, DtypeError, OptionError, ShapeError
from ..layers import gelu, relu, sigmoid, tanh
from ._objective import KINDS, LOSSES
from ._roles import width

if TYPE_CHECKING:
    from ._model import Model

ACTIVATIONS = {"relu": relu, "tanh": tanh, "gelu": gelu, "sigmoid": sigmoid}
TASKS = {loss: "regression" if loss == "squared_error" else "classification" for loss in LOSSES}


def check_words(model: Model) -> None:
    """Raise `OptionError` unless the loss, the task, the classes or targets and so on fit together."""
    for name, value, allowed in (
        ("loss", model.loss, TASKS),
        ("activation", model.activation, ACTIVATIONS),
        ("kind", model.kind, KINDS),
    ):
        if value not in allowed:
            raise OptionError(f"Model: {name} is one of {', '.join(allowed)}; got {value!r}")
    if model.task != TASKS[model.loss]:
        raise OptionError(f"Model: the loss {model.loss} is one of {TASKS[model.loss]}, not of {model.task!r}")
    names, others = ("classes", "targets") if model.task == "classification" else ("targets", "classes")
    if not getattr(model, names) or getattr(model, others):
        raise OptionError(f"Model: a {model.task} has {names} and no {others}")
    types = {type(one) for one in model.classes}
    if len(types) > 1 or not types <= {int, str, bool} or len(set(model.classes)) < len(model.classes):
        raise OptionError(f"Model: classes are all int, all str or all bool, and no two are equal; got {model.classes}")


def check_arrays(model: Model) -> None:
    """Raise unless the parameters, mean and scale fit together and are finite, and every scale is positive."""
    params, D = model.params, width(model.columns)
    matrices, biases = params[::2], params[1::2]
    if not params or len(params) % 2 or any(W.ndim != 2 for W in matrices):
        raise ShapeError("Model: params are W1, b1, ..., Wk, bk, and every W has two axes")
    K = len(model.classes or model.targets)
    fits = [W.shape[1:] == b.shape for W, b in zip(matrices, biases, strict=True)]
    fits += [W.shape[1] == V.shape[0] for W, V in pairwise(matrices)]
    if not all(fits) or matrices[0].shape[0] != D or matrices[-1].shape[1] != K:
        shapes = ", ".join(str(array.shape) for array in params)
        raise ShapeError(f"Model: params of the shapes {shapes} do not lead from D = {D} features to K = {K} scores")
    if model.mean.shape != (D,) or model.scale.shape != (D,):
        raise ShapeError(f"Model: mean {model.mean.shape} and scale {model.scale.shape} have the shape (D,) = ({D},)")
    if params[0].dtype not in FLOATS or any(array.dtype != params[0].dtype for array in params):
        raise DtypeError("Model: params are all float32 or all float64")
    if not all(np.isfinite(array).all() for array in (*params, model.mean, model.scale)):
        raise DataError("Model: its arrays hold what is not finite")
    if not (model.scale > 0).all():
        raise DataError("Model: every scale is positive")
