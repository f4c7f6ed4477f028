"""Preparing data: memory against disk bit for bit, every format, moments, fingerprints."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from xwb.data import ArrayTable
from xwb.data._base import FileTable
from xwb.training import _parts as parts
from xwb.training import _storage as storage
from xwb.training._moments import TILE, Moments, standardise
from xwb.training._parts import joined
from xwb.training._passes import Fingerprint, Raw
from xwb.training._prepare import prepare

ROWS, WIDTH = 1000, 5
MEMORY = {"memory": 10**12, "disk": 1}


def _data(rows=ROWS):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((rows, WIDTH)) * [1, 1e30, 1e-30, 1, 1] + [0, 0, 0, 1.7e9, -3]
    return X, rng.integers(-1, 2, rows)


def _columns(X, y):
    return {**{f"x{i}": X[:, i] for i in range(X.shape[1])}, "label": y}


def _write(path, X, y):
    """The data in a file; what `prepare` is to be given for it."""
    columns = _columns(X, y)
    if path.suffix == ".npy":
        np.save(path, X)
        np.save(path.with_name("y.npy"), y)
        return path, str(path.with_name("y.npy"))
    if path.suffix == ".npz":
        np.savez(path, X=X, label=y)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), path, row_group_size=170)
    else:
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(repr, row)) for row in rows)]))
    return path, "label"


@pytest.fixture
def small(monkeypatch):
    """Blocks of 64 rows, chunks of 8, buffers of 16 chunks."""
    monkeypatch.setattr(parts, "BLOCK", 64 * WIDTH)
    monkeypatch.setattr(parts, "CHUNK", 8 * WIDTH)
    monkeypatch.setattr(parts, "BUFFER", 128 * WIDTH)


def _copied(rows):
    return [[None if array is None else array.copy() for array in one] for one in rows]


def assert_same_rows(a, b):
    a, b = _copied(a), _copied(b)
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for array, expected in zip(one, other, strict=True):
            assert (array is None) == (expected is None)
            if array is not None:
                assert array.dtype == expected.dtype
                np.testing.assert_array_equal(array, expected)


def assert_same(a, b):
    """Two preparations that gave the same, bit for bit."""
    assert list(a.parts) == list(b.parts)
    for name, part in a.parts.items():
        other = b.parts[name]
        assert (part.rows, part.features, part.weight) == (other.rows, other.features, other.weight)
        assert_same_rows(part.blocks(), other.blocks())
        for size in (1, 7, 300):
            assert_same_rows(
                part.batches(size, np.random.default_rng(size)), other.batches(size, np.random.default_rng(size))
            )
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.scale, b.scale)
    assert (a.fingerprint, a.classes, a.class_counts) == (b.fingerprint, b.classes, b.class_counts)


def whole(part):
    """All blocks of a part in one."""
    blocks = _copied(part.blocks())
    return [None if blocks[0][i] is None else np.concatenate([block[i] for block in blocks]) for i in range(3)]


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "parquet", "arrays"])
@pytest.mark.usefixtures("small")
def test_memory_and_disk_are_the_same(tmp_path, suffix):
    X, y = _data()
    source, target = (X, y) if suffix == "arrays" else _write(tmp_path / f"a.{suffix}", X, y)
    with prepare(source, target, memory=MEMORY["memory"]) as a, prepare(source, target, memory=MEMORY["disk"]) as b:
        assert (a.streamed, b.streamed) == (False, True)
        assert_same(a, b)
        expected = prepare(X, y)
        assert_same(a, expected)
        assert a.classes == [-1, 0, 1]
        assert all(type(one) is int for one in a.classes)


@pytest.mark.parametrize("where", MEMORY)
@pytest.mark.usefixtures("small")
def test_targets_weights_and_a_test_table(where):
    X, _ = _data()
    rng = np.random.default_rng(1)
    Y, weights = rng.standard_normal((ROWS, 2)), rng.random(ROWS)
    test = (X[:100], Y[:100])
    with prepare(X, Y, weights=weights, test=test, memory=MEMORY[where]) as data:
        assert_same(data, prepare(X, Y, weights=weights, test=test))
        assert (data.task, data.targets, data.classes, data.class_counts) == ("regression", ["y[0]", "y[1]"], [], {})
        found = [whole(data.parts[name]) for name in ("train", "validation")]
        assert found[0][1].dtype == np.float64
        rows = np.concatenate([f[2] for f in found])
        order = np.argsort(rows)
        np.testing.assert_array_equal(rows[order], np.sort(weights))
        np.testing.assert_array_equal(np.concatenate([f[1] for f in found])[order], Y[np.argsort(weights)])
        np.testing.assert_allclose(data.parts["train"].weight, found[0][2].sum(), rtol=1e-15)
        tested = whole(data.parts["test"])
        np.testing.assert_array_equal(tested[1], Y[:100])
        np.testing.assert_array_equal(tested[2], np.ones(100))
        np.testing.assert_array_equal(tested[0], standardise(X[:100], data.mean, data.scale))


class Chunked(FileTable):
    """A table whose reader gives chunks of drawn sizes, 0 among them."""

    def __init__(self, table, seed):
        self.name, self.columns, self.rows, self.refused = table.name, table.columns, None, {}
        self._table, self._seed = table, seed

    def chunks(self, names, rows, as_text):
        rng = np.random.default_rng(self._seed)
        whole = next(self._table.blocks(names, self._table.rows, as_text))
        start = 0
        while start < self._table.rows:
            stop = start + int(rng.integers(0, 300))
            yield {name: array[start:stop] for name, array in whole.items()}
            start = stop


@pytest.mark.usefixtures("small")
def test_a_table_is_read_once_more_where_memory_is_short(monkeypatch):
    X, y = _data()
    monkeypatch.setattr(storage, "resident", lambda: 0)
    packed, kept = ROWS * (4 * WIDTH + 4), ROWS * (8 * WIDTH + 4 + 16)
    expected = prepare(X, y)
    for memory, streamed, times in (
        (storage.SPARE + packed + kept, False, 1),
        (storage.SPARE + packed + kept - 1, False, 2),
        (storage.SPARE + packed, False, 2),
        (storage.SPARE + packed - 1, True, 2),
    ):
        table = ArrayTable(_columns(X, y))
        asked = []
        monkeypatch.setattr(table, "chunks", lambda *a, t=table, seen=asked: seen.append(a[0]) or type(t).chunks(t, *a))
        with prepare(table, "label", memory=memory) as data:
            assert_same(data, expected)
            assert data.streamed is streamed
        assert [names[0] for names in asked] == ["label"] + ["x0"] * times


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("small")
def test_the_chunks_of_the_reader_change_nothing(seed):
    X, y = _data()
    table = ArrayTable(_columns(X, y))
    expected = prepare(table, "label", class_weight="balanced")
    with prepare(Chunked(table, seed), "label", memory=1 if seed else None, class_weight="balanced") as data:
        assert_same(data, expected)


def test_the_split_does_not_depend_on_the_features():
    X, y = _data()
    wide = np.concatenate([np.arange(ROWS)[:, None], np.tile(X, 200)], 1)  # blocks of 2,048 rows and of 8,192
    rows = []
    for data in (prepare(wide[:, :1], y, standardise=False), prepare(wide, y, standardise=False)):
        rows.append(whole(data.parts["validation"])[0][:, 0])
        data.close()
    np.testing.assert_array_equal(*rows)


def test_moments_are_those_of_the_training_rows():
    X, y = _data()
    X[:, 4] = 0.1
    with prepare(X, y) as data:
        raw = prepare(X, y, standardise=False)
        np.testing.assert_array_equal((raw.mean, raw.scale), (np.zeros(WIDTH), np.ones(WIDTH)))
        held = whole(prepare(np.arange(ROWS)[:, None], y, standardise=False).parts["train"])[0][:, 0].astype(int)
        train = X[held]
        np.testing.assert_allclose(data.mean, train.mean(0), rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(data.scale[:4], train.std(0)[:4], rtol=1e-7)  # NumPy's own loses digits at 1.7e9
        assert (data.mean[4], data.scale[4]) == (0.1, 1)
        assert any("1 of 5 features have one value in all training rows: X[4]" in note for note in data.notes)
        found = whole(data.parts["train"])[0]
        np.testing.assert_array_equal(found, ((train - data.mean) / data.scale).astype(np.float32))
        np.testing.assert_allclose(found[:, :4].std(0), 1, rtol=1e-5)
        np.testing.assert_array_equal(found[:, 4], 0)


@pytest.mark.parametrize(("offset", "spread"), [(1e9, 1.0), (1.7e9, 1e-3), (-1e15, 1.0), (0.0, 1e30), (0.0, 1e-30)])
def test_moments_against_exact_fractions(offset, spread):
    x = offset + spread * np.random.default_rng(0).standard_normal(3000)
    exact = [Fraction(value) for value in x.tolist()]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    moments = Moments(1)
    for start, stop in pairwise((0, 1, 700, 1500, 3000)):
        moments.add(x[start:stop, None])
    close = abs(np.spacing(float(mean))) + 2.0**-50 * spread  # a rounding of the mean, and some of the sums
    assert abs(Fraction(float(moments.mean[0])) - mean) <= Fraction(close)
    assert float(moments.scale[0] ** 2) == pytest.approx(float(variance), rel=1e-13)


def test_moments_of_tiles_and_blocks():
    X = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
    assert X.size > 2 * TILE
    together, apart = Moments(64), Moments(64)
    assert together.add(X)
    for block in np.array_split(X, 7):
        assert apart.add(block)
    for moments in (together, apart):
        np.testing.assert_allclose(moments.mean, X.astype(np.float64).mean(0), atol=1e-14)
        np.testing.assert_allclose(moments.scale, X.astype(np.float64).std(0), rtol=1e-13)
    assert together.rows == apart.rows == 3000


def test_two_values_a_second_apart():
    """Offsets such as times in seconds: 1.7e9 ± 1 become ± 1, where float32 would have made them equal."""
    x = 1.7e9 + np.tile([-1.0, 1.0], 50)
    with prepare(x[:, None], np.tile([0, 1], 50), holdout=0) as data:
        np.testing.assert_array_equal(whole(data.parts["train"])[0][:, 0], np.tile([-1, 1], 50))
        assert list(data.parts) == ["train"]


def test_balanced_weights():
    X, _ = _data(30)
    y, weights = np.repeat([0, 1, 2], [5, 10, 15]), np.arange(1.0, 31)
    with prepare(X, y, weights=weights, class_weight="balanced", holdout=0) as data:
        totals = np.array([weights[y == k].sum() for k in range(3)])
        np.testing.assert_allclose(data.class_weights, weights.sum() / (3 * totals), rtol=1e-15)
        _, codes, weight = whole(data.parts["train"])
        np.testing.assert_array_equal(weight, weights * data.class_weights[y])
        np.testing.assert_allclose([weight[codes == k].sum() for k in range(3)], weights.sum() / 3)
    with prepare(X, y, class_weight="balanced", holdout=0.2) as data:
        np.testing.assert_allclose(data.class_weights, 24 / (3 * np.array([4, 8, 12])))
        assert data.class_counts == {"train": [4, 8, 12], "validation": [1, 2, 3]}


def test_fingerprints(tmp_path):
    X, y = _data(300)
    np.save(tmp_path / "X.npy", X)
    np.savez_compressed(tmp_path / "a.npz", A=np.asfortranarray(X), label=y)
    first = prepare(tmp_path / "X.npy", y).fingerprint
    assert len(first) == 64
    with prepare(tmp_path / "a.npz", "label", seed=3, memory=1, holdout=0.4) as data:
        assert data.fingerprint == first
    X[299, 4] = np.nextafter(X[299, 4], 1)
    others = {prepare(X, y).fingerprint}
    X, y = _data(300)
    y[299] = -y[299] or 1
    others.add(prepare(X, y).fingerprint)
    X, y = _data(300)
    others.add(prepare(X, y * 2).fingerprint)
    others.add(prepare(X, y, test=(X, y)).fingerprint)
    assert len(others | {first}) == 5


def test_a_fingerprint_of_any_blocks():
    X, y = _data(300)
    whole, apart, other = Fingerprint(), Fingerprint(), Fingerprint()
    whole.add(Raw(0, np.asfortranarray(X), y, None, None, []))
    for start in range(0, 300, 70):
        apart.add(Raw(start, X[start : start + 70], y[start : start + 70], None, None, []))
    other.add(Raw(0, X[::-1], y, None, None, []))
    assert whole.hexdigest() == apart.hexdigest() != other.hexdigest()


def test_columns_of_one_type_keep_it():
    """So that a matrix and its columns are the same; mixed ones are float64, which holds them all."""
    X, y = _data(100)
    X = X[:, [0, 4]].astype(np.float32)
    table = ArrayTable({"a": X[:, 0], "b": X[:, 1], "y": y, "c": np.arange(100) - 50, "d": np.arange(100) > 3})
    assert prepare(table, "y", features=["a", "b"]).fingerprint == prepare(X, y).fingerprint
    for names in (["c", "d"], ["d", "c"], ["a", "c"], ["d", "a"]):
        (block,) = prepare(table, "y", features=names, standardise=False, holdout=0).parts["train"].blocks()
        for place, name in enumerate(names):
            expected = next(iter(table.blocks([name], 100)))[name]
            np.testing.assert_array_equal(block.X[:, place], expected.astype(np.float32))


def test_names_dtypes_and_notes(tmp_path):
    np.savez(
        tmp_path / "a.npz", A=np.ones((10, 2), np.float16), b=np.arange(10) > 4, y=np.arange(10) % 2, c=np.arange(10)
    )
    with prepare(tmp_path / "a.npz", "y", features=["b", "A"], memory=1) as data:
        assert data.feature_names == ["b", "A[0]", "A[1]"]
        assert data.dtypes == {"b": "bool", "A": "float16"}
        assert data.notes[0].startswith("classification, since the target is 2 different integers; --task regression")
        assert "is read from disk" in data.notes[-1]
    with prepare(tmp_path / "a.npz", "y", features=["b", "c"]) as data:
        assert len(data.notes) == 1


@pytest.mark.parametrize("where", MEMORY)
@pytest.mark.usefixtures("small")
def test_a_test_table_in_another_order(tmp_path, where):
    X, y = _data(200)
    source, target = _write(tmp_path / "a.csv", X, y)
    np.savez(tmp_path / "t.npz", **dict(reversed(_columns(X[:70], y[:70] * 1.0).items())), more=np.ones(70))
    with prepare(source, target, test=tmp_path / "t.npz", memory=MEMORY[where]) as data:
        found = whole(data.parts["test"])
        np.testing.assert_array_equal(found[0], standardise(X[:70], data.mean, data.scale))
        np.testing.assert_array_equal(found[1], y[:70] + 1)
        assert data.class_counts["test"] == np.bincount(y[:70] + 1).tolist()


@pytest.mark.usefixtures("small")
def test_joined_parts():
    X, y = _data()
    with prepare(X, y, memory=1, weights=np.arange(1.0, 1001)) as a:
        b = prepare(X, y, weights=np.arange(1.0, 1001))
        both, other = (joined(p.parts["train"], p.parts["validation"]) for p in (a, b))
        assert (both.rows, both.weight, both.features) == (1000, 500500, WIDTH)
        assert_same_rows(both.blocks(), other.blocks())
        generators = np.random.default_rng(1), np.random.default_rng(1)
        assert_same_rows(both.batches(13, generators[0]), other.batches(13, generators[1]))
        seen = np.concatenate([batch.weight.copy() for batch in both.batches(13, generators[0])])
        np.testing.assert_array_equal(np.sort(seen), np.arange(1.0, 1001))
