"""Index notation -> derivation -> closed form -> code."""

from . import _tree as tree
from ._derivation import Derivation, Gradient, derive
from ._latex import latex
from ._page import page
from ._text import parse

__all__ = ["Derivation", "Gradient", "derive", "latex", "page", "parse", "tree"]
