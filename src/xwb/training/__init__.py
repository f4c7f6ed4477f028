"""Optimizers, the loop, and the job that trains a classifier of the digits that ship with xwb."""

from ._classifier import Classifier, Score
from ._digits import Digits, Split, as_features, load_digits, read_images, stratified_split
from ._evaluate import evaluate
from ._gradient_problem import GradientProblem, gradient_problem
from ._job import DigitsJob, DigitsOptions, Epoch
from ._metric_lines import lines as metric_lines
from ._model import Model
from ._optim import SGD, Adam, AdamState, AdamW, Optimizer, SGDState, global_norm
from ._train import StepRecord, train

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
    "GradientProblem",
    "Model",
    "Optimizer",
    "SGDState",
    "Score",
    "Split",
    "StepRecord",
    "as_features",
    "evaluate",
    "global_norm",
    "gradient_problem",
    "load_digits",
    "metric_lines",
    "read_images",
    "stratified_split",
    "train",
]
