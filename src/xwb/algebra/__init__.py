"""Index notation -> derivation -> closed form -> code."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import _tree as tree
    from ._derivation import Derivation, Gradient
    from ._html import html
    from ._inputs import Fit, Input, Size, Slot, fit, slots
    from ._latex import latex
    from ._mathml import mathml
    from ._page import closed_forms, page
    from ._text import parse

__all__ = [
    "Derivation",
    "Fit",
    "Gradient",
    "Input",
    "Size",
    "Slot",
    "closed_forms",
    "derive",
    "fit",
    "html",
    "latex",
    "mathml",
    "page",
    "parse",
    "slots",
    "tree",
]


def derive(text: str, sizes: Mapping[str, int] | None = None) -> Derivation:
    """Derive the backward pass of a layer written in index notation.

    Args:
        text: one or more statements, ``"Y[n,m] = X[n,d] W[d,m] + b[m]"``; the grammar is in ``docs/derive.md``.
        sizes: sizes of indices by letter, fixed for everything made from it.

    Returns:
        A `Derivation`: ``d["W"].formula``, ``d["W"].steps``, ``d.forward(X=X, W=W, b=b)``, ``d.backward(dY, X=…)``.

    Raises:
        FormulaError: the text does not follow the grammar; the message points at the characters.
    """
    from ._derivation import Derivation

    return Derivation(text, sizes)


# The engine is imported when it is asked for, so that `import xwb` does not pay for it.
_HOMES = {
    "Derivation": "_derivation",
    "Fit": "_inputs",
    "Gradient": "_derivation",
    "Input": "_inputs",
    "Size": "_inputs",
    "Slot": "_inputs",
    "closed_forms": "_page",
    "fit": "_inputs",
    "html": "_html",
    "latex": "_latex",
    "mathml": "_mathml",
    "page": "_page",
    "parse": "_text",
    "slots": "_inputs",
}


def __getattr__(name: str) -> Any:
    if name == "tree":
        return importlib.import_module("._tree", __name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
