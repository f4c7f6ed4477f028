"""A classifier of digits: linear layers with relu between them, and the loss that trains it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Chain, Loss, OptionError, RunError, chain
from ..layers import linear, multiclass_hinge, relu, softmax, softmax_cross_entropy
from ..runs import Run
from ._digits import DARKEST

LOSSES: dict[str, Loss] = {"softmax": softmax_cross_entropy, "svm": multiclass_hinge}


class Score(NamedTuple):
    """Mean loss per example, and the fraction of examples labelled right."""

    loss: float
    accuracy: float


class Classifier:
    """``scores = chain(linear, relu, ..., linear)`` over features, one score per class; the largest names the class.

    Args:
        sizes: the widths (D, hidden..., M): 64 features, any number of hidden layers, 10 classes.
        params: arrays W1, b1, W2, ... of those widths, borrowed.
        loss: ``"softmax"`` (cross-entropy) or ``"svm"`` (the multiclass hinge of Weston and Watkins).

    Every method takes features X of shape (N, D) and the dtype of the parameters; `as_features` makes them from images.
    """

    def __init__(self, sizes: Sequence[int], params: Sequence[Array], loss: str = "softmax") -> None:
        if loss not in LOSSES:
            raise OptionError(f"loss is one of {', '.join(LOSSES)}; got {loss!r}")
        self.sizes = tuple(sizes)
        self.params = list(params)
        self.loss = loss
        self.net = _net(len(self.sizes) - 1)

    @classmethod
    def fresh(cls, sizes: Sequence[int], loss: str = "softmax", *, rng: Any) -> Classifier:
        """With the parameters that `Layer.init` draws from ``rng``, in float32."""
        return cls(sizes, _net(len(sizes) - 1).init(sizes, rng=rng), loss)

    def scores(self, X: Array) -> Array:
        """Shape (N, M): logits, or for the svm what the hinge compares."""
        scores: Array = self.net.forward(X, *self.params)[0]
        return scores

    def predict(self, X: Array) -> Array:
        """The class of each row, shape (N,), integers."""
        labels: Array = self.scores(X).argmax(axis=1)
        return labels

    def probabilities(self, X: Array) -> Array:
        """Softmax of the scores, shape (N, M).

        Raises:
            OptionError: the classifier was trained as an svm, whose scores are no logarithms of probabilities.
        """
        if self.loss != "softmax":
            raise OptionError("an svm gives scores, not probabilities; train with the loss softmax")
        probabilities: Array = softmax.forward(self.scores(X))[0]
        return probabilities

    def evaluate(self, X: Array, y: Array) -> Score:
        """Mean loss and accuracy over examples; y has shape (N,)."""
        scores = self.scores(X)
        loss = LOSSES[self.loss].forward(scores, y)[0]
        return Score(float(loss), float(np.mean(scores.argmax(axis=1) == y)))

    def save(self, run: Run) -> None:
        """Write the run's ``model.safetensors``; the same parameters give the same bytes.

        Raises:
            RunError: it cannot be written.
        """
        metadata = {
            "format": "xwb classifier 1",
            "layers": " ".join(layer.name for layer in self.net.layers),
            "sizes": " ".join(map(str, self.sizes)),
            "loss": self.loss,
            "features": f"pixel / {DARKEST}",
            "classes": " ".join(map(str, range(self.sizes[-1]))),
        }
        run.save_model(dict(zip(self.net.params, self.params, strict=True)), metadata)

    @classmethod
    def load(cls, run: Run | str | os.PathLike[str]) -> Classifier:
        """The classifier of a run.

        Raises:
            RunError: it is no run, has no model, or the model is damaged, of another kind or not finite.
        """
        run = run if isinstance(run, Run) else Run.open(run)
        params, metadata = run.load_model()
        try:
            sizes = [int(size) for size in metadata["sizes"].split()]
            net = _net(len(sizes) - 1)
            classifier = cls(sizes, [params[name] for name in net.params], metadata["loss"])
            known = (metadata["format"], metadata["features"]) == ("xwb classifier 1", f"pixel / {DARKEST}")
        except (KeyError, ValueError) as error:
            raise RunError(f"{run.model_path} holds no classifier of xwb: {error}") from error
        if not known:
            raise RunError(f"{run.model_path} holds no classifier that this xwb reads")
        stated = [shape for D, M in pairwise(sizes) for shape in ((D, M), (M,))]
        if [param.shape for param in classifier.params] != stated:
            raise RunError(f"{run.model_path} holds parameters of other sizes than the {sizes} it states")
        if not all(np.isfinite(param).all() for param in classifier.params):
            raise RunError(f"{run.model_path} holds parameters that are not finite")
        return classifier


def _net(linears: int) -> Chain:
    return chain(linear, *(layer for _ in range(linears - 1) for layer in (relu, linear)))
