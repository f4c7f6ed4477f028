"""Pages assembled from derivations, proofs and runs."""

from ._digits import render_report, write_report

__all__ = ["render_report", "write_report"]
