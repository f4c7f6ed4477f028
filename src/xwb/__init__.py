"""Y = XW + b and its backward pass: computed in closed form, checked, and trained with."""

from .algebra import derive
from .core import (
    DataError,
    DivergedError,
    DtypeError,
    FactoredGradient,
    FormulaError,
    Layer,
    Loss,
    OptionError,
    ProofError,
    RunError,
    ShapeError,
    XwbError,
    append_ones,
    chain,
    clip_per_example,
    fold_bias,
    jacobian,
)
from .layers import (
    gelu,
    linear,
    multiclass_hinge,
    relu,
    sigmoid,
    softmax,
    softmax_cross_entropy,
    squared_error,
    tanh,
)
from .proof import check, prove
from .training import SGD, Adam, AdamW, train

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "DataError",
    "DivergedError",
    "DtypeError",
    "FactoredGradient",
    "FormulaError",
    "Layer",
    "Loss",
    "OptionError",
    "ProofError",
    "RunError",
    "ShapeError",
    "XwbError",
    "__version__",
    "append_ones",
    "chain",
    "check",
    "clip_per_example",
    "derive",
    "fold_bias",
    "gelu",
    "jacobian",
    "linear",
    "multiclass_hinge",
    "prove",
    "relu",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
    "tanh",
    "train",
]
