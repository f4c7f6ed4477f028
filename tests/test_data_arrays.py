"""``.npy``, ``.npz`` and ``.safetensors`` against np.load and the safetensors library, and damaged."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from _tables import whole
from xwb import DataError
from xwb.data import Column, open_table
from xwb.data import _base as base
from xwb.data import _npy as npy

DTYPES = ["<f8", ">f8", "<f4", "<f2", ">f2", "<i8", ">i4", "u1", "?", "<U3", ">U3", "S4"]


def _array(dtype, shape):
    numbers = np.random.default_rng(1).integers(0, 2 if dtype == "?" else 100, shape)
    return numbers.astype(dtype)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(11,), (11, 3), (11, 0), (0, 3), (0,), (1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_npy_is_what_numpy_loads(tmp_path, monkeypatch, dtype, shape, order):
    monkeypatch.setattr(base.chunk_rows, "__defaults__", (1,))  # chunks as small as the blocks
    monkeypatch.setattr(npy, "SLAB", 1)
    array = _array(dtype, shape)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    np.savez_compressed(tmp_path / "a.npz", X=np.asarray(array, order=order))
    for suffix in ("npy", "npz"):
        table = open_table(tmp_path / f"a.{suffix}")
        width = shape[1] if len(shape) == 2 else None
        kind = {"U": "text", "S": "text", "b": "boolean"}.get(array.dtype.kind, "number")
        assert table.columns == (Column("X", kind, width),)
        assert table.rows == shape[0]
        for rows in (1, 4, 11):
            found = whole(table, ["X"], rows)
            if not shape[0]:
                assert found == {}
                continue
            expected = np.load(tmp_path / "a.npy")
            expected = np.char.decode(expected) if dtype == "S4" else expected
            np.testing.assert_array_equal(found["X"], expected)
            assert found["X"].dtype == expected.dtype.newbyteorder("=")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 9), chunk=st.integers(1, 200))
def test_arrays_of_any_shape_in_chunks_of_any_size(tmp_path_factory, data, rows, chunk):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=9))
    array = np.asarray(
        np.arange(np.prod(shape), dtype=np.float32).reshape(shape), order=data.draw(st.sampled_from("CF"))
    )
    folder = tmp_path_factory.mktemp("npy")
    np.save(folder / "a.npy", array)
    np.savez(folder / "a.npz", X=array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.chunk_rows, "__defaults__", (chunk,))
        patch.setattr(npy, "SLAB", chunk)
        for suffix in ("npy", "npz"):
            np.testing.assert_array_equal(whole(open_table(folder / f"a.{suffix}"), ["X"], rows)["X"], array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4)), r"a\.npy cannot be a column: it has the shape \(2, 3, 4\)"),
        (np.zeros(()), r"it has the shape \(\)"),
        (np.zeros(3, complex), "it has the dtype complex128"),
        (np.zeros(3, "M8[s]"), r"it has the dtype datetime64\[s\]"),
        (np.zeros(3, [("a", "f8")]), "it has the dtype"),
    ],
)
def test_npy_that_is_no_column(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        open_table(tmp_path / "a.npy")


def test_objects_are_refused_in_every_format(tmp_path):
    objects = np.array([{"a": 1}, None], object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    with pytest.raises(DataError, match="it holds Python objects, which are not loaded"):
        open_table(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", X=np.zeros(2), o=objects)
    table = open_table(tmp_path / "a.npz")
    assert table.columns == (Column("X", "number"),)
    with pytest.raises(DataError, match="'o' cannot be read as a column: it holds Python objects"):
        table.blocks(["o"], 1)


def test_npy_cut_short(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((10, 4)))
    data = path.read_bytes()
    for size, message in [
        (len(data) - 33, r"a\.npy is cut short: its header says 10 rows, and 8 are there"),
        (130, "its header says 10 rows, and 0 are there"),
        (50, r"a\.npy is no \.npy file, or is damaged"),
        (0, r"a\.npy is no \.npy file, or is damaged"),
    ]:
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=message):
            open_table(path)
    path.write_bytes(data + b"x")
    with pytest.raises(DataError, match=r"shape \(10, 4\) takes 448 bytes with its header, and 449 are there"):
        open_table(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_that_shrinks_while_it_is_read(tmp_path, order):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((10_000, 400), order=order))
    blocks = open_table(path).blocks(["X"], 10)
    next(blocks)
    with open(path, "r+b") as file:
        file.truncate(20_000_000)
    with pytest.raises(DataError, match="it was cut while it was read"):
        list(blocks)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_columns_and_what_is_none(tmp_path, save):
    arrays = {"X": np.arange(12.0).reshape(6, 2), "y": np.arange(6), "images": np.zeros((6, 2, 2)), "few": np.ones(5)}
    save(tmp_path / "a.npz", **arrays, F=np.asfortranarray(arrays["X"]))
    table = open_table(tmp_path / "a.npz")
    assert [column.name for column in table.columns] == ["X", "y", "few", "F"]
    assert table.rows is None
    found = whole(table, ["y", "F", "X"], 4)
    for name in ("X", "y"):
        np.testing.assert_array_equal(found[name], arrays[name])
    np.testing.assert_array_equal(found["F"], arrays["X"])
    with pytest.raises(DataError, match=r"'images' cannot be read as a column: it has the shape \(6, 2, 2\)"):
        table.blocks(["images"], 1)
    with pytest.raises(DataError, match="the same number of rows; few has 5 and X has 6"):
        next(table.blocks(["X", "few"], 1))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_npz_with_a_flipped_byte(tmp_path, save, order, place):
    path = tmp_path / "a.npz"
    save(path, X=np.asarray(np.random.default_rng(0).standard_normal((100, 10)), order=order))
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.npz.*damaged"):
        whole(open_table(path), ["X"], 30)


def test_npz_gives_no_last_block_before_its_checksum(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros((100, 10)))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="Bad CRC-32"):
        next(open_table(path).blocks(["X"], 100))


def test_npz_damaged_otherwise(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"a\.npz is damaged or cut short: File is not a zip file"):
        open_table(path)
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 2)))
    for content, message in [
        (stream.getvalue()[:-17], r"array X is cut short: its header says 4 rows, and 2 are there"),
        (stream.getvalue() + b"x", r"array X is damaged: an array of shape \(4, 2\) takes 192 bytes"),
        (b"text", r"array X is no \.npy file"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", content)
        with pytest.raises(DataError, match=message):
            open_table(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", stream.getvalue())
        archive.writestr("X", "")
    with pytest.raises(DataError, match="holds two arrays named 'X'"):
        open_table(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", stream.getvalue())
        archive.writestr("notes.txt", "")
    with pytest.raises(DataError, match=r"'notes\.txt' cannot be read as a column: it is no \.npy file"):
        open_table(path).blocks(["notes.txt"], 1)
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        open_table(path)


def test_npz_of_an_unknown_compression_method(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros((4, 2)))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        data[data.index(mark) + place] = 20  # a number that Zstandard had once
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.npz is packed in a way that cannot be read here .*np\.savez"):
        open_table(path)


def test_npy_with_text_that_is_none(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array(["abc", "def"]))
    data = bytearray(path.read_bytes())
    data[-1] = 0x7F
    path.write_bytes(data)
    with pytest.raises(DataError, match="text with characters that do not exist"):
        next(open_table(path).blocks(["X"], 2))


SAFE = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def test_safetensors_is_what_its_library_loads(tmp_path):
    from safetensors.numpy import load_file, save_file

    arrays = {f"{dtype}{len(shape)}": _array(dtype, shape) for dtype in SAFE for shape in [(11,), (11, 3)]}
    save_file({**arrays, "cube": np.zeros((11, 2, 2)), "scalar": np.zeros(())}, tmp_path / "a.safetensors", {"k": "v"})
    table = open_table(tmp_path / "a.safetensors")
    assert {column.name for column in table.columns} == set(arrays)
    assert table.rows == 11
    expected = load_file(tmp_path / "a.safetensors")
    for rows in (1, 4, 11):
        for name, array in whole(table, list(arrays), rows).items():
            np.testing.assert_array_equal(array, expected[name])
            assert array.dtype == expected[name].dtype
    with pytest.raises(DataError, match=r"'cube' cannot be read as a column: it has the shape \(11, 2, 2\)"):
        table.blocks(["cube"], 1)


def test_bfloat16_becomes_float32(tmp_path):
    import torch
    from safetensors.torch import save_file

    tensor = torch.randn(9, 3).to(torch.bfloat16)
    save_file({"X": tensor, "e": torch.zeros(9).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    table = open_table(tmp_path / "a.safetensors")
    found = whole(table, ["X"], 4)["X"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.float().numpy())
    with pytest.raises(DataError, match="'e' cannot be read as a column: it has the type F8_E4M3, which NumPy has not"):
        table.blocks(["e"], 1)


def test_safetensors_of_different_lengths(tmp_path):
    from safetensors.numpy import save_file

    save_file({"X": np.zeros((3, 2)), "y": np.zeros(2)}, tmp_path / "a.safetensors")
    table = open_table(tmp_path / "a.safetensors")
    assert table.rows is None
    with pytest.raises(DataError, match="the same number of rows; y has 2 and X has 3"):
        next(table.blocks(["X", "y"], 1))


def _entry(dtype="F64", shape=(2,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


CANNOT = "its header cannot be read"
BAD_HEADERS = [
    ("{", 0, CANNOT),
    ("[]", 0, CANNOT),
    ("\xff", 0, CANNOT),
    ('{"X": 3}', 16, CANNOT),
    ('{"X": {}}', 16, CANNOT),
    ('{"X": {"dtype": "F64", "dtype": "F32", "shape": [2], "data_offsets": [0, 16]}}', 16, CANNOT),
    ({"X": _entry(shape=(-2,))}, 16, CANNOT),
    ({"X": _entry(shape=(True,))}, 16, CANNOT),
    ({"X": _entry(dtype=4)}, 16, CANNOT),
    ({"X": _entry(offsets=(0, 16, 32))}, 16, CANNOT),
    ({"X": _entry(shape=(3,))}, 16, "takes 24 bytes, and its header says 16"),
    ({"X": _entry(), "y": _entry(offsets=(8, 24))}, 24, "overlap, or leave a gap"),
    ({"X": _entry(), "y": _entry(offsets=(24, 40))}, 40, "overlap, or leave a gap"),
    ({"X": _entry()}, 15, "cut short or damaged: its header says"),
    ({"X": _entry()}, 17, "cut short or damaged: its header says"),
]


@pytest.mark.parametrize(("header", "size", "message"), BAD_HEADERS)
def test_safetensors_damaged(tmp_path, header, size, message):
    text = (header if isinstance(header, str) else json.dumps(header)).encode("latin-1")
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    with pytest.raises(DataError, match=message):
        open_table(path)


@pytest.mark.parametrize("data", [b"", b"1234", (10**8 + 1).to_bytes(8, "little"), (9).to_bytes(8, "little") + b"{}"])
def test_safetensors_without_a_header(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"is no \.safetensors file, or is cut short"):
        open_table(path)
