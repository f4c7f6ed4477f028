"""What a record says of the process that made it."""

from __future__ import annotations

import platform


def versions() -> dict[str, str]:
    """Of Python, of xwb, and of the packages that it computes and writes with."""
    from importlib.metadata import version  # slow to load, and only a record wants it

    packages = ("xwb", "numpy", "scipy", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
