"""How NumPy, PyTorch and JAX spell the operations of a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from . import _convolve as convolve
from . import _norm as norm
from ._graph import COMPARE, Node
from ._shapes import Dim

if TYPE_CHECKING:
    from ._body import Body

ATOM, POWER, SIGN, TIMES, PLUS, RELATION, CHOICE = 10, 9, 8, 7, 6, 4, 1
OPERATORS = {"add": ("+", PLUS), "sub": ("-", PLUS), "mul": ("*", TIMES), "div": ("/", TIMES), "mod": ("%", TIMES)}
PLAIN = {"exp", "log", "sqrt", "abs", "sin", "cos", "tanh", "sign"}


class Speller:
    """NumPy's."""

    name = "numpy"
    np = "np"
    in_place = True
    raises = True
    """Whether a position outside its axis can be refused."""
    no_dtype = "np.float64"
    no_device = ""
    axis = "axis"

    def __init__(self) -> None:
        self.helpers: dict[str, str] = {}
        """Functions that the module has to define, by name."""
        self.imports: dict[str, None] = {}

    # -- expressions -------------------------------------------------------------------------------------------------

    def top(self, body: Body, node: Node) -> str:
        """An expression that stands alone; as an expression even where the node has a name below another's."""
        return self._text(body, node)[0]

    def text(self, body: Body, node: Node) -> tuple[str, int]:
        """An expression and how closely it binds."""
        if node in body.names:
            return body.names[node], ATOM
        return self._text(body, node)

    def bound(self, body: Body, node: Node, least: int) -> str:
        """An expression as an operand of something that binds as closely as ``least``."""
        text, binds = self.text(body, node)
        return text if binds >= least else f"({text})"

    def _text(self, body: Body, node: Node) -> tuple[str, int]:
        op = node.op
        if op in OPERATORS:
            return self._operator(body, node)
        if op in COMPARE:
            sides = [self.bound(body, arg, RELATION + 1) for arg in node.args]
            text = f"{sides[0]} {op} {sides[1]}"
            return (text, RELATION) if not all(a.host for a in node.args) else (self.from_host(body, text), ATOM)
        if node.host:
            return self._host(body, node)
        found: tuple[str, int] = getattr(self, f"_{op}", self._function)(body, node)
        return found

    def _operator(self, body: Body, node: Node) -> tuple[str, int]:
        sign, binds = OPERATORS[node.op]
        left, right = node.args
        a, b = self.text(body, left), self.text(body, right)
        mixed = binds == TIMES and ("@" in a[0] or "%" in a[0] or (a[1] == TIMES and "/" in a[0] and sign == "*"))
        first = a[0] if a[1] > binds or (a[1] == binds and not mixed) else f"({a[0]})"
        after = a[1] == SIGN and binds == TIMES
        first = f"({a[0]})" if after and first.startswith("-") and not left.host else first
        last = b[0] if b[1] > binds and b[1] != SIGN else f"({b[0]})"
        return f"{first} {sign} {last}", binds

    def _host(self, body: Body, node: Node) -> tuple[str, int]:
        """Plain numbers."""
        op = node.op
        if op == "const":
            return self.number(node.attrs[0])
        if op == "size":
            text = body.dim(node.attrs[0])
            return text, TIMES if "*" in text else ATOM
        if op in ("maximum", "minimum"):
            return f"{op[:3]}({', '.join(self.text(body, a)[0] for a in node.args)})", ATOM
        if op == "pow":
            return f"({self.text(body, node.args[0])[0]}) ** ({self.text(body, node.args[1])[0]})", POWER
        (arg,) = node.args
        x = self.text(body, arg)[0]
        if op == "neg":
            return f"-{self.bound(body, arg, ATOM)}", SIGN
        if op == "square":
            return _power(x, self.text(body, arg)[1], "2")
        if op == "abs":
            return f"abs({x})", ATOM
        if op == "relu":
            return f"max({x}, 0)", ATOM
        self.imports["math"] = None
        if op == "sigmoid":
            return f"1 / (1 + math.exp(-({x})))", TIMES
        if op == "gelu":
            return f"({x}) * (1 + math.erf(({x}) / math.sqrt(2))) / 2", TIMES
        if op == "sign":
            return f"(({x}) > 0) - (({x}) < 0)", PLUS
        return f"math.{op}({x})", ATOM

    @staticmethod
    def number(value: Fraction | float) -> tuple[str, int]:
        if isinstance(value, float):
            return (f'float("{value}")', ATOM) if math.isinf(value) else (repr(value), ATOM if value >= 0 else SIGN)
        if value.denominator == 1 and abs(value) < 2**31:
            return str(value.numerator), ATOM if value >= 0 else SIGN
        try:
            text = repr(float(value))
        except OverflowError:
            text = 'float("inf")' if value > 0 else '-float("inf")'
        return text, ATOM if value >= 0 else SIGN

    def _call(self, body: Body, name: str, *parts: Node | str) -> tuple[str, int]:
        said = [part if isinstance(part, str) else self.text(body, part)[0] for part in parts]
        return f"{name}({', '.join(said)})", ATOM

    def _method(self, body: Body, node: Node, name: str, arguments: str) -> tuple[str, int]:
        return f"{self.bound(body, node, ATOM)}.{name}({arguments})", ATOM

    def _function(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.{node.op}", *node.args)

    def _neg(self, body: Body, node: Node) -> tuple[str, int]:
        return f"-{self.bound(body, node.args[0], ATOM)}", SIGN

    def _square(self, body: Body, node: Node) -> tuple[str, int]:
        text, binds = self.text(body, node.args[0])
        return _power(text, binds, "2") if text.isidentifier() else self._call(body, f"{self.np}.square", text)

    def _pow(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.power", *node.args)

    def _relu(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.maximum", node.args[0], "0")

    def _sigmoid(self, body: Body, node: Node) -> tuple[str, int]:
        self.imports["from scipy.special import expit"] = None
        return self._call(body, "expit", node.args[0])

    def _erf(self, body: Body, node: Node) -> tuple[str, int]:
        self.imports["from scipy.special import erf"] = None
        return self._call(body, "erf", node.args[0])

    def _gelu(self, body: Body, node: Node) -> tuple[str, int]:
        self.imports["from scipy.special import ndtr"] = None
        self.helpers["_gelu"] = "def _gelu(x):\n    return x * ndtr(x)\n"
        return self._call(body, "_gelu", node.args[0])

    def _and(self, body: Body, node: Node) -> tuple[str, int]:
        return " & ".join(self.bound(body, arg, RELATION + 2) for arg in node.args), RELATION + 1

    def _isfinite(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.isfinite", *node.args)

    def _where(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.where", *node.args)

    def _cast(self, body: Body, node: Node) -> tuple[str, int]:
        return self._method(body, node.args[0], "astype", body.dtype)

    def from_host(self, body: Body, text: str) -> str:
        return f"np.asarray({text})"

    # -- axes --------------------------------------------------------------------------------------------------------

    def shape(self, body: Body, dims: Sequence[Dim]) -> str:
        parts = [body.dim(dim) for dim in dims]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def dim_text(self, body: Body, dim: Dim, note: bool = False) -> str:
        """A size in a comment."""
        if dim.value is not None:
            return str(dim.value)
        if dim.parts:
            return " ".join(self.dim_text(body, part) for part in dim.parts)
        return body.dims[dim]

    def _view(self, body: Body, node: Node) -> tuple[str, int]:
        axes, inner = node.attrs, node.args[0]
        kept = [axis for axis in axes if axis is not None]
        if inner.op in ("sum", "max", "min") and inner not in body.names and kept == list(range(inner.rank)):
            back = tuple(i for i, axis in enumerate(axes) if axis is None)
            if back == inner.attrs and len(axes) == inner.args[0].rank:
                return self._reduced(body, inner, True)
        text = self.bound(body, inner, ATOM)
        if kept != list(range(inner.rank)):
            if inner.rank == 2:
                text += ".T"
            elif kept == [*range(inner.rank - 2), inner.rank - 1, inner.rank - 2]:
                text += ".mT"
            else:
                text += f".{self.transpose}({', '.join(map(str, kept))})"
        if None in axes:
            last = max(i for i, axis in enumerate(axes) if axis is None)
            front = axes[: last + 1]
            said = [":" if axis is not None else "None" for axis in front]
            text += f"[{', '.join(said)}]"
        return text, ATOM

    transpose = "transpose"

    def _reshape(self, body: Body, node: Node) -> tuple[str, int]:
        return self._method(body, node.args[0], "reshape", ", ".join(body.dim(dim) for dim in node.shape) or "()")

    def _cut(self, body: Body, node: Node) -> tuple[str, int]:
        inner = node.args[0]
        ends = [_slice(body.dim(n)) if n is not m else ":" for n, m in zip(node.shape, inner.shape, strict=True)]
        while ends[-1] == ":":
            ends.pop()
        return f"{self.bound(body, inner, ATOM)}[{', '.join(ends)}]", ATOM

    def _broadcast(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.broadcast_to", node.args[0], self.shape(body, node.shape))

    def _take(self, body: Body, node: Node) -> tuple[str, int]:
        array, at = node.args
        places = [":"] * node.attrs[0] + [self.text(body, at)[0]]
        return f"{self.bound(body, array, ATOM)}[{', '.join(places)}]", ATOM

    def _gather(self, body: Body, node: Node) -> tuple[str, int]:
        array, *at = node.args
        places = [self.text(body, one)[0] for one in at]
        return f"{self.bound(body, array, ATOM)}[{', '.join(places)}]", ATOM

    def _inside(self, body: Body, node: Node) -> tuple[str, int]:
        return self.text(body, node.args[0])

    # -- leaves ------------------------------------------------------------------------------------------------------

    def _iota(self, body: Body, node: Node) -> tuple[str, int]:
        return f"np.arange({body.dim(node.attrs[0])})", ATOM

    def _zeros(self, body: Body, node: Node) -> tuple[str, int]:
        return f"np.zeros({self.shape(body, node.shape)}, {body.dtype})", ATOM

    def _full(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "np.full", self.shape(body, node.shape), node.args[0], body.dtype)

    # -- sums and products -------------------------------------------------------------------------------------------

    def _sum(self, body: Body, node: Node) -> tuple[str, int]:
        return self._reduced(body, node, False)

    _max = _min = _prod = _sum

    def _reduced(self, body: Body, node: Node, keep: bool) -> tuple[str, int]:
        said = self._axes(node)
        if keep:
            said = f"{said}, keepdims=True" if said else "keepdims=True"
        return self._method(body, node.args[0], self.reductions.get(node.op, node.op), said)

    reductions: ClassVar[dict[str, str]] = {}

    def _axes(self, node: Node) -> str:
        rank = node.args[0].rank
        if len(node.attrs) == rank:
            return ""
        axes = [axis if axis < rank - 1 else -1 for axis in node.attrs]
        return f"{self.axis}={axes[0] if len(axes) == 1 else tuple(axes)}"

    def _matmul(self, body: Body, node: Node) -> tuple[str, int]:
        left, right = node.args
        a, b = self.text(body, left), self.text(body, right)
        first = a[0] if a[1] > TIMES else f"({a[0]})"
        last = b[0] if b[1] > TIMES else f"({b[0]})"
        return f"{first} @ {last}", TIMES

    def _vecdot(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.vecdot", *node.args)

    def _einsum(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, f"{self.np}.einsum", f'"{node.attrs[0]}"', *node.args)

    def _conv(self, body: Body, node: Node) -> tuple[str, int]:
        return convolve.numpy(body, node)

    def _conv_weight(self, body: Body, node: Node) -> tuple[str, int]:
        return self._conv(body, node)

    def _conv_input(self, body: Body, node: Node) -> tuple[str, int]:
        return self._conv(body, node)

    def _others(self, body: Body, node: Node) -> tuple[str, int]:
        self.helpers["_others"] = (
            "def _others(x):\n"
            '    """The product of all other entries along the last axis."""\n'
            "    one = np.ones_like(x[..., :1])\n"
            "    below = np.cumprod(np.concatenate([one, x[..., :-1]], axis=-1), axis=-1)\n"
            "    above = np.cumprod(np.concatenate([one, x[..., :0:-1]], axis=-1), axis=-1)\n"
            "    return below * above[..., ::-1]\n"
        )
        return self._call(body, "_others", node.args[0])

    # -- statements --------------------------------------------------------------------------------------------------

    def update(self, body: Body, node: Node, spot: int, old: str, new: str) -> str:
        """A statement that writes a node over the operand at ``spot``."""
        if node.op in OPERATORS and spot == 0 and old == new:
            return f"{old} {OPERATORS[node.op][0]}= {self.text(body, node.args[1])[0]}"
        if node.op in ("add", "mul") and spot == 1 and old == new:
            return f"{old} {OPERATORS[node.op][0]}= {self.text(body, node.args[0])[0]}"
        return self._out(body, node, spot, old, new)

    ufuncs: ClassVar[dict[str, str]] = {
        "add": "np.add",
        "sub": "np.subtract",
        "mul": "np.multiply",
        "div": "np.divide",
        "mod": "np.remainder",
        "neg": "np.negative",
        "sigmoid": "expit",
        "erf": "erf",
    }

    def _out(self, body: Body, node: Node, spot: int, old: str, new: str) -> str:
        said = [old if i == spot else self.text(body, arg)[0] for i, arg in enumerate(node.args)]
        before = f"{new} = " if new != old else ""
        if node.op == "relu":
            return f"{before}np.maximum({old}, 0, out={old})"
        if node.op == "gelu":
            return f"{new} = {self._text(body, node)[0]}"
        if node.op in ("sigmoid", "erf"):
            self._text(body, node)
        return f"{before}{self.ufuncs.get(node.op, f'np.{node.op}')}({', '.join(said)}, out={old})"

    def copied(self, body: Body, node: Node) -> str:
        """An array of its own."""
        return self._method(body, node, "copy", "")[0]

    def scatter(self, body: Body, node: Node, name: str) -> list[str]:
        """Statements that add to places of a named array."""
        value, *at = node.args[1:]
        perm, _, cuts, distinct, shape = node.attrs
        target = self._turned(name, perm)
        places = [self.text(body, one)[0] for one in at]
        ends = [_slice(body.dim(cut)) if cut is not None else ":" for cut in cuts]
        while ends and ends[-1] == ":":
            ends.pop()
        index = ", ".join([*places, *ends])
        minus = value.op == "neg" and value not in body.names
        said = self.text(body, value.args[0] if minus else value)[0]
        if distinct or not places:
            sign = "-=" if minus else "+="
            return [f"{target}[{index}] {sign} {said}" if index else f"{target} {sign} {said}"]
        if value.shape != shape:  # np.add.at does not repeat values by itself
            said = f"np.broadcast_to({said}, {self.shape(body, shape)})"
        pair = f"({index})" if len(places) + len(ends) > 1 else index
        inner = [f"slice({body.dim(cut)})" if cut is not None else "slice(None)" for cut in cuts][: len(ends)]
        pair = f"({', '.join([*places, *inner])})" if inner else pair
        return [f"np.{'subtract' if minus else 'add'}.at({target}, {pair}, {said})"]

    def _turned(self, name: str, perm: Sequence[int]) -> str:
        if list(perm) == list(range(len(perm))):
            return name
        return f"{name}.T" if len(perm) == 2 else f"{name}.{self.transpose}({', '.join(map(str, perm))})"

    def positions(self, name: str, kind: str, plain: bool) -> list[str]:
        """Lines that make integers fit to count with; ``plain`` where they only index or are compared."""
        if plain:
            return []
        if kind == "int":
            return [f"{name} = {name}.astype({self.long})"]
        return [f"{name} = {name} if {self.floating(name)} else {name}.astype({self.long})"]

    long = "np.int64"

    def floating(self, name: str) -> str:
        """Whether an array holds floating numbers."""
        return f'{name}.dtype.kind == "f"'

    def check(self, name: str) -> list[str]:
        return [
            f"if np.size({name}) and np.min({name}) < 0:",
            f'    raise IndexError("{name}: positions do not count from the end")',
        ]

    def suggestion(self, body: Body, node: Node) -> str:
        """A name for a value that the formula has none for."""
        if node.op == "matmul":
            names = []
            for arg in node.args:
                while arg.op in ("view", "reshape") and arg not in body.names:
                    arg = arg.args[0]
                names.append(body.names.get(arg, ""))
            if all(names) and len("".join(names)) <= 6:
                return "".join(names)
        if node.op == "iota":
            return f"at_{node.attrs[0].letter}"
        if node.kind == "bool":
            return "mask"
        if node.kind == "int":
            return "at"
        named = {
            "exp": "E",
            "max": "top",
            "min": "low",
            "sum": "total",
            "sqrt": "root",
            "log": "log",
            "others": "others",
        }
        return named.get(node.op, "t")


class TorchSpeller(Speller):
    """PyTorch's."""

    name = "torch"
    np = "torch"
    axis = "dim"
    transpose = "permute"
    no_dtype = "torch.float64"
    no_device = '"cpu"'
    reductions: ClassVar[dict[str, str]] = {"max": "amax", "min": "amin"}

    def _conv(self, body: Body, node: Node) -> tuple[str, int]:
        return convolve.torch(body, node)

    def _norm(self, body: Body, node: Node) -> tuple[str, int]:
        return norm.torch(body, node), ATOM

    def _norm_backward(self, body: Body, node: Node) -> tuple[str, int]:
        return norm.torch(body, node), ATOM

    def from_host(self, body: Body, text: str) -> str:
        return f"torch.tensor({text}, device={body.device})"

    def _reduced(self, body: Body, node: Node, keep: bool) -> tuple[str, int]:
        said = self._axes(node).removeprefix("dim=")
        if node.op == "prod" and len(node.attrs) > 1:
            text = self.bound(body, node.args[0], ATOM)
            return text + "".join(f".prod({axis})" for axis in sorted(node.attrs, reverse=True)), ATOM
        if keep:
            said = f"{said or tuple(node.attrs)}, keepdim=True"
        return self._method(body, node.args[0], self.reductions.get(node.op, node.op), said)

    def _where(self, body: Body, node: Node) -> tuple[str, int]:
        condition, yes, no = node.args
        if not (yes.host and no.host):
            return super()._where(body, node)
        number = f"torch.tensor({self.text(body, yes)[0]}, {self._like(body)})"  # else float32, whatever the inputs
        return self._call(body, "torch.where", condition, number, no)

    def _cast(self, body: Body, node: Node) -> tuple[str, int]:
        return self._method(body, node.args[0], "to", body.dtype)

    def _relu(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.relu", node.args[0])

    def _sigmoid(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.sigmoid", node.args[0])

    def _erf(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.special.erf", node.args[0])

    def _gelu(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.nn.functional.gelu", node.args[0])

    def _pow(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.pow", *node.args)

    def _function(self, body: Body, node: Node) -> tuple[str, int]:
        if node.op in ("maximum", "minimum") and any(arg.host for arg in node.args):
            array, host = node.args if node.args[1].host else node.args[::-1]
            end = "min" if node.op == "maximum" else "max"
            return self._method(body, array, "clamp", f"{end}={self.text(body, host)[0]}")
        return super()._function(body, node)

    def _vecdot(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.linalg.vecdot", *node.args)

    def _einsum(self, body: Body, node: Node) -> tuple[str, int]:
        sides, _, kept = node.attrs[0].partition("->")
        first, second = sides.split(",")
        if set(first) != set(second) or kept != "".join(x for x in first if x in kept):
            return super()._einsum(body, node)
        a, b = (self.bound(body, arg, ATOM) for arg in node.args)
        if first != second:
            b += ".T" if len(first) == 2 else f".permute({', '.join(str(second.index(x)) for x in first)})"
        axes = [axis if axis < len(first) - 1 else -1 for axis, x in enumerate(first) if x not in kept]
        return f"({a} * {b}).sum({axes[0] if len(axes) == 1 else tuple(axes)})", ATOM

    def _broadcast(self, body: Body, node: Node) -> tuple[str, int]:
        return self._method(body, node.args[0], "expand", ", ".join(body.dim(dim) for dim in node.shape))

    def _iota(self, body: Body, node: Node) -> tuple[str, int]:
        return f"torch.arange({body.dim(node.attrs[0])}, device={body.device})", ATOM

    def _zeros(self, body: Body, node: Node) -> tuple[str, int]:
        return f"torch.zeros({self.shape(body, node.shape)}, {self._like(body)})", ATOM

    def _full(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "torch.full", self.shape(body, node.shape), node.args[0], self._like(body))

    @staticmethod
    def _like(body: Body) -> str:
        return f"dtype={body.dtype}, device={body.device}"

    def _others(self, body: Body, node: Node) -> tuple[str, int]:
        self.helpers["_others"] = (
            "def _others(x):\n"
            '    """The product of all other entries along the last axis."""\n'
            "    one = torch.ones_like(x[..., :1])\n"
            "    below = torch.cat([one, x[..., :-1]], -1).cumprod(-1)\n"
            "    above = torch.cat([one, x[..., 1:].flip(-1)], -1).cumprod(-1)\n"
            "    return below * above.flip(-1)\n"
        )
        return self._call(body, "_others", node.args[0])

    def _out(self, body: Body, node: Node, spot: int, old: str, new: str) -> str:
        said = [old if i == spot else self.text(body, arg)[0] for i, arg in enumerate(node.args)]
        before = f"{new} = " if new != old else ""
        if len(node.args) == 1 and node.op != "gelu":
            return f"{before}{old}.{node.op}_()"
        if any(arg.host for arg in node.args) or node.op in ("gelu", "pow"):
            if node.op in OPERATORS and spot == 0:
                return f"{before}{old}.{'remainder' if node.op == 'mod' else node.op}_({said[1]})"
            if node.op == "sub":
                return f"{before}{old}.neg_().add_({said[0]})"
            if node.op in ("add", "mul"):
                return f"{before}{old}.{node.op}_({said[0]})"
            if node.op in ("maximum", "minimum"):
                end = "min" if node.op == "maximum" else "max"
                return f"{before}{old}.clamp_({end}={said[1 - spot]})"
            return f"{new} = {self._replaced(body, node, spot, old)}"
        name = {"mod": "remainder"}.get(node.op, node.op)
        return f"{before}torch.{name}({', '.join(said)}, out={old})"

    def _replaced(self, body: Body, node: Node, spot: int, old: str) -> str:
        return self._text(body, node)[0]

    def copied(self, body: Body, node: Node) -> str:
        return self._method(body, node, "clone", "")[0]

    def scatter(self, body: Body, node: Node, name: str) -> list[str]:
        _, count, cuts, distinct, _ = node.attrs
        lines = super().scatter(body, node, name)
        if distinct or not count:
            return lines
        value, *at = node.args[1:]
        target = self._turned(name, node.attrs[0])
        ends = [_slice(body.dim(cut)) if cut is not None else ":" for cut in cuts]
        front = [self.text(body, one)[0] if one.host else ":" for one in at]
        whole = [*front, *ends]
        while whole and whole[-1] == ":":
            whole.pop()
        target += f"[{', '.join(whole)}]" if whole else ""
        places = [self.text(body, one)[0] for one in at if not one.host]
        pair = f"({', '.join(places)}{',' if len(places) == 1 else ''})"
        return [f"{target}.index_put_({pair}, {self.text(body, value)[0]}, accumulate=True)"]

    def positions(self, name: str, kind: str, plain: bool) -> list[str]:
        if kind == "int":
            return [f"{name} = {name}.long()"]
        return [] if plain else [f"{name} = {name} if {self.floating(name)} else {name}.long()"]

    def floating(self, name: str) -> str:
        return f"{name}.is_floating_point()"

    def check(self, name: str) -> list[str]:
        return [
            f'if {name}.device.type == "cpu" and {name}.numel() and {name}.min() < 0:',
            f'    raise IndexError("{name}: positions do not count from the end")',
        ]


class JaxSpeller(Speller):
    """JAX's."""

    name = "jax"
    np = "jnp"
    in_place = False
    raises = False
    no_dtype = "jnp.result_type(float)"
    long = "int"

    def floating(self, name: str) -> str:
        return f"jnp.issubdtype({name}.dtype, jnp.floating)"

    def _conv(self, body: Body, node: Node) -> tuple[str, int]:
        return convolve.jax(body, node)

    def from_host(self, body: Body, text: str) -> str:
        return f"jnp.asarray({text})"

    def _sigmoid(self, body: Body, node: Node) -> tuple[str, int]:
        self.imports["import jax"] = None
        return self._call(body, "jax.nn.sigmoid", node.args[0])

    def _erf(self, body: Body, node: Node) -> tuple[str, int]:
        self.imports["import jax"] = None
        return self._call(body, "jax.scipy.special.erf", node.args[0])

    def _gelu(self, body: Body, node: Node) -> tuple[str, int]:
        self.imports["import jax"] = None
        return self._call(body, "jax.nn.gelu", node.args[0], "approximate=False")

    def _iota(self, body: Body, node: Node) -> tuple[str, int]:
        return f"jnp.arange({body.dim(node.attrs[0])})", ATOM

    def _zeros(self, body: Body, node: Node) -> tuple[str, int]:
        return f"jnp.zeros({self.shape(body, node.shape)}, {body.dtype})", ATOM

    def _full(self, body: Body, node: Node) -> tuple[str, int]:
        return self._call(body, "jnp.full", self.shape(body, node.shape), node.args[0], body.dtype)

    def _others(self, body: Body, node: Node) -> tuple[str, int]:
        super()._others(body, node)
        self.helpers["_others"] = self.helpers["_others"].replace("np.", "jnp.")
        return self._call(body, "_others", node.args[0])

    def copied(self, body: Body, node: Node) -> str:
        return self.text(body, node)[0]

    def scatter(self, body: Body, node: Node, name: str) -> list[str]:
        value, *at = node.args[1:]
        perm, _, cuts, *_ = node.attrs
        places = [self.text(body, one)[0] for one in at]
        ends = [_slice(body.dim(cut)) if cut is not None else ":" for cut in cuts]
        while ends and ends[-1] == ":":
            ends.pop()
        index = ", ".join([*places, *ends])
        said = self.text(body, value)[0]
        if not index:
            return [f"{name} = {name} + {said}"]
        turned = self._turned(name, perm)
        back = [list(perm).index(axis) for axis in range(len(perm))]
        added = f"{turned}.at[{index}].add({said})"
        return [f"{name} = {self._turned(added, back)}"]


def _power(text: str, binds: int, exponent: str) -> tuple[str, int]:
    """As ruff spaces it."""
    if text.replace("_", "a").isalnum():
        return f"{text}**{exponent}", POWER
    return f"({text}) ** {exponent}" if binds <= POWER else f"{text} ** {exponent}", POWER


def _slice(stop: str) -> str:
    """``:stop`` as ruff spaces it."""
    return f":{stop}" if stop.replace("_", "a").isalnum() else f": {stop}"


SPELLERS: dict[str, type[Speller]] = {"numpy": Speller, "torch": TorchSpeller, "jax": JaxSpeller}
