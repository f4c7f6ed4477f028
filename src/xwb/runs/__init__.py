"""The run folder, and the one file through which it is written."""

from ._run import Run, refuse_foreign
from ._store import write_bytes

__all__ = ["Run", "refuse_foreign", "write_bytes"]
