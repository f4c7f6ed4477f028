"""The run folder, and the one file through which everything is written."""

from ._run import Run, refuse_foreign
from ._store import make_folder, replacing, write_bytes, write_text

__all__ = ["Run", "make_folder", "refuse_foreign", "replacing", "write_bytes", "write_text"]
