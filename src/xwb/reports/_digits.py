"""The report of a run of ``xwb train digits``, from its folder alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Array, RunError
from ..pages import facts, section, table
from ..runs import Run
from ..training import Classifier, as_features, load_digits, stratified_split
from ._chart import Curve, line_chart, linear_axis, log_axis
from ._matrix import confusion_table
from ._pixels import diverging, ink
from ._run_page import results, run_page, written

MISTAKES_SHOWN = 60
UNITS_SHOWN = 128
NAMES = {"softmax": "softmax cross-entropy", "svm": "multiclass hinge"}


def write_report(run: Run | str | os.PathLike[str]) -> Path:
    """Write ``report.html`` of a digits run and return its path.

    Raises:
        RunError: the folder is no finished or interrupted run of this job, was trained on other data, its files do not
            belong together, or it cannot be written.
    """
    return written(run, render_report)


def render_report(run: Run) -> str:
    """The page as text; the test images are labelled anew by the stored model.

    Raises:
        RunError: as `write_report`.
    """
    record = results(run, "digits")
    digits = load_digits()
    if record["data"]["sha256"] != digits.sha256:
        raise RunError(f"{run.path} was trained on other data than this xwb ships, so it cannot be reported")
    metrics = run.metrics()
    if record["best_epoch"] not in [line["epoch"] for line in metrics]:
        raise RunError(f"{run.metrics_path} lacks epoch {record['best_epoch']}, which {run.record_path} names the best")
    classifier = Classifier.load(run)
    rows = stratified_split(digits.labels, record["seed"]).test
    images, labels = digits.images[rows], digits.labels[rows].astype(np.intp)
    X = as_features(images)
    said = classifier.predict(X)
    bare = len(classifier.sizes) == 2
    shape = "–".join(map(str, classifier.sizes))
    model = f"bare {shape} linear classifier" if bare else f"{shape} relu network"
    title = f"Handwritten digits, seed {record['seed']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>A {escape(model)}, trained with {NAMES[classifier.loss]} on "
        f"{record['data']['split']['train']:,} images of 8×8 pixels by hand-derived gradients.</p>",
    ]
    if record["status"] != "finished":
        body.append(
            f'<p class="notice">Training was interrupted: {metrics[-1]["epoch"]} of '
            f"{record['options']['epochs']} epochs were begun.</p>"
        )
    body += [
        _headline(record, int((said == labels).sum()), len(labels)),
        section("Training", *_curves(record, metrics)),
        section("Confusion on the test images", *_confusion(said, labels)),
        section("What it got wrong", *_mistakes(classifier, X, images, labels, rows)),
        section("The weight of each class", *_class_weights(classifier.params[0]))
        if bare
        else section("What the first layer looks at", *_units(classifier.params)),
        section("Gradient check", *_gradient_check(record["gradient_check"], classifier)),
        section("How it was made", _provenance(record, classifier)),
    ]
    return run_page(title, body)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _headline(record: dict[str, Any], right: int, total: int) -> str:
    metrics = record["metrics"]
    return facts(
        [
            ("test accuracy", f"{_percent(metrics['test']['accuracy'])} <small>{right} of {total}</small>"),
            ("validation accuracy", _percent(metrics["validation"]["accuracy"])),
            ("training accuracy", _percent(metrics["train"]["accuracy"])),
            ("test loss", f"{metrics['test']['loss']:.3f}"),
            ("best epoch", f"{record['best_epoch']} <small>of {record['options']['epochs']}</small>"),
            ("training time", f"{record['training_seconds']:.1f} <small>s</small>"),
        ],
        "numbers",
    )


def _curves(record: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> list[str]:
    epochs = [line["epoch"] for line in metrics]
    x = linear_axis(0, max(1, epochs[-1]), least=1)
    best = record["best_epoch"]
    at_best = next(line for line in metrics if line["epoch"] == best)
    charts = []
    for quantity in ("loss", "accuracy"):
        curves = [Curve(part, part, [line[part][quantity] for line in metrics]) for part in ("train", "validation")]
        everything = [value for curve in curves for value in curve.values]
        if quantity == "loss":
            y = log_axis(everything)
            label = "loss (logarithmic)" if y.logarithmic else "loss"
        else:
            # The first epochs climb from 10 %; the axis shows where the curves spend their time.
            low = np.floor(20 * np.quantile(everything, 0.05)) / 20
            y, label = linear_axis(min(float(low), 0.95), 1.0, unit=0.01, suffix=" %"), "accuracy"
        last = ", ".join(f"{curve.name} {curve.values[-1]:.4g}" for curve in curves)
        charts.append(
            "<figure>"
            + line_chart(
                quantity,
                f"{quantity.capitalize()} by epoch",
                f"{quantity} after each of {epochs[-1]} epochs, training and validation part; at the end {last}.",
                x,
                y,
                "epoch",
                label,
                epochs,
                curves,
                (best, at_best["validation"][quantity], f"epoch {best} kept"),
            )
            + "</figure>"
        )
    return [
        '<div class="charts">',
        *charts,
        "</div>",
        '<figcaption><span class="key train"></span> training part &ensp; <span class="key validation"></span> '
        f"validation part. The parameters kept are those of epoch {best}, the best validation accuracy (of equal ones "
        "the lowest loss). The test part had no say in any choice.</figcaption>",
    ]


def _confusion(said: Array, labels: Array) -> list[str]:
    classes = range(int(labels.max()) + 1)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, said), 1)
    return [
        confusion_table(counts.tolist(), list(map(str, classes))),
        "<figcaption>Each row is what the images are, each column what the model said. Recall is the share of a row on "
        "the diagonal.</figcaption>",
    ]


def _mistakes(classifier: Classifier, X: Array, images: Array, labels: Array, numbers: Array) -> list[str]:
    softmax = classifier.loss == "softmax"
    values = classifier.probabilities(X) if softmax else classifier.scores(X)
    said = values.argmax(axis=1)
    wrong = np.flatnonzero(said != labels)
    wrong = wrong[np.argsort(-values[wrong, said[wrong]], kind="stable")]
    if not len(wrong):
        return ["<p>Nothing: every test image was labelled right.</p>"]
    cards = []
    for i in wrong[:MISTAKES_SHOWN]:
        answer, truth = (
            _percent(values[i, label]) if softmax else f"{values[i, label]:+.2f}" for label in (said[i], labels[i])
        )
        cards.append(
            f'<li><img src="{ink(images[i], 16)}" width="64" height="64" alt="test image of a {labels[i]}">'
            f"<span>said <b>{said[i]}</b> &nbsp;{answer}<br>is <b>{labels[i]}</b> &nbsp;{truth}<br>"
            f'<span class="muted">image {numbers[i]}</span></span></li>'
        )
    what = "probability" if softmax else "score (an svm has no probabilities)"
    shown = f" The first {MISTAKES_SHOWN} are shown." if len(wrong) > MISTAKES_SHOWN else ""
    images_are = "image is" if len(wrong) == 1 else "images are"
    return [
        f"<p>{len(wrong)} of {len(labels)} test {images_are} labelled wrong, the surest mistake first; with each label "
        f"stands the {what} the model gave it.{shown}</p>",
        '<ul class="cards">',
        *cards,
        "</ul>",
    ]


def _ramp(largest: float) -> str:
    return f'<figcaption>−{largest:.2f} <span class="ramp"></span> +{largest:.2f} &ensp; '


def _class_weights(W: Array) -> list[str]:
    largest = float(np.abs(W).max())
    tiles = [
        f'<figure><img src="{diverging(column.reshape(8, 8), largest)}" width="96" height="96" '
        f'alt="weights of class {label}"><figcaption>{label}</figcaption></figure>'
        for label, column in enumerate(W.T)
    ]
    return [
        "<p>Column m of W as an image. Ink on a blue pixel speaks for the class, ink on an orange one against it.</p>",
        '<div class="weights">',
        *tiles,
        "</div>",
        _ramp(largest) + "weight per unit of ink (pixel / 16), one scale for all classes</figcaption>",
    ]


def _units(params: Sequence[Array]) -> list[str]:
    W1, W2 = params[0], params[2]
    weight = np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=1)
    units = np.argsort(-weight, kind="stable")[:UNITS_SHOWN]
    largest = float(np.quantile(np.abs(W1), 0.998))  # a few extremes would pale the rest
    tiles = [
        f'<img src="{diverging(W1[:, unit].reshape(8, 8), largest)}" width="38" height="38" alt="">' for unit in units
    ]
    several = f"The {len(units)} units" if len(units) == W1.shape[1] else f"{len(units)} of {W1.shape[1]} units"
    return [
        f"<p>{several} of the first hidden layer, each drawn as its 64 incoming weights (a column of W1); those that "
        "weigh most, by the norms of their incoming and outgoing weights, come first.</p>",
        f'<div class="units" role="img" aria-label="first-layer weights of {len(units)} units">',
        *tiles,
        "</div>",
        _ramp(largest) + "one scale for all units</figcaption>",
    ]


def _gradient_check(check: dict[str, Any] | None, classifier: Classifier) -> list[str]:
    if check is None:
        return ["<p>This run was made without one.</p>"]
    sizes = {name: param.shape for name, param in zip(classifier.net.params, classifier.params, strict=True)}
    rows = [
        (
            row["name"],
            _entries(row["shape"], sizes[row["name"]]),
            "(" + ", ".join(map(str, row["worst"])) + ")",
            f"{row['closed_form']:+.10e}",
            f"{row['numeric']:+.10e}",
            f"{row['relative']:.1e}",
            f"{row['allowed']:.1e}",
            "agrees" if row["relative"] <= row["allowed"] else "DISAGREES",
        )
        for row in check["rows"]
    ]
    header = ("parameter", "entries", "at", "closed form", "finite difference", "relative", "allowed", "")
    return [
        "<p>Before training, the gradient of the loss with respect to every parameter, by the hand-derived backward "
        f"pass and by central differences in float64, on a batch of {check['examples']} images. Shown is the entry of "
        "each where the two differ most.</p>",
        table(header, rows, numbers=(3, 4, 5, 6)),
        "<figcaption>relative: the difference over the largest entry of the gradient.</figcaption>",
    ]


def _entries(checked: Sequence[int], whole: Sequence[int]) -> str:
    """``64×128``, or ``1024 of 64×256`` where only some entries were checked."""
    words = "×".join(map(str, whole))
    return words if list(checked) == list(whole) else f"{checked[0]} of {words}"


def _provenance(record: dict[str, Any], classifier: Classifier) -> str:
    def code(text: str) -> str:
        return f"<code>{escape(text)}</code>"

    options, data = record["options"], record["data"]
    command = shlex.join(record["command"]) if record["command"] else "DigitsJob(...).run(...), from Python"
    split = ", ".join(f"{name} {size:,}" for name, size in data["split"].items())
    statements = classifier.net.formula.split("; ")
    return facts(
        [
            ("command", code(command)),
            ("model", "<br>".join(map(code, statements))),
            (
                "optimizer",
                f"SGD, learning rate {options['lr']:g} falling linearly to 0, momentum {options['momentum']:g}, "
                f"weight decay {options['weight_decay']:g}, gradient norm at most {options['max_norm']:g}, "
                f"{options['batch']} images per step",
            ),
            ("seed", str(record["seed"])),
            ("started", escape(record["started"])),
            ("versions", escape(", ".join(f"{name} {number}" for name, number in record["versions"].items()))),
            ("platform", escape(record["platform"])),
            ("data", f"{data['examples']:,} images, split by class: {escape(split)}; pixel values divided by 16"),
            ("data sha256", code(data["sha256"])),
            ("source", escape(data["credit"])),
        ]
    )
