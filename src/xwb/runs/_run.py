"""The run folder: what a training job leaves behind.

=====================  ==================================================================================
``run.json``           how the run was made and what came out; the file that makes a folder a run
``metrics.jsonl``      one line of JSON per epoch, written as the epoch ends
``model.safetensors``  the parameters by name, what they mean, and a checksum
``report.html``        the same for the eye
=====================  ==================================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core import Array, RunError
from . import _store
from ._model import model_bytes, read_model

FORMAT = "xwb run 1"


class Run:
    """A run folder on disk; make one with `create` or `open`.

    Attributes:
        path: the folder.
        record: what ``run.json`` holds; `save_record` writes it.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        self._made: list[Path] = []
        self._unlock: Callable[[], object] = lambda: None

    @classmethod
    def create(cls, path: str | os.PathLike[str], record: Mapping[str, Any]) -> Run:
        """Begin a run in ``path``, with status ``"running"``; the files of an older run there are removed.

        Until `close`, no other process (nor this one) can begin a run there.

        Raises:
            RunError: ``path`` exists and is no run, is being written by another, or cannot be written.
        """
        path = Path(path)
        refuse_foreign(path)
        run = cls(path, {"format": FORMAT, "status": "running", **record})
        run._made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
        _store.make_folder(path)
        lock = _store.lock_folder(path)
        if lock is not None:
            run._unlock = weakref.finalize(run, os.close, lock)
        # The old run.json goes last, by being replaced: until then the folder stays one that may be overwritten.
        for old in (run.model_path, run.metrics_path, run.report_path):
            _store.remove(old)
        run.save_record()
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """The run in ``path``.

        Raises:
            RunError: ``path`` is no run, or was written by another version of the format.
        """
        path = Path(path)
        if not os.path.isdir(path):  # a name that is too long is an error to Path.is_dir
            raise RunError(f"{path} is no run: there is no such folder")
        record = _read_record(path)
        if record is None:
            raise RunError(f"{path} is no run: it has no run.json written by xwb")
        if record["format"] != FORMAT:
            raise RunError(f"{path} is a run of the format {record['format']!r}; this xwb reads {FORMAT!r}")
        return cls(path, record)

    @property
    def record_path(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    def save_record(self, **entries: Any) -> None:
        """Add ``entries`` to the record and write ``run.json``. Raises `RunError` if that fails."""
        self.record.update(entries)
        _store.write_json(self.record_path, self.record)

    def add_metrics(self, *metrics: Mapping[str, Any]) -> None:
        """Add a line each to ``metrics.jsonl``, on disk when this returns. Raises `RunError` if that fails."""
        _store.append_json_lines(self.metrics_path, metrics)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line torn by a power cut is left out.

        Raises:
            RunError: the file cannot be read.
        """
        try:
            text = self.metrics_path.read_text(encoding="utf-8")
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.metrics_path}: {error}") from error

    def save_model(self, params: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Write ``model.safetensors``. Raises `RunError` if that fails."""
        _store.write_bytes(self.model_path, model_bytes(params, metadata))

    def load_model(self) -> tuple[dict[str, Array], dict[str, str]]:
        """Parameters by name, and their metadata.

        Raises:
            RunError: the run has no model, or its file is damaged.
        """
        if not self.model_path.exists():
            raise RunError(f"{self.path} has no model; the run's status is {self.record.get('status')!r}")
        return read_model(self.model_path)

    def save_report(self, page: str) -> None:
        """Write ``report.html``. Raises `RunError` if that fails."""
        _store.write_text(self.report_path, page)

    def close(self) -> None:
        """Let others begin a run in the folder; what is forgotten without it is closed too."""
        self._unlock()

    def discard(self) -> None:
        """Remove the run's files, and the folders that `create` made if they are empty then; not after `close`."""
        for path in (self.model_path, self.metrics_path, self.report_path, self.record_path):
            _store.remove(path)
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()


def refuse_foreign(path: Path) -> None:
    """Raise `RunError` if ``path`` holds anything but a run or nothing: only a run is overwritten."""
    if not os.path.lexists(path):
        above = next((folder for folder in path.parents if os.path.lexists(folder)), path)
        if os.path.isfile(above):
            raise RunError(f"cannot write {path}: {above} is no folder")
        return
    if not path.is_dir():
        raise RunError(f"{path} exists and is no folder; a run is a folder, give another one")
    if _read_record(path) is None and any(path.iterdir()):
        raise RunError(f"{path} exists and is no run of xwb, so it is left alone; give another folder")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((path / "run.json").read_bytes())
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and str(record.get("format", "")).startswith("xwb run ")
    return record if ours else None
