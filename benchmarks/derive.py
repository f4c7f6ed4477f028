"""What `xwb.derive` takes.

python benchmarks/derive.py              # the table of docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import statistics
import time

import xwb
from _formulas import FORMULAS
from _measure import machine


def derivations() -> None:
    """Milliseconds to derive: ready to run, with every gradient's formula, with the whole page of steps."""
    print("| layer | derive | … and all formulas | … and the page |\n|---|---|---|---|")
    for name, text in FORMULAS.items():
        samples = []
        for _ in range(21):
            started = time.perf_counter()
            d = xwb.derive(text)
            ready = time.perf_counter()
            for tensor in d.differentiable:
                _ = d[tensor].formula
            printed = time.perf_counter()
            str(d)
            samples.append((ready - started, printed - started, time.perf_counter() - started))
        medians = (f"{statistics.median(column) * 1e3:.1f} ms" for column in zip(*samples, strict=True))
        print(f"| {name} | {' | '.join(medians)} |")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(machine("numpy", "scipy"), "\n")
    derivations()
