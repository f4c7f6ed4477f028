"""The examples run as a reader runs them, and say what they claim."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def numbers(name: str, tmp_path: Path) -> dict[str, float]:
    """What an example prints, ``label: number ...`` per line, run outside the source folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(.+?):\s+(-?[\d,.]+(?:e[-+]\d+)?)", done.stdout, re.MULTILINE)
    return {label.strip(): float(number.replace(",", "")) for label, number in found}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_has_a_test(path):
    assert f'"{path.name}"' in Path(__file__).read_text("utf-8")


def test_custom_layer(tmp_path):
    said = numbers("custom_layer.py", tmp_path)
    assert said["largest relative difference"] < 1e-7
    assert said["test images right"] > 0.95


def test_per_example_clipping(tmp_path):
    said = numbers("per_example_clipping.py", tmp_path)
    assert said["examples"] == 1797
    # What is held is N (D + M) numbers for each weight, what is never formed N·D·M.
    assert said["bytes of the factors"] == 1797 * (64 + 256 + 256 + 10) * 4
    assert said["bytes of the per-example gradients, never formed"] == 1797 * (64 * 256 + 256 * 10) * 4
    assert said["largest relative difference from one pass per example"] < 1e-5
    after = next(value for label, value in said.items() if label.startswith("norm of the sum after clipping"))
    assert 0 < after < said["norm of the sum before clipping"]
