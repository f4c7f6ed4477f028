"""``xwb predict``."""

from __future__ import annotations

import io
from pathlib import Path

import click

from ._output import say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.npy")
@click.option("--out", type=click.Path(path_type=Path), help="Write to this .npy or .csv file instead.")
@click.option("--proba", is_flag=True, help="The probability of every class as well; an svm has none.")
def predict(run: Path, file: Path, out: Path | None, proba: bool) -> None:
    """Label images with the model of a run: one label per line.

    FILE.npy holds images of digits, shape (n, 8, 8) or (n, 64), or one of (8, 8) or (64,), with pixel values from 0
    (paper) to 16 (ink). With --proba a line is the label and the ten probabilities, and a .npy file holds the
    probabilities alone.
    """
    import numpy as np

    from ..core import OptionError
    from ..runs import write_bytes
    from ..training import Classifier, as_features, read_images

    if out is not None and out.suffix not in (".npy", ".csv"):
        raise OptionError(f"--out ends in .npy or .csv; got {out}")
    classifier = Classifier.load(run)
    X = as_features(read_images(file))
    labels = classifier.predict(X)
    probabilities = classifier.probabilities(X) if proba else None

    separator = "\t" if out is None else ","
    if out is not None and out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, labels if probabilities is None else probabilities, allow_pickle=False)
        write_bytes(out, buffer.getvalue())
        return
    lines = [str(label) for label in labels]
    names = ["label"]
    if probabilities is not None:
        lines = [
            separator.join([line, *(f"{p:.6f}" for p in row)]) for line, row in zip(lines, probabilities, strict=True)
        ]
        names += [f"p{label}" for label in range(probabilities.shape[1])]
    if out is None:
        if lines:
            say("\n".join(lines))
    else:
        write_bytes(out, "".join(f"{line}\n" for line in [separator.join(names), *lines]).encode())
