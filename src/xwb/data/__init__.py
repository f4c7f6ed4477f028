"""People's files as tables: named columns read in blocks of rows, never the whole file at once."""

from ._arrays import ArrayTable
from ._base import FileTable
from ._open import SUFFIXES, open_table
from ._table import Block, Column, Table

__all__ = ["SUFFIXES", "ArrayTable", "Block", "Column", "FileTable", "Table", "open_table"]
