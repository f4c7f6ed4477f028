"""A forward and a backward against tensors that another program stored."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Array, DataError, unknown
from ._apart import ALLOWED
from ._check import check_subject
from ._inputs import Inputs, inputs_of
from ._marks import Grade, Part, mark
from ._subject import Checkable, copies, subject_of


def reference(layer: Checkable, stored: str | PathLike[str] | Mapping[str, Any]) -> Grade:
    """Mark a forward and a backward against stored tensors, part by part.

    The arrays are named like the inputs, ``X``, ``W``; ``Y`` is the value and ``dY`` what the backward was called
    with; ``dX``, ``dW`` are the gradients. Of Y and the gradients those that are there are compared. If an input is
    called Y, the value is ``L`` and its gradient ``dL``. Of a number Y, dY is 1 unless it is there.

    What is allowed depends on the coarser dtype of the stored tensor and the inputs: the one that rounded more is the
    measure of both. A gradient that is wrong gets the diagnosis of `check`.

    Args:
        layer: a pair ``(forward, backward)``, a layer, a loss or a derivation, as for `check`.
        stored: a .npz file, or arrays by name.

    Returns:
        A `Grade`; it is not raised, see `Grade.raise_if_wrong`.

    Raises:
        DataError: the file cannot be read, an array is missing, has a name that means nothing, or a shape that
            contradicts another.
    """
    if isinstance(stored, Mapping):
        source, arrays = "the reference", {name: np.asarray(array) for name, array in stored.items()}
    else:
        source, arrays = Path(stored).name, load(stored)
    inputs = inputs_of(layer)
    output = "L" if "Y" in inputs.names else "Y"
    _refuse(source, arrays, inputs, output)
    subject = subject_of(layer, inputs.arranged({n: a for n, a in arrays.items() if n in inputs.names}), {})
    done = subject.run(*copies(subject.arrays))
    parts = []
    if output in arrays:
        parts.append(_marked(output, done.Y, arrays[output], subject.dtype))
    gradients = [(i, f"d{subject.names[i]}") for i in subject.checked if f"d{subject.names[i]}" in arrays]
    if gradients:
        Y = np.asarray(done.Y)
        dY = arrays.get(f"d{output}", np.ones((), Y.dtype) if Y.ndim == 0 else None)
        if dY is None:
            raise DataError(
                f"{source} has no d{output}, with which the gradients were made; store it beside them, of the shape "
                f"{Y.shape}"
            )
        if dY.shape != Y.shape:
            raise DataError(f"{source}: d{output} has the shape {dY.shape}, and {subject.call} returns {Y.shape}")
        grads = done.back(dY.copy())
        parts += [_marked(name, grads[i], arrays[name], subject.dtype) for i, name in gradients]
    wrong = {part.name for part in parts if not part.ok}
    said = check_subject(subject, conduct=False).diagnosis if wrong & {name for _, name in gradients} else []
    return Grade(subject.call, source, parts, [one for one in said if f"d{one.tensor}" in wrong])


def load(path: str | PathLike[str]) -> dict[str, Array]:
    """The arrays of a .npz file; no code in it is run.

    Raises:
        DataError: it is missing or no such file, or holds something other than numbers.
    """
    name = Path(path).name
    arrays: dict[str, Array] | None = None
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            with stored:
                arrays = {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{name} cannot be read as a .npz file of numbers: {error}") from None
    if arrays is None:
        raise DataError(f"{name} holds one array; a .npz file is expected, as np.savez('FILE.npz', X=X) writes it")
    return arrays


def _marked(name: str, found: Any, stored: Array, inputs: np.dtype[Any]) -> Part:
    """One tensor, with what the coarser of the stored dtype and that of the inputs allows; its own is no excuse."""
    dtypes = {stored.dtype, inputs} & ALLOWED.keys()
    allowed = max((ALLOWED[dtype] for dtype in dtypes), default=ALLOWED[np.dtype(np.float64)])
    return mark(name, found, stored.astype(np.float64), allowed)


def _refuse(source: str, arrays: Mapping[str, Array], inputs: Inputs, output: str) -> None:
    """What is stored must be what is asked for, and enough to compare something."""
    results = [output, *(f"d{name}" for name in inputs.names)]
    known = [*inputs.names, *results, f"d{output}"]
    holds = f"it holds {', '.join(arrays) or 'nothing'}"
    for name, array in arrays.items():
        if name not in known:
            raise DataError(
                f"{source} holds {name}, which is neither an input of {inputs.call}, nor {output}, d{output}, nor a "
                f"gradient{unknown(name, known)}"
            )
        if array.dtype.kind not in "fiu":
            raise DataError(f"{source}: {name} holds {array.dtype}, and numbers are expected")
    missing = [name for name in inputs.names[: inputs.required] if name not in arrays]
    if missing:
        raise DataError(f"{source} has no {' and no '.join(missing)}, which {inputs.call} takes; {holds}")
    if not any(name in arrays for name in results):
        raise DataError(f"{source} has nothing to compare: one of {', '.join(results)} is expected; {holds}")
    pairs = [(output, f"d{output}"), *((name, f"d{name}") for name in inputs.names)]
    for name, gradient in pairs:
        if name in arrays and gradient in arrays and arrays[name].shape != arrays[gradient].shape:
            raise DataError(
                f"{source}: {gradient} has the shape {arrays[gradient].shape}, and {name} {arrays[name].shape}; a "
                "gradient has the shape of its tensor"
            )
