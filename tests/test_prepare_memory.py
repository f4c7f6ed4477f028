"""Preparing more than the budget costs no more than the budget: the peak of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

BUDGET = 180_000_000  # without one the peaks are 390 MB and 100 MB
ROWS, WIDTH = 300_000, 256  # × 4 bytes = 307 MB
LINES = 230_000  # of 20 numbers, 40 MB

PREPARE = r"""
import re, resource, sys
from pathlib import Path
import numpy as np
from xwb.training._prepare import prepare

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # Linux lets ru_maxrss begin at what the parent, pytest, had
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

source, target, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])
with prepare(source, target, memory=budget) as data:
    seen = []
    for part in data.parts.values():
        seen.append(sum(len(block.X) for block in part.blocks()))
        seen.append(sum(len(batch.X) for batch in part.batches(256, np.random.default_rng(0))))
    print(peak(), data.streamed, *seen)
"""


def _npy(folder):
    X = np.random.default_rng(0).standard_normal((1000, WIDTH), np.float32)
    with open(folder / "X.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (ROWS, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(ROWS // len(X)):
            X.tofile(file)
    np.save(folder / "y.npy", np.arange(ROWS) % 10)
    return folder / "X.npy", folder / "y.npy", ROWS


def _csv(folder):
    rng = np.random.default_rng(0)
    with open(folder / "a.csv", "w") as file:
        file.write(",".join(f"x{i}" for i in range(20)) + ",label\n")
        lines = [",".join(f"{x:.4f}" for x in row) + ",c" for row in rng.standard_normal((1000, 20))]
        for i in range(LINES // 1000):
            file.writelines(f"{line}{(i + j) % 3}\n" for j, line in enumerate(lines))
    return folder / "a.csv", "label", LINES


def _run(source, target, budget):
    command = [sys.executable, "-c", PREPARE, str(source), str(target), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, streamed, *seen = done.stdout.split()
    return int(peak), streamed == "True", [int(n) for n in seen]


@pytest.mark.parametrize(("write", "budget"), [(_npy, BUDGET), (_csv, 90_000_000)])
def test_the_peak_is_within_the_budget(tmp_path, write, budget):
    source, target, rows = write(tmp_path)
    peak, streamed, seen = _run(source, target, budget)
    for path in tmp_path.iterdir():  # pytest keeps the folders of the last runs
        path.unlink()
    assert streamed
    train, validation = seen[::2]
    assert seen == [train, train, validation, validation]
    assert train + validation == rows
    print(peak)
    assert peak < budget
