"""What a layer is, and what all rooms share: products, the factored gradient, errors."""

from ._bias import append_ones, fold_bias
from ._blas import Array, add_scaled, column_sums, dot, in_blas_order, norm, product, refuse_unwritable
from ._chain import Chain, chain
from ._clip import clip_per_example
from ._errors import (
    FLOATS,
    DataError,
    DivergedError,
    DtypeError,
    FormulaError,
    OptionError,
    ProofError,
    RunError,
    ShapeError,
    XwbError,
    listed,
    one_dtype,
    shapes_table,
    two_sizes,
    unknown,
)
from ._factored import FactoredGradient, Term
from ._jacobian import jacobian
from ._lapack import cholesky, symmetric_eigen
from ._layer import Layer, Loss, named_tuple

__all__ = [
    "FLOATS",
    "Array",
    "Chain",
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
    "Term",
    "XwbError",
    "add_scaled",
    "append_ones",
    "chain",
    "cholesky",
    "clip_per_example",
    "column_sums",
    "dot",
    "fold_bias",
    "in_blas_order",
    "jacobian",
    "listed",
    "named_tuple",
    "norm",
    "one_dtype",
    "product",
    "refuse_unwritable",
    "shapes_table",
    "symmetric_eigen",
    "two_sizes",
    "unknown",
]
