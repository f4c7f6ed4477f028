"""Pages assembled from derivations, proofs and runs."""

from ._digits import render_report, write_report
from ._fit import render_fit_report, write_fit_report
from ._gallery import GALLERY, Entry, Shown
from ._gallery_pages import gallery_index, gallery_markdown, write_gallery

__all__ = [
    "GALLERY",
    "Entry",
    "Shown",
    "gallery_index",
    "gallery_markdown",
    "render_fit_report",
    "render_report",
    "write_fit_report",
    "write_gallery",
    "write_report",
]
