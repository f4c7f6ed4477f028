"""Curves as inline SVG: real axes, colours from the page's style, a title and a description for screen readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 460, 300
DECIMALS, LARGE = 6, 1e6  # more decimals and larger numbers do not fit beside an axis
LEFT, RIGHT, TOP, BOTTOM = 78, 12, 28, 44


class Curve(NamedTuple):
    """One line: its name in the legend, its style class in the page, one value per x."""

    name: str
    style: str
    values: Sequence[float]
    xs: Sequence[float] | None = None  # its own, where they are not those of the chart
    dots: bool = False  # whether each value gets one


class Axis(NamedTuple):
    """From ``low`` to ``high``, linear or logarithmic, with labelled ``ticks``."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where ``value`` lies, 0 at ``low`` and 1 at ``high``."""
        if self.logarithmic:
            return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, unit: float = 1.0, suffix: str = "", least: float = 0.0) -> Axis:
    """About six ticks at multiples of 1, 2 or 5 times a power of ten, at least ``least`` apart; labels in ``unit``.

    ``low`` and ``high`` are kept as they are. Very small and very large numbers are labelled as ``6.5e-23``.
    """
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = max((high - low) / 6, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    multiples = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    wide = digits > DECIMALS or max(abs(low), abs(high)) / unit >= LARGE

    def label(value: float) -> str:
        if not wide or not value:
            return f"{value:.{0 if wide else digits}f}{suffix}"
        first, last = (math.floor(math.log10(size) + 1e-9) for size in (abs(value), step / unit))
        return f"{value:.{max(0, first - last)}e}{suffix}"

    return Axis(low, high, [(i * step, label(i * step / unit)) for i in multiples])


def log_axis(values: Sequence[float]) -> Axis:
    """A logarithmic axis around the positive ``values``, ticks at 1, 2 and 5 (over two decades: at 1 only).

    Values too close together for two such ticks get a linear axis.
    """
    positive = [value for value in values if value > 0] or [0.1, 1.0]
    low, high = min(positive) / 1.25, max(positive) * 1.25
    factors = (1, 2, 5) if high / low < 100 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    inside = [(tick, f"{tick:g}") for tick in ticks if low <= tick <= high]
    return Axis(low, high, inside, True) if len(inside) > 1 else linear_axis(low, high)


def line_chart(
    identity: str,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    x_label: str,
    y_label: str,
    xs: Sequence[float],
    curves: Sequence[Curve],
    mark: tuple[float, float, str] | None = None,
) -> str:
    """A chart as an ``<svg>`` element; curves are cut off where they leave the axes.

    Args:
        identity: a name unique in the page, for the references inside the element.
        mark: (x, y, label) of one point to ring.
    """
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(u: float, v: float) -> tuple[float, float]:
        # Far outside is far enough; browsers dislike coordinates of 1e9.
        return LEFT + wide * x.place(u), TOP + high * (1 - min(max(y.place(v), -9.0), 9.0))

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}-title {identity}-desc">',
        f'<title id="{identity}-title">{escape(title)}</title>',
        f'<desc id="{identity}-desc">{escape(description)}</desc>',
        f'<clipPath id="{identity}-clip"><rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}"/></clipPath>',
    ]
    for value, label in y.ticks:
        _, v = at(x.low, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{v:.1f}" y2="{v:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{v + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    base = TOP + high
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    for value, label in x.ticks:
        u, _ = at(value, y.low)
        parts.append(f'<line class="axis" x1="{u:.1f}" x2="{u:.1f}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text class="tick" x="{u:.1f}" y="{base + 17}" text-anchor="middle">{escape(label)}</text>')
    parts.append(
        f'<text class="label" x="{LEFT + wide / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(12 {TOP + high / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for curve in curves:
        places = list(map(at, xs if curve.xs is None else curve.xs, curve.values))
        points = " ".join(f"{u:.1f},{v:.1f}" for u, v in places)
        parts.append(f'<polyline class="curve {curve.style}" clip-path="url(#{identity}-clip)" points="{points}"/>')
        for u, v in places if curve.dots else ():
            parts.append(f'<circle class="dot {curve.style}" cx="{u:.1f}" cy="{v:.1f}" r="2.6"/>')
    if mark:
        u, v = at(mark[0], mark[1])
        parts.append(f'<line class="mark" x1="{u:.1f}" x2="{u:.1f}" y1="{TOP}" y2="{base}"/>')
        parts.append(f'<circle class="mark" cx="{u:.1f}" cy="{v:.1f}" r="4.5"/>')
        left = u > LEFT + wide / 2  # keep the label inside
        parts.append(
            f'<text class="tick" x="{u + (6 if left else -6):.1f}" y="{TOP - 8}" '
            f'text-anchor="{"end" if left else "start"}">{escape(mark[2])}</text>'
        )
    return "\n".join([*parts, "</svg>"])
