"""The data that ships with xwb: 1,797 real images of handwritten digits, and how they are split.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998),
DOI 10.24432/C50P49, CC BY 4.0; see ``data/README.md``.
"""

from __future__ import annotations

import hashlib
import io
import os
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError

CREDIT = (
    "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998. "
    "DOI 10.24432/C50P49. CC BY 4.0."
)
SIDE = 8
DARKEST = 16  # a pixel counts the black dots of a 4×4 block


class Digits(NamedTuple):
    """The whole set: images (1797, 8, 8) uint8 with values 0 to 16, labels (1797,) uint8 with values 0 to 9."""

    images: Array
    labels: Array

    @property
    def sha256(self) -> str:
        """The hash of the values themselves, whatever file they came from."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


class Split(NamedTuple):
    """Row numbers of the three disjoint parts, each ascending; together they are all rows."""

    train: Array
    validation: Array
    test: Array


def load_digits() -> Digits:
    """The 1,797 digits that ship with the package, in scikit-learn's order."""
    with files(__package__).joinpath("data/digits.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        return Digits(arrays["images"], arrays["labels"])


def stratified_split(labels: Array, seed: int) -> Split:
    """60 % train, 20 % validation, 20 % test of every class, drawn by ``seed``.

    Of a class with n rows, round(0.6 n) train, round(0.2 n) validate and the rest test, so the sizes do not depend on
    the seed; for the digits they are 1,078, 359 and 360.

    Args:
        labels: shape (N,), integers.
        seed: non-negative.
    """
    rng = np.random.default_rng(seed)
    parts: tuple[list[Array], ...] = ([], [], [])
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        ends = round(0.6 * len(rows)), round(0.6 * len(rows)) + round(0.2 * len(rows))
        for part, piece in zip(parts, np.split(rows, ends), strict=True):
            part.append(piece)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def as_features(images: Any) -> Array:
    """Images as rows of features: shape (N, 64), float32, pixel values divided by 16.

    Args:
        images: shape (N, 8, 8), (N, 64), (8, 8) or (64,); integers or floating numbers from 0 to 16. Eight rows
            of eight are one image.

    Raises:
        DataError: another shape or type, or values that are not numbers from 0 to 16.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "iuf":
        raise DataError(f"images are numbers, integer or floating; these have dtype {images.dtype}")
    pixels = SIDE * SIDE
    if images.shape in {(pixels,), (SIDE, SIDE)}:
        images = images.reshape(1, pixels)
    elif images.shape[1:] not in {(pixels,), (SIDE, SIDE)}:
        raise DataError(f"images have shape (n, 8, 8) or (n, 64); these have {images.shape}")
    images = images.reshape(len(images), pixels)
    # Not (images < 0) | (images > 16): a NaN is neither.
    bad = np.argwhere(~((images >= 0) & (images <= DARKEST)))
    if len(bad):
        row, pixel = bad[0]
        raise DataError(
            f"pixels are numbers from 0 to {DARKEST}; image {row} has {images[row, pixel]} at pixel {pixel}"
        )
    return np.asarray(images, np.float32) / np.float32(DARKEST)


def read_images(path: str | os.PathLike[str]) -> Array:
    """The array in a ``.npy`` file, read into memory; files that hold Python objects are refused.

    Raises:
        DataError: the file is missing, is no ``.npy`` file, is cut short, or holds objects.
    """
    try:
        with open(path, "rb") as file:  # which may be a pipe, and NumPy wants to seek
            array: Array = np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
            return array
    except MemoryError:  # no fault of the file
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # NumPy raises many kinds on bytes that are no array
        raise DataError(f"{path} is no .npy file of numbers, or is cut short: {error}") from error
