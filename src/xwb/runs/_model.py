"""Parameters and what they mean, in one safetensors file with a checksum.

safetensors has no checksum of its own, and writes its metadata in random order (safetensors issue 584). Both are mended
here: the same parameters and metadata always give the same bytes, and a flipped bit is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core import Array, RunError


def model_bytes(params: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The file: ``params`` by name, ``metadata`` and the `checksum` of both, as safetensors.

    Args:
        params: arrays of any shape, float32 or float64.
        metadata: strings by name; ``sha256`` is added.
    """
    from safetensors.numpy import save

    params = {name: np.ascontiguousarray(array) for name, array in params.items()}
    metadata = {**metadata, "sha256": checksum(params, metadata)}
    data = save(params, metadata)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors to eight bytes
    return len(text).to_bytes(8, "little") + text + data[start:]


def read_model(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Parameters and metadata of a file that `model_bytes` made, its checksum verified.

    Raises:
        RunError: the file is missing, is no safetensors file, or its checksum disagrees.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
        params = load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged or no safetensors file: {error}") from error
    stated = metadata.pop("sha256", "no checksum")
    found = checksum(params, metadata)
    if stated != found:
        raise RunError(f"{path} is damaged: it states sha256 {stated[:12]}… and has {found[:12]}…")
    return params, metadata


def checksum(params: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata and every tensor's name, type, shape and bytes, in the order of their names."""
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name, array in sorted(params.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
