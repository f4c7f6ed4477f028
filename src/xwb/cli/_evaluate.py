"""``xwb evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._output import say

if TYPE_CHECKING:
    from ..data import Table
    from ..training import Model


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", type=click.Path(path_type=Path), metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--target",
    metavar="COLUMN|LABELS.npy",
    help="The column with the labels, or a file of them, one a row (default: the column it was trained with); several "
    "targets are COLUMN,COLUMN.",
)
@click.option(
    "--weights",
    metavar="COLUMN",
    help="The column with the weight of each row (default: the column it was trained with, where FILE has it).",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object instead; its list of classes is by position."
)
def evaluate(run: Path, files: tuple[Path, ...], target: str | None, weights: str | None, as_json: bool) -> None:
    """Measure the model of a run on rows with labels.

    FILE is as for predict. A label is the class that has its value: 3, 3.0 and the text "3" are the same class; a label
    that the model does not know is an error.
    """
    from ..core import RunError
    from ..data import open_table
    from ..runs import Run
    from ..training import Model, metric_lines
    from ..training import evaluate as evaluate_model

    opened = Run.open(run)
    if opened.record.get("job") != "fit":
        raise RunError(f"{run} is no run with a model of rows; evaluate reads runs of  xwb train FILE")
    model = Model.load(opened)
    table = open_table(files[0] if len(files) == 1 else files)
    columns, labels = _target(table, target, opened.record, model.targets)
    weights, notes = _weights(table, weights, opened.record)
    result = evaluate_model(model, table, columns, labels=labels, weights=weights)
    if result["trained_on"]:
        notes.append("these are the rows it was trained on: expect less of new ones")
    if as_json:
        say(json.dumps({**result, "weights": weights, **_names(model)}, indent=2))
    else:
        if notes:
            say("".join(f"note           {note}\n" for note in notes))
        names = [str(one) for one in model.classes or model.targets]
        say("\n".join(metric_lines(result, names, weights is not None)))


def _names(model: Model) -> dict[str, Any]:
    """What the numbers of classes or targets in the result stand for, by position."""
    return {"classes": model.classes} if model.classes else {"targets": model.targets}


def _target(
    table: Table, given: str | None, record: dict[str, Any], targets: list[str]
) -> tuple[list[str], Table | None]:
    """The columns of the table, or the table of labels, that the command line or else the run names."""
    from ..core import OptionError
    from ..data import SUFFIXES, open_table

    there = {column.name for column in table.columns}
    trained = record.get("options", {}).get("target")
    wanted = given if given is not None else trained
    if not isinstance(wanted, str):
        return list(wanted or targets), None
    if wanted in there:
        return [wanted], None
    if wanted.lower().endswith(tuple(SUFFIXES)):
        if given is None:
            raise OptionError(
                f"the run was trained with the labels in {wanted}, which are not those of {table.name}; "
                "type  --target LABELS.npy  or  --target COLUMN"
            )
        labels = open_table(given or "")
        if len(labels.columns) != 1:
            raise OptionError(f"--target {given} has {len(labels.columns)} columns, and a file of labels has one")
        return [], labels
    several = [name.strip() for name in wanted.split(",")]
    return (several if set(several) <= there else [wanted]), None


def _weights(table: Table, given: str | None, record: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The column of weights that the command line or else the run names, and what to know of it."""
    trained = record.get("options", {}).get("weights")
    if given is not None or trained is None:
        return given, []
    if trained in {column.name for column in table.columns}:
        return trained, [f"rows weigh what the column {trained} says, as in training; --weights COLUMN takes another"]
    return None, [
        f"rows count 1 each: {table.name} lacks the weights of training, {trained}; --weights COLUMN names others"
    ]
