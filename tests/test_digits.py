"""The shipped data are scikit-learn's, the split is what it says, and images are read strictly."""

from __future__ import annotations

import io
import os
import pickle
from importlib.resources import files

import numpy as np
import pytest
import sklearn.datasets

from xwb import DataError
from xwb.training import as_features, load_digits, read_images, stratified_split

DIGITS = load_digits()


def test_the_data_are_those_of_scikit_learn():
    theirs = sklearn.datasets.load_digits()
    assert DIGITS.images.dtype == DIGITS.labels.dtype == np.uint8
    np.testing.assert_array_equal(DIGITS.images, theirs.images)
    np.testing.assert_array_equal(DIGITS.labels, theirs.target)
    assert DIGITS.sha256 == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_the_data_are_small_and_credited():
    folder = files("xwb.training") / "data"
    assert len((folder / "digits.npz").read_bytes()) < 60_000
    credit = (folder / "README.md").read_text("utf-8")
    for word in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "Attribution 4.0"):
        assert word in credit


@pytest.mark.parametrize("seed", range(5))
def test_split(seed):
    split = stratified_split(DIGITS.labels, seed)
    assert [len(rows) for rows in split] == [1078, 359, 360]
    assert sorted(np.concatenate(split)) == list(range(1797))
    for rows, share in zip(split, (0.6, 0.2, 0.2), strict=True):
        assert (np.diff(rows) > 0).all()
        counts = np.bincount(DIGITS.labels[rows], minlength=10)
        assert np.abs(counts - share * np.bincount(DIGITS.labels)).max() <= 1
    np.testing.assert_array_equal(split.test, stratified_split(DIGITS.labels, seed).test)


def test_seeds_split_differently():
    assert not np.array_equal(*(stratified_split(DIGITS.labels, seed).test for seed in (0, 1)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, ">f8"])
def test_features(dtype):
    images = DIGITS.images[:3].astype(dtype)
    expected = (DIGITS.images[:3] / 16).reshape(3, 64).astype(np.float32)
    for form in (images, images.reshape(3, 64), np.asfortranarray(images)):
        X = as_features(form)
        assert X.dtype == np.float32
        np.testing.assert_array_equal(X, expected)
    for form in (images[0], images[0].ravel()):
        np.testing.assert_array_equal(as_features(form), expected[:1])
    assert as_features(images[:0]).shape == (0, 64)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 63)),
        np.zeros(()),
        np.zeros((2, 8, 8, 1)),
        np.zeros((8, 16)),
        np.full((1, 64), 17),
        np.full((1, 64), -1),
        np.full((1, 64), np.nan),
        np.full((1, 64), np.inf),
        np.zeros((1, 64), complex),
        np.zeros((1, 64), bool),
        np.full((1, 64), "7"),
        np.full((1, 64), None),
        [[1, 2], [3, 4]],
    ],
    ids=lambda images: f"{np.asarray(images).dtype}{np.shape(images)}",
)
def test_strange_images_are_refused_in_one_line(images):
    with pytest.raises(DataError) as caught:
        as_features(images)
    assert "\n" not in str(caught.value)


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(array) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


GOOD = npy(DIGITS.images)
BAD = {
    "empty": b"",
    "text": b"label,pixel\n",
    "cut in the header": GOOD[:40],
    "cut in the data": GOOD[:-1],
    "objects": npy(np.array([{}], object), allow_pickle=True),
    "pickle": pickle.dumps([1, 2]),
    "npz": npz(DIGITS.images),
    "a header that lies": GOOD.replace(b"(1797, 8, 8)", b"(9797, 8, 8)"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_npy_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "images.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.npy") as caught:
        read_images(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.npy", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            read_images(path)


def test_too_little_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def full(*args, **options):
        raise MemoryError

    path = tmp_path / "images.npy"
    path.write_bytes(GOOD)
    monkeypatch.setattr(np.lib.format, "read_array", full)
    with pytest.raises(MemoryError):
        read_images(path)


def test_an_npy_is_read_from_a_pipe():
    reader, writer = os.pipe()
    os.write(writer, npy(DIGITS.images[0]))
    os.close(writer)
    np.testing.assert_array_equal(read_images(f"/dev/fd/{reader}"), DIGITS.images[0])
    os.close(reader)


def test_an_npy_is_read(tmp_path):
    path = tmp_path / "images.npy"
    path.write_bytes(GOOD)
    np.testing.assert_array_equal(read_images(path), DIGITS.images)
