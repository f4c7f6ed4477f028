"""A slow and obvious evaluator of index notation: every sum is a loop over Python floats. Tests only.

``evaluate("Y[n,m] = X[n,d] W[d,m] + b[m]", X=X, W=W, b=b)`` is Y. It reads what layers use: products with Einstein
sums, reductions, functions, gathers, Iverson brackets, leading axes, several statements. Ranges come from bare indices.
Once juxtaposition is written ``*``, a formula is a Python expression, and Python's own parser reads it.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

TOKEN = re.compile(r"\*\*|[=!<>]=|\d+\.?\d*(?:[eE][-+]?\d+)?|\w+|\S")
CLOSES = {"+", "-", ")", "]", ",", "", "==", "<", ">", "<=", ">="}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Pow: operator.pow, ast.Eq: operator.eq}
OPERATORS |= {ast.Lt: operator.lt, ast.Gt: operator.gt, ast.LtE: operator.le, ast.GtE: operator.ge}
REDUCTIONS = {"sum": sum, "prod": math.prod, "max": max, "min": min, "mean": lambda v: sum(v) / len(v)}
FUNCTIONS = {name: getattr(np, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "abs", "sign")}
FUNCTIONS |= {"erf": math.erf, "max": max, "min": min, "where": lambda condition, a, b: a if condition else b}
FUNCTIONS |= {"relu": lambda x: max(x, 0.0), "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


def evaluate(formula: str, **tensors: Any) -> np.ndarray:
    """The value of the last statement, float64, computed entry by entry."""
    for text in filter(str.strip, re.split("[;\n]", formula)):
        left, right = re.split(r"(?<![=!<>])=(?!=)", text, maxsplit=1)
        for name, rest in re.findall(r"(\w+)\[\.\.\.([^\[\]]*)\]", right):
            if name in tensors:
                leading = ",".join(f"axis{i}" for i in range(np.ndim(tensors[name]) - rest.count(",")))
                left, right = left.replace("...", leading), right.replace("...", leading)
        name, *letters = re.findall(r"\w+", left)
        tensors[name] = Statement(right.replace("[]", ""), tensors).entries(letters)
    return tensors[name]


def as_python(text: str) -> str:
    """Juxtaposition becomes ``*``; the product after a bare ``sum[k]`` gets parentheses."""
    out, stack, before = [], [], "("
    for token in [*TOKEN.findall(text), ""]:
        ended = before[-1].isalnum() or before in ("]", ")")  # something that could be multiplied
        if before == "reduction]":
            if token != "(":
                stack.append("product")
                out.append("(")
        elif ended and (token[:1].isalnum() or token in ("(", "[")):
            if not before[0].isalpha() or token not in ("(", "["):
                out.append("*")
        elif ended and token in CLOSES:
            while stack and stack[-1] == "product":
                stack.pop()
                out.append(")")
        out.append(token)
        if token in ("(", "["):
            stack.append("reduction" if before in REDUCTIONS and token == "[" else token)
        before = "reduction]" if token == "]" and stack[-1] == "reduction" else token
        if token in (")", "]"):
            stack.pop()
    return "".join(out)


def places(node: ast.Subscript) -> list[Any]:
    """What stands between the brackets of an access or a reduction."""
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def factors(node: Any) -> list[tuple[Any, bool]]:
    """The factors of a product, each with whether it divides; brackets first, for they may rule out the others."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        both = [*factors(node.left), (node.right, isinstance(node.op, ast.Div))]
        return sorted(both, key=lambda factor: not isinstance(factor[0], ast.List))
    return [(node, False)]


class Statement:
    """The right side of one statement, over known tensors; ``env`` holds the indices that have a value."""

    def __init__(self, text: str, tensors: dict[str, Any]) -> None:
        self.body, self.tensors, self.sizes = ast.parse(as_python(text), mode="eval").body, tensors, {}
        for node in ast.walk(self.body):
            if isinstance(node, ast.Subscript) and node.value.id in tensors:
                for place, size in zip(places(node), np.shape(tensors[node.value.id]), strict=True):
                    if isinstance(place, ast.Name) and self.sizes.setdefault(place.id, size) != size:
                        raise ValueError(f"{place.id} has the sizes {self.sizes[place.id]} and {size}")

    def entries(self, letters: list[str]) -> np.ndarray:
        values = [self.value(self.body, at) for at in self.loop(letters, {})]
        return np.reshape(values, [self.sizes[letter] for letter in letters])

    def loop(self, letters: Any, env: dict[str, int]) -> Iterator[dict[str, int]]:
        for values in itertools.product(*(range(self.sizes[letter]) for letter in letters)):
            yield {**env, **dict(zip(letters, values, strict=True))}

    def free(self, node: Any, bound: set[str]) -> set[str]:
        """The letters that a product leaves to what stands around it."""
        inside = set().union(*(self.free_in_factor(factor, bound) for factor, _ in factors(node)))
        return inside - self.summed(node, bound)

    def free_in_factor(self, node: Any, bound: set[str]) -> set[str]:
        children = ast.iter_child_nodes(node)
        match node:
            case ast.Name():
                return {node.id} & self.sizes.keys() - bound
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                children = [node]
            case ast.Subscript():
                children = places(node)
            case ast.Call():
                children = [] if getattr(node.func, "id", "") == "size" else node.args
                bound = bound | {i.id for i in places(node.func)} if isinstance(node.func, ast.Subscript) else bound
        return set().union(*(self.free(child, bound) for child in children))

    def summed(self, node: Any, bound: set[str]) -> set[str]:
        """The letters that occur twice in a product, by Einstein's convention; ``A[i,i]`` counts twice."""
        count: Counter[str] = Counter()
        for factor, _ in factors(node):
            bare = [getattr(place, "id", "") for place in places(factor)] if isinstance(factor, ast.Subscript) else []
            count.update({i: max(1, bare.count(i)) for i in self.free_in_factor(factor, bound)})
        return {letter for letter, times in count.items() if times > 1}

    def value(self, node: Any, env: dict[str, int]) -> Any:
        """A product, summed over its letters; a false bracket makes it 0 whatever stands beside it."""
        total = 0.0
        for at in self.loop(sorted(self.summed(node, set(env))), env):
            term = 1.0
            for factor, divides in factors(node):
                value = self.factor(factor, at)
                term = term / value if divides else term * value
                if isinstance(factor, ast.List) and not value:
                    break
            total += term
        return total

    def factor(self, node: Any, env: dict[str, int]) -> Any:
        match node:
            case ast.Constant():
                return float(node.value)
            case ast.Name():
                return env[node.id] if node.id in env else float(self.tensors[node.id])
            case ast.Subscript():
                return self.tensors[node.value.id][tuple(int(self.value(place, env)) for place in places(node))]
            case ast.List():
                return float(self.factor(node.elts[0], env))
            case ast.Compare():
                return OPERATORS[type(node.ops[0])](self.value(node.left, env), self.value(node.comparators[0], env))
            case ast.UnaryOp():
                return -self.value(node.operand, env)
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                return self.value(node, env)
            case ast.BinOp():
                return OPERATORS[type(node.op)](self.value(node.left, env), self.value(node.right, env))
            case ast.Call(func=ast.Subscript()):
                letters = [place.id for place in places(node.func)]
                return REDUCTIONS[node.func.value.id]([self.value(node.args[0], at) for at in self.loop(letters, env)])
            case ast.Call(func=ast.Name("size")):
                return self.sizes[node.args[0].id]
        condition, *rest = (
            self.factor(a, env) if isinstance(a, ast.Compare) else self.value(a, env) for a in node.args
        )
        return FUNCTIONS[node.func.id](condition, *rest)
