"""People's files as tables: named columns read in blocks of rows, never the whole file at once."""

from ._table import Block, Column, Table

__all__ = ["Block", "Column", "Table"]
