"""Tables read whole, for comparison with what other readers make of the same file."""

from __future__ import annotations

import numpy as np


def whole(table, names, rows=7, as_text=()):
    """The named columns, each in one array, and a check that every block but the last has ``rows`` rows."""
    blocks = [{n: a.copy() for n, a in block.items()} for block in table.blocks(names, rows, as_text)]
    sizes = [{len(a) for a in block.values()} for block in blocks]
    assert all(size == {rows} for size in sizes[:-1])
    assert all(len(size) == 1 and 0 < min(size) <= rows for size in sizes)
    assert all(list(block) == list(names) for block in blocks)
    return {name: np.concatenate([block[name] for block in blocks]) for name in names} if blocks else {}
