"""The run folder, and the one file through which everything is written."""

from ._run import Run, refuse_foreign
from ._store import make_folder, write_bytes, write_text

__all__ = ["Run", "make_folder", "refuse_foreign", "write_bytes", "write_text"]
