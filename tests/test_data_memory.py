"""Reading a large file costs its blocks: the peak of a process of its own, which reads 200 MB."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

ROWS, WIDTH = 400_000, 64  # × 8 bytes = 205 MB
PART = ROWS // 20
GROWTH = 60_000  # kilobytes

READ = r"""
import re, resource, sys
from pathlib import Path
import numpy as np
from xwb.data import open_table

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # Linux lets ru_maxrss begin at what the parent, pytest, had
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)

if sys.argv[1].endswith("parquet"):
    import pyarrow.parquet
table = open_table(sys.argv[1])
name = table.columns[0].name
before, rows, total = peak(), 0, 0.0
for block in table.blocks([name], 512):
    rows += len(block[name])
    total += float(block[name][0, 0])
print(peak() - before, rows, total)
"""


def _parts():
    for start in range(0, ROWS, PART):
        yield np.full((PART, WIDTH), start, np.float64)


def _header(file, fortran=False):
    header = {"descr": "<f8", "fortran_order": fortran, "shape": (ROWS, WIDTH)}
    np.lib.format.write_array_header_1_0(file, header)


def _npy(path):
    with open(path, "wb") as file:
        _header(file)
        for part in _parts():
            part.tofile(file)


def _fortran(path):
    column = np.repeat(np.arange(0, ROWS, PART, dtype=np.float64), PART)
    with open(path, "wb") as file:
        _header(file, fortran=True)
        for _ in range(WIDTH):
            column.tofile(file)


def _npz(path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive, archive.open("X.npy", "w") as file:
        _header(file)
        for part in _parts():
            file.write(part.data)


def _packed(path):
    _npz(path, zipfile.ZIP_DEFLATED)


def _safetensors(path):
    size = ROWS * WIDTH * 8
    header = json.dumps({"X": {"dtype": "F64", "shape": [ROWS, WIDTH], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for part in _parts():
            part.tofile(file)


def _parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([part.ravel() for part in _parts()])), WIDTH)
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"X": column}), path, row_group_size=ROWS, **options)
    assert pq.read_metadata(path).num_row_groups == 1


CASES = {
    "npy": ("a.npy", _npy),
    "npy in Fortran's order": ("a.npy", _fortran),
    "npz": ("a.npz", _npz),
    "npz, packed": ("a.npz", _packed),
    "safetensors": ("a.safetensors", _safetensors),
    "parquet": ("a.parquet", _parquet),
}


@pytest.mark.parametrize("case", CASES)
def test_the_peak_of_memory(tmp_path, case):
    name, write = CASES[case]
    write(tmp_path / name)
    done = subprocess.run([sys.executable, "-c", READ, tmp_path / name], capture_output=True, text=True, check=True)
    (tmp_path / name).unlink()  # pytest keeps the folders of the last runs
    growth, rows, total = (float(word) for word in done.stdout.split())
    starts = np.arange(0, ROWS, 512) // PART * PART
    assert (rows, total) == (ROWS, starts.sum())
    assert growth < GROWTH
    print(growth)
