"""How much longer a fit takes: from epochs, or from the gap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xwb.cli._time_left import TimeLeft
from xwb.training import Event, Fit, FitOptions, prepare


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    with prepare(rng.standard_normal((60, 3)), rng.integers(0, 2, 60)) as prepared:
        yield prepared


def event(number, *, head=0, epoch=False, gap=None, objective=1.0, seconds=1.0, stopped=""):
    return Event(head, number, epoch, objective, None, gap, None, seconds, 0, stopped)


def test_epochs_take_equally_long(data):
    left = TimeLeft(Fit(data, FitOptions(solver="adam", epochs=10)))
    assert left.after(event(4, epoch=True, seconds=8.0)) == pytest.approx(12.0)
    assert left.after(event(10, epoch=True, seconds=20.0, stopped="epochs")) is None


def test_each_digit_of_the_gap_takes_equally_long(data):
    left = TimeLeft(Fit(data, FitOptions(tolerance=1e-4)))
    assert left.after(event(1, gap=100.0, seconds=0.5)) is None  # nothing is known yet
    assert left.after(event(2, gap=1.0, objective=1.0, seconds=1.0)) == pytest.approx(2.0)
    assert left.after(event(3, gap=10.0, seconds=2.0)) == pytest.approx(4.0)  # no way back
    assert left.after(event(4, gap=1e-9, seconds=3.0)) == pytest.approx(3.0 / 99)  # not certified yet
    assert left.after(event(5, gap=1e-9, seconds=4.0, stopped="gap")) is None


def test_of_a_sweep_each_head_and_the_refit(data):
    left = TimeLeft(Fit(data, FitOptions(sweep={"l2": [1e-3, 1e-2, 1e-1]})))
    assert left.after(event(9, head=2, gap=1e-9, seconds=1.0, stopped="gap")) == pytest.approx(3.0)
    assert left.after(event(9, head=0, gap=1e-9, seconds=2.0, stopped="gap")) == pytest.approx(2.0)
    assert left.after(event(9, head=1, gap=1e-9, seconds=3.0, stopped="diverged")) == pytest.approx(1.0)
    assert left.after(event(9, head=3, gap=1e-9, seconds=4.0, stopped="gap")) is None


@pytest.mark.parametrize("gap", [None, 0.0, math.inf, math.nan])
def test_without_a_bound_nothing_is_said(data, gap):
    left = TimeLeft(Fit(data, FitOptions(l2=0.0)))
    assert [left.after(event(n, gap=gap)) for n in (1, 2, 3)] == [None] * 3
