"""Small images of numbers as PNG data URIs, one pixel per number; the page's style enlarges them."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from ..core import Array

PLUS, MINUS = (38, 110, 190), (205, 95, 20)  # blue and orange: told apart by colour-blind eyes too


def ink(image: Array, darkest: float) -> str:
    """Values 0 to ``darkest`` as black of that opacity, so that the page shows through: shape (H, W)."""
    rgba = np.zeros((*image.shape, 4), np.uint8)
    rgba[..., 3] = np.rint(255 * np.clip(image / darkest, 0, 1))
    return _png(rgba)


def diverging(image: Array, largest: float) -> str:
    """Values −``largest`` to ``largest`` as orange to blue, 0 transparent, so that it is neutral on any page."""
    rgba = np.empty((*image.shape, 4), np.uint8)
    rgba[..., :3] = np.where(image[..., None] > 0, PLUS, MINUS)
    rgba[..., 3] = np.rint(255 * np.clip(np.abs(image) / (largest or 1), 0, 1))
    return _png(rgba)


def _png(rgba: Array) -> str:
    height, width, _ = rgba.shape
    rows = b"".join(b"\0" + row.tobytes() for row in rgba)  # filter 0 before each row
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()
