"""Closed forms against finite differences."""

from ._check import Report, Row, check

__all__ = ["Report", "Row", "check"]
