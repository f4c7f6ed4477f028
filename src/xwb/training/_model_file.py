"""What ``model.safetensors`` says of a model beside its arrays: strings of JSON by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core import RunError
from ..data import Column

if TYPE_CHECKING:
    from ._model import Model

FORMAT = "xwb model 1"
NAMES = ("loss", "task", "activation", "kind", "classes", "targets", "columns", "fingerprint", "dtypes")


def metadata_of(model: Model) -> dict[str, str]:
    """``format``, then the settings of the model, each as JSON."""
    settings = {name: getattr(model, name) for name in NAMES}
    return {"format": FORMAT, **{name: json.dumps(value, sort_keys=True) for name, value in settings.items()}}


def settings_of(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """The settings again, as `Model` takes them.

    Raises:
        RunError: it is another format, or a setting is missing or of another type.
    """
    format = metadata.get("format")
    if format != FORMAT:
        raise RunError(f"{where} holds no model that this xwb reads: its format is {format!r}, and {FORMAT!r} is read")
    try:
        settings = {name: json.loads(metadata[name]) for name in NAMES}
        settings["columns"] = [_column(*entry) for entry in settings["columns"]]
        for name in ("classes", "targets"):
            if not isinstance(settings[name], list):
                raise TypeError(f"{name} is no list")
        for name in ("loss", "task", "activation", "kind", "fingerprint"):
            if not isinstance(settings[name], str):
                raise TypeError(f"{name} is no text")
    except KeyError as error:
        raise RunError(f"{where} holds no model that this xwb reads: it lacks {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{where} holds no model that this xwb reads: {error}") from error
    return settings


def _column(name: Any, kind: Any, width: Any) -> Column:
    if not isinstance(name, str) or not isinstance(kind, str) or not (width is None or type(width) is int):
        raise TypeError(f"a column is {[name, kind, width]!r}")
    return Column(name, kind, width)
