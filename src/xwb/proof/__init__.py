"""Formula, closed form and finite difference against each other."""

from ._check import Report, Row, check

__all__ = ["Report", "Row", "check"]
