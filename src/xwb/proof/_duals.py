"""Numbers that carry their derivatives forward: exact for integers and fractions, else as IEEE says.

x/0 and log(0) are what IEEE makes of them, in integers too; whoever computes silences NumPy's warnings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Number: TypeAlias = int | Fraction | float
NO_SLOPES: Mapping[Any, Number] = MappingProxyType({})


class Dual(NamedTuple):
    """A number, and what each seed that moves it is multiplied by."""

    value: Number
    slopes: Mapping[Any, Number] = NO_SLOPES


def chain(value: Number, *parts: tuple[Number, Dual]) -> Dual:
    """The chain rule: ``parts`` are what the value was computed from, each with the partial derivative."""
    slopes: dict[Any, Number] = {}
    for partial, part in parts:
        for seed, slope in part.slopes.items():
            slopes[seed] = slopes.get(seed, 0) + partial * slope
    return Dual(value, slopes)


def total(parts: Iterable[Dual]) -> Dual:
    parts = list(parts)
    return chain(sum(part.value for part in parts), *((1, part) for part in parts))


def times(a: Dual, b: Dual) -> Dual:
    return chain(a.value * b.value, (b.value, a), (a.value, b))


def over(a: Dual, b: Dual) -> Dual:
    value = _quotient(a.value, b.value)
    return chain(value, (_quotient(1, b.value), a), (-_quotient(value, b.value), b))


def to_the(a: Dual, b: Dual) -> Dual:
    value = _power(a.value, b.value)
    parts = [(0 if b.value == 0 else b.value * _power(a.value, b.value - 1), a)]
    if b.slopes:  # 0**b is 0 around every positive b
        parts.append((0 if a.value == 0 and b.value > 0 else value * float(np.log(float(a.value))), b))
    return chain(value, *parts)


def _quotient(a: Number, b: Number) -> Number:
    if b == 0 or isinstance(a, float) or isinstance(b, float):
        return float(np.divide(float(a), float(b)))
    return Fraction(a) / b


def _power(a: Number, b: Number) -> Number:
    exact = not isinstance(a, float) and not isinstance(b, float) and b.denominator == 1
    if exact and (a != 0 or b >= 0):
        return Fraction(a) ** int(b)
    return float(np.power(float(a), float(b)))


def _sign(x: Number) -> Number:
    return (x > 0) - (x < 0)


def _sigmoid(x: float) -> Any:
    return 1 / (1 + np.exp(-x))


def _bell(x: float) -> Any:
    """The density of the normal distribution."""
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _below(x: float) -> float:
    """The normal distribution: the integral of its density up to x."""
    return math.erfc(-x / math.sqrt(2)) / 2


# Each function and its derivative; the first three stay among the rational numbers.
EXACT: dict[str, tuple[Callable[[Number], Number], Callable[[Number], Number]]] = {
    "abs": (lambda x: -x if x < 0 else x, _sign),
    "sign": (_sign, lambda x: 0),
    "relu": (lambda x: 0 if x <= 0 else x, lambda x: int(x > 0)),
}
FLOATING: dict[str, tuple[Callable[[float], Any], Callable[[float], Any]]] = {
    "exp": (np.exp, np.exp),
    "log": (np.log, lambda x: np.divide(1, x)),
    "sqrt": (np.sqrt, lambda x: np.divide(0.5, np.sqrt(x))),
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda x: -np.sin(x)),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "erf": (math.erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
    "gelu": (lambda x: x * _below(x), lambda x: _below(x) + x * _bell(x)),
}


def function(name: str, x: Dual) -> Dual:
    if name in EXACT:
        value, slope = EXACT[name]
        return chain(value(x.value), (slope(x.value), x))
    f, df = FLOATING[name]
    return chain(float(f(float(x.value))), (float(df(float(x.value))), x))


def extreme(kind: str, parts: list[Dual]) -> Dual:
    """The maximum or minimum; what reaches it shares its derivative equally. A NaN wins."""
    best = (max if kind == "max" else min)(part.value for part in parts)
    chosen = [p for p in parts if p.value != p.value] or [p for p in parts if p.value == best]
    return chain(chosen[0].value, *((Fraction(1, len(chosen)), part) for part in chosen))
