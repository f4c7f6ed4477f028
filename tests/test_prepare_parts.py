"""Parts: every example once, in batches that mix what was sorted; the scratch file and its room."""

from __future__ import annotations

import os
import sys
from collections import namedtuple

import numpy as np
import pytest

from xwb import DataError, OptionError
from xwb.training import _parts as parts
from xwb.training import _storage as storage
from xwb.training._parts import Layout, joined
from xwb.training._prepare import prepare
from xwb.training._rows import Rows


def _numbered(rows, features, where):
    """A part whose rows are told apart by their weight, sorted by class: half 0, half 1."""
    layout = Layout(features, None, True)
    room = storage.Storage(layout, {"other": 3, "train": rows}, {"memory": 10**12, "disk": 1}[where], None)
    writer = room.writer("train")
    step = 37
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        number = np.arange(start, stop)
        X = np.repeat(number[:, None], features, 1).astype(np.float32)
        writer.add(Rows(X, (number >= rows / 2).astype(np.int32), number.astype(np.float64)))
    return writer.finish(), room


@pytest.mark.parametrize("features", [1, 3, 100, 5000])
def test_block_and_chunk_sizes(features):
    layout = Layout(features, None, False)
    assert layout.block % layout.chunk == 0
    assert layout.block % 64 == 0
    assert max(64, min(8192, 2**21 // features)) - 64 < layout.block <= max(64, min(8192, 2**21 // features))
    assert layout.chunk <= 64
    assert layout.chunk == 1 or layout.chunk * features <= 2**14
    assert layout.buffer >= 64


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(("rows", "features", "size"), [(1, 1, 5), (63, 2, 64), (5000, 3000, 17), (70_000, 3, 1000)])
def test_batches_have_every_example_once(where, rows, features, size):
    part, room = _numbered(rows, features, where)
    orders = []
    for seed in (0, 1):
        sizes, seen = [], []
        for batch in part.batches(size, np.random.default_rng(seed)):
            assert batch.y.dtype == np.intp
            np.testing.assert_array_equal(batch.X, np.repeat(batch.weight[:, None], features, 1))
            np.testing.assert_array_equal(batch.y, batch.weight >= rows / 2)
            sizes.append(len(batch.X))
            seen.append(batch.weight.copy())
        assert sizes == [size] * (rows // size) + ([rows % size] if rows % size else [])
        orders.append(np.concatenate(seen))
        np.testing.assert_array_equal(np.sort(orders[-1]), np.arange(rows))
    assert rows == 1 or (orders[0] != orders[1]).any()
    room.close()


@pytest.mark.parametrize(("rows", "features"), [(200_000, 8), (20_000, 784), (4000, 8000)])
def test_a_sorted_file_does_no_harm(rows, features):
    part, _ = _numbered(rows, features, "memory")
    fractions = [batch.y.mean() for batch in part.batches(256, np.random.default_rng(0)) if len(batch.y) == 256]
    # At least 64 chunks a buffer: a standard deviation of 1/16, and 1/32 for the batch.
    assert abs(np.array(fractions) - 0.5).max() < 0.3
    assert np.std(fractions) < 0.09


def test_blocks_in_memory_cannot_be_written():
    part, _ = _numbered(100, 2, "memory")
    with pytest.raises(ValueError, match="read-only"):
        next(part.blocks()).X[0] = 1


def test_two_readers_of_one_file():
    """Each iterator has its own buffers, and finds its own place."""
    part, room = _numbered(20_000, 200, "disk")
    for a, b in zip(part.blocks(), part.blocks(), strict=True):
        assert a.X is not b.X
        np.testing.assert_array_equal(a.X, b.X)
        np.testing.assert_array_equal(a.weight, b.X[:, 0])
    room.close()
    with pytest.raises(DataError, match="was closed"):
        next(part.blocks())


def test_the_scratch_file_has_no_name(tmp_path):
    data = prepare(np.ones((50, 2)) * np.arange(50)[:, None], np.arange(50) % 2, memory=1, scratch=tmp_path)
    assert data.streamed
    assert list(tmp_path.iterdir()) == []
    assert data._storage.file is not None
    if sys.platform == "linux":
        assert str(tmp_path) in os.readlink(f"/proc/self/fd/{data._storage.file.fileno()}")
    data.close()
    data.close()


def test_too_little_room(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage(0, 0, 10))
    with pytest.raises(DataError, match=rf"needs 6e-07 GB in {tmp_path}, and 1e-08 GB are free.*--scratch"):
        prepare(np.ones((50, 2)), np.arange(50) % 2, memory=1, scratch=tmp_path)
    assert not prepare(np.ones((50, 2)), np.arange(50) % 2, scratch=tmp_path).streamed


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot write in .*none: No such file or directory; give another .*--scratch"):
        prepare(np.ones((50, 2)), np.arange(50) % 2, memory=1, scratch=tmp_path / "none")


def test_a_disk_that_fills_up():
    class Full:
        def seek(self, _):
            pass

        def write(self, _):
            raise OSError(28, "No space left on device")

    writer = storage.FileWriter(Layout(2, None, False), 3, Full(), 0)
    writer.add(Rows(np.ones((3, 2), np.float32)[:2], np.zeros(2, np.int32), None))
    with pytest.raises(DataError, match="cannot write the scratch file: No space left on device; give another folder"):
        writer.add(Rows(np.ones((1, 2), np.float32), np.zeros(1, np.int32), None))


def test_a_failure_closes_the_file(monkeypatch):
    made = []
    real = storage.scratch_file
    monkeypatch.setattr(storage, "scratch_file", lambda *a: made.append(real(*a)) or made[-1])
    X = np.ones((50, 2))
    X[7, 1] = 1e39
    with pytest.raises(DataError, match="float32 cannot hold it; standardise"):
        prepare(X, np.arange(50) % 2, memory=1, standardise=False)
    assert made[0].closed


def test_the_budget(monkeypatch):
    monkeypatch.setattr(storage, "resident", lambda: 1000)
    layout = Layout(10, None, False)
    need = 100 * 44 + 64 * 2**20 + 1000
    assert not storage.Storage(layout, {"train": 60, "test": 40}, need, None).streamed
    room = storage.Storage(layout, {"train": 60, "test": 40}, need - 1, None)
    assert room.streamed
    room.close()
    monkeypatch.setattr(storage, "available", lambda: 2 * (need - 1000))
    assert not storage.Storage(layout, {"train": 100}, None, None).streamed
    monkeypatch.setattr(storage, "available", lambda: 2 * (need - 1000) - 2)
    room = storage.Storage(layout, {"train": 100}, None, None)
    assert room.streamed
    room.close()


def test_what_the_machine_has():
    assert 2**24 < storage.resident() < storage.available() < 2**50


@pytest.mark.parametrize("memory", [0, -1, 1.5, True, "1 GB"])
def test_a_budget_is_a_number(memory):
    with pytest.raises(OptionError, match="--memory is a number of bytes from 1; this is"):
        prepare(np.ones((50, 2)), np.arange(50) % 2, memory=memory)


def test_errors_of_parts():
    part, _ = _numbered(10, 2, "memory")
    with pytest.raises(OptionError, match="batches takes a size of at least 1; this is 0"):
        part.batches(0, np.random.default_rng(0))
    other, _ = _numbered(10, 3, "memory")
    for wrong in ((), (part, other), (part, object())):
        with pytest.raises(OptionError, match="joined takes at least one part"):
            joined(*wrong)
    with pytest.raises(DataError, match="the rows changed while they were read"):
        storage.MemoryWriter(part.layout, 3).finish()
    assert parts.spans(0, 4).shape == (0, 2)
