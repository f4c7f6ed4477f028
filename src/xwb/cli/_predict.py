"""``xwb predict``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._output import pour, say
from ._predictions import SUFFIXES, CsvLines, JsonLines, Lines, NpyFile

if TYPE_CHECKING:
    from ..core import Array
    from ..runs import Run
    from ..training import Model

DIGITS_SUFFIXES = (".npy", ".csv")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", type=click.Path(path_type=Path), metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write to this .csv, .tsv, .npy or .jsonl file instead, all or none."
)
@click.option("--proba", is_flag=True, help="The probability of every class as well; only softmax has them.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def predict(run: Path, files: tuple[Path, ...], out: Path | None, proba: bool, quiet: bool) -> None:
    """Label rows with the model of a run: one prediction per line.

    FILE is a table with the columns that the model was trained on, in any order and among others; several files of one
    format, or a folder of them, are one table. Lines are CSV: a class with a comma in its name is quoted. With --proba
    a header comes first, and a line is the label and the probability of every class; a .npy file holds the
    probabilities alone. Files of rows that the model cannot read end the command with what was printed so far.

    For a run of digits FILE.npy holds images, shape (n, 8, 8) or (n, 64), or one of (8, 8) or (64,), with pixel values
    from 0 (paper) to 16 (ink), and --out is a .npy or .csv file.
    """
    from ..runs import Run

    opened = Run.open(run)
    if opened.record.get("job") == "fit":
        _rows(opened, files, out, proba, quiet)
    else:
        _digits(run, files, out, proba, quiet)


def _rows(run: Run, files: tuple[Path, ...], out: Path | None, proba: bool, quiet: bool) -> None:
    from ..runs import replacing
    from ..training import Model

    _check_out(out, SUFFIXES)
    model = Model.load(run)
    if proba:
        model.refuse_probabilities()
    scores = _scores(model, files)
    if out is None:
        lines = CsvLines(model, proba)
        read = quiet or pour(lines.head if proba else "")
        while read and (block := next(scores, None)) is not None:
            read = quiet or pour(lines.block(block))
        return
    if any(file.exists() and out.exists() and os.path.samefile(file, out) for file in files):
        raise click.UsageError(f"--out {out} is the file that is read; give it another name")
    with replacing(out) as file:
        if out.suffix == ".npy":
            array = NpyFile(file, model, proba)
            for block in scores:
                array.add(block)
            array.finish()
            return
        text: Lines = JsonLines(model, proba)
        if out.suffix != ".jsonl":
            text = CsvLines(model, proba, "\t" if out.suffix == ".tsv" else ",")
        file.write(text.head.encode("utf-8", "backslashreplace"))
        for block in scores:
            file.write(text.block(block).encode("utf-8", "backslashreplace"))


def _scores(model: Model, files: tuple[Path, ...]) -> Iterator[Array]:
    """Those of one block after another; what is wrong with the table's columns is raised by the call itself."""
    from ..data import open_table

    table = open_table(files[0] if len(files) == 1 else files)
    blocks = model.read(table, model.block_rows)

    def scored() -> Iterator[Array]:
        first = 0
        for X in blocks:
            yield model.scores(X, where=table.name, first=first)
            first += len(X)

    return scored()


def _check_out(out: Path | None, suffixes: tuple[str, ...]) -> None:
    from ..core import OptionError

    if out is not None and out.suffix not in suffixes:
        raise OptionError(f"--out ends in {', '.join(suffixes[:-1])} or {suffixes[-1]}; got {out}")


def _digits(run: Path, files: tuple[Path, ...], out: Path | None, proba: bool, quiet: bool) -> None:
    import numpy as np

    from ..runs import write_bytes
    from ..training import Classifier, as_features, read_images

    _check_out(out, DIGITS_SUFFIXES)
    if len(files) > 1:
        raise click.UsageError(f"a run of digits takes one file of images; got {len(files)}")
    classifier = Classifier.load(run)
    X = as_features(read_images(files[0]))
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
        if lines and not quiet:
            say("\n".join(lines))
    else:
        write_bytes(out, "".join(f"{line}\n" for line in [separator.join(names), *lines]).encode())
