"""What the benchmarks share: interleaved timing, and the machine in one line."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import NamedTuple

# Seconds. OpenBLAS's and OpenMP's threads wait actively for their next task, for up to a fifth of a second.
PAUSE = 0.3
WARM_UP = 0.1


class Timing(NamedTuple):
    """Seconds per call: the median, and half the distance between the quartiles."""

    median: float
    spread: float

    def __str__(self) -> str:
        return f"{self.median * 1e3:.4g} ms ± {self.spread / self.median:.0%}"


def interleaved(sides: Mapping[str, Callable[[], object]], seconds: float = 20.0) -> dict[str, Timing]:
    """Time the sides in turns, each turn in another order, until ``seconds`` are spent and seven rounds are done.

    A turn begins with a pause, in which the threads that the side before left spinning go to sleep, and with untimed
    calls, which fill the caches and wake the processor again.
    """
    names = list(sides)
    for side in sides.values():
        side()
    started = time.perf_counter()
    for side in sides.values():
        side()
    once = (time.perf_counter() - started) / len(names)
    calls = max(3, min(1000, int(seconds / 20 / len(names) / once)))
    samples: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    rounds = 0
    while rounds < 7 or time.perf_counter() - begin < seconds:
        shift = rounds % len(names)
        for name in names[shift:] + names[:shift]:
            side = sides[name]
            time.sleep(PAUSE)
            warm = time.perf_counter() + WARM_UP
            side()
            while time.perf_counter() < warm:
                side()
            for _ in range(calls):
                started = time.perf_counter()
                side()
                samples[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: _timing(times) for name, times in samples.items()}


def _timing(times: list[float]) -> Timing:
    lower, _, upper = statistics.quantiles(times, n=4)
    return Timing(statistics.median(times), (upper - lower) / 2)


def machine(*packages: str) -> str:
    """The processor, its cores, and the versions of the packages."""
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    kernels = os.environ.get("OPENBLAS_CORETYPE")  # decides OpenBLAS's speed by a factor of two
    pinned = f"; OPENBLAS_CORETYPE={kernels}" if kernels else ""
    return f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}{pinned}"
