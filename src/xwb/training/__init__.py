"""Optimizers, the loop, people's files prepared, heads and networks fitted to them, and the job on the digits."""

from ._classifier import Classifier, Score
from ._digits import Digits, Split, as_features, load_digits, read_images, stratified_split
from ._evaluate import evaluate
from ._fit import Fit, fit
from ._fit_options import FitOptions
from ._fitted import Event, Fitted
from ._gradient_problem import GradientProblem, gradient_problem
from ._job import DigitsJob, DigitsOptions, Epoch
from ._metric_lines import lines as metric_lines
from ._model import Model
from ._optim import SGD, Adam, AdamState, AdamW, Optimizer, SGDState, global_norm
from ._prepare import Prepared, prepare
from ._train import StepRecord, train
from ._working_set import working_set

__all__ = [
    "SGD",
    "Adam",
    "AdamState",
    "AdamW",
    "Classifier",
    "Digits",
    "DigitsJob",
    "DigitsOptions",
    "Epoch",
    "Event",
    "Fit",
    "FitOptions",
    "Fitted",
    "GradientProblem",
    "Model",
    "Optimizer",
    "Prepared",
    "SGDState",
    "Score",
    "Split",
    "StepRecord",
    "as_features",
    "evaluate",
    "fit",
    "global_norm",
    "gradient_problem",
    "load_digits",
    "metric_lines",
    "prepare",
    "read_images",
    "stratified_split",
    "train",
    "working_set",
]
