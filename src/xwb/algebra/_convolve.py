"""Convolutions among products: recognised by their places, ``X[n,c,s*p+d*r-1] K[o,c,r]``, and how they are spelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ._expr import Index, Indices, Read, SizeOf
from ._graph import Graph, Node
from ._reading import Labelled, aligned
from ._shapes import Dim, Shape, SizeTable, _Linear, _steps

if TYPE_CHECKING:
    from ._body import Body

ATOM = 10


class Window(NamedTuple):
    """One axis that is read at ``stride*place + dilation*offset - low``."""

    place: Index
    offset: Index
    stride: int
    dilation: int
    low: int


class Convolution:
    """The roles of all indices: of D, what is computed forward, of the kernel K, and of X, which is read in windows.

    X is ``(n, g c, length…)``, K ``(g o, c, offset…)`` and D ``(n, g o, place…)``, with g the groups.
    """

    def __init__(
        self, graph: Graph, table: SizeTable, where: Read, length: Shape, D: Sequence[Index], K: Sequence[Index]
    ) -> None:
        self.graph, self.table, self.where, self.length = graph, table, where, length
        self.fits = False
        plain: list[Index] = []
        pairs: list[tuple[int, Window]] = []
        for axis, place in enumerate(where.places):
            if place.index is not None:
                if table[place.index] is not length[axis]:
                    return
                plain.append(place.index)
                continue
            at, indices = place.at, list(place.at.free)
            if place.mode not in (None, "zero") or len(at.terms) != 2 or len(indices) != 2 or at.gathers:
                return
            steps = {term: c for term, c in at.terms if not isinstance(term, SizeOf | Read)}
            offset = next((i for i in indices if i in K and i not in D), None)
            centre = next((i for i in indices if i in D and i not in K), None)
            if offset is None or centre is None or min(steps.values()) < 1:
                return
            pairs.append((axis, Window(centre, offset, steps[centre], steps[offset], -at.constant)))
        self.windows = [window for _, window in pairs]
        self.axes = [axis for axis, _ in pairs]
        everything = [*plain, *(i for w in self.windows for i in (w.place, w.offset))]
        self.n = tuple(i for i in plain if i in D and i not in K)
        self.g = tuple(i for i in plain if i in D and i in K)
        self.c = tuple(i for i in plain if i in K and i not in D)
        self.o = tuple(i for i in D if i in K and i not in everything)
        places, offsets = [w.place for w in self.windows], [w.offset for w in self.windows]
        self.fits = (
            0 < len(pairs) <= 3
            and len(set(everything)) == len(everything)
            and len(self.n) + len(self.g) + len(self.c) == len(plain)
            and set(D) == {*self.n, *self.g, *self.o, *places}
            and set(K) == {*self.g, *self.o, *self.c, *offsets}
        )

    @property
    def likely(self) -> bool:
        """Whether K is the kernel: its offsets are fewer than the places. Both readings give the same numbers."""
        return all(self.table[w.offset].hint <= self.table[w.place].hint for w in self.windows)

    def _merged(self, value: Labelled, groups: Sequence[Indices]) -> Node:
        labels = tuple(index for group in groups for index in group)
        node = aligned(self.graph, value, labels)
        full = self.graph.full(node, self.table.shape(labels)) if node.rank < len(labels) else node
        return self.graph.reshape(full, [self.table.product(self.table.shape(group)) for group in groups])

    @property
    def _out(self) -> list[Indices]:
        return [self.n, (*self.g, *self.o), *((w.place,) for w in self.windows)]

    @property
    def _kernel(self) -> list[Indices]:
        return [(*self.g, *self.o), self.c, *((w.offset,) for w in self.windows)]

    def _shape(self, groups: Sequence[Indices]) -> Shape:
        return tuple(self.table.product(self.table.shape(group)) for group in groups)

    @property
    def _in(self) -> Shape:
        front = [self.table.product(self.table.shape(group)) for group in (self.n, (*self.g, *self.c))]
        return (*front, *(self.length[axis] for axis in self.axes))

    def _order(self) -> list[int]:
        """The axes of X in the order n, g, c, windows."""
        axis = {place.index: a for a, place in enumerate(self.where.places) if place.index is not None}
        return [*(axis[i] for i in (*self.n, *self.g, *self.c)), *self.axes]

    def _attrs(self) -> tuple[object, ...]:
        groups = self.table.product(self.table.shape(self.g)) if self.g else None
        plain = all(
            self.table._find(self._usual(window, self.length[axis])) is self.table[window.place]
            for axis, window in zip(self.axes, self.windows, strict=True)
        )
        return (tuple(self.windows), groups, plain)

    def _usual(self, window: Window, length: Dim) -> Dim:
        """The size of a place where it is padded at both ends alike."""
        if window.low < 0:
            return length
        reach = SizeTable._linear(self.table[window.offset]).plus(-1)
        room = SizeTable._linear(length).plus(-1 + 2 * window.low).plus(reach, -window.dilation)
        return self.table._computed("", _steps(room, [], window.stride))

    def forward(self, X: Node, K: Labelled) -> Labelled:
        """``D = Σ_c,offset X K``."""
        graph = self.graph
        x = graph.reshape(graph.view(X, self._order()), self._in)
        node = graph.node("conv", (x, self._merged(K, self._kernel)), self._attrs(), self._shape(self._out), "float")
        return self._apart(node, self._out)

    def weight(self, X: Node, D: Labelled) -> Labelled:
        """``K = Σ_n,place X D``."""
        graph = self.graph
        x = graph.reshape(graph.view(X, self._order()), self._in)
        args = x, self._merged(D, self._out)
        return self._apart(
            graph.node("conv_weight", args, self._attrs(), self._shape(self._kernel), "float"), self._kernel
        )

    def input(self, D: Labelled, K: Labelled) -> Node:
        """What ``Σ_o D K`` adds to X."""
        graph = self.graph
        args = self._merged(D, self._out), self._merged(K, self._kernel)
        node = graph.node("conv_input", args, self._attrs(), self._in, "float")
        order = self._order()
        node = graph.reshape(node, [self.length[axis] for axis in order])
        return graph.view(node, [order.index(axis) for axis in range(len(order))])

    def _apart(self, node: Node, groups: Sequence[Indices]) -> Labelled:
        labels = tuple(index for group in groups for index in group)
        return Labelled(self.graph.reshape(node, self.table.shape(labels)), labels)


# -- spelling ------------------------------------------------------------------------------------------------------


def arguments(body: Body, node: Node) -> tuple[list[Window], str, bool]:
    """The windows, the number of groups, and whether both ends are padded alike."""
    windows, groups, plain = node.attrs
    return list(windows), body.dim(groups) if groups is not None else "", plain


def tuple_of(parts: Sequence[object]) -> str:
    said = ", ".join(map(str, parts))
    return f"({said},)" if len(parts) == 1 else f"({said})"


def numpy(body: Body, node: Node) -> tuple[str, int]:
    """A call of a helper."""
    speller = body.speller
    speller.helpers.update(NUMPY_HELPERS)
    speller.imports["math"] = None
    windows, groups, _ = arguments(body, node)
    a, b = (speller.text(body, arg)[0] for arg in node.args)
    usual = all((w.stride, w.dilation) == (1, 1) for w in windows)
    said = [] if usual else [
        f"stride={tuple_of([w.stride for w in windows])}", f"dilation={tuple_of([w.dilation for w in windows])}"
    ]  # fmt: skip
    said += [f"groups={groups}"] if groups else []
    low = tuple_of([w.low for w in windows])
    sizes = {"conv": node.shape[2:], "conv_weight": node.shape, "conv_input": node.shape}[node.op]
    return f"_{node.op}({', '.join([a, b, speller.shape(body, sizes), low, *said])})", ATOM


def torch(body: Body, node: Node) -> tuple[str, int]:
    """PyTorch's own."""
    speller = body.speller
    windows, groups, plain = arguments(body, node)
    count = len(windows)
    a, b = (speller.text(body, arg)[0] for arg in node.args)
    said = []
    if any(w.stride > 1 for w in windows):
        said.append(f"stride={tuple_of([w.stride for w in windows])}")
    if plain and any(w.low for w in windows):
        said.append(f"padding={tuple_of([w.low for w in windows])}")
    if any(w.dilation > 1 for w in windows):
        said.append(f"dilation={tuple_of([w.dilation for w in windows])}")
    said += [f"groups={groups}"] if groups else []
    more = "".join(f", {part}" for part in said)
    X = node.shape if node.op == "conv_input" else node.args[0].shape
    D = {"conv": node, "conv_weight": node.args[1], "conv_input": node.args[0]}[node.op].shape
    K = node.shape if node.op == "conv_weight" else node.args[1].shape
    ends: list[str] = []
    for w, length, place, offset in reversed(list(zip(windows, X[2:], D[2:], K[2:], strict=True))):
        reach = _reach(body, w, place, offset)
        ends += [
            str(w.low),
            f"{reach} - {w.low} - {body.dim(length)}" if w.low >= 0 else f"{reach} + {-w.low} - {body.dim(length)}",
        ]
    if node.op == "conv":
        x = a if plain else f"torch.nn.functional.pad({a}, ({', '.join(ends)}))"
        return f"torch.nn.functional.conv{count}d({x}, {b}{more})", ATOM
    if node.op == "conv_weight":
        x = a if plain else f"torch.nn.functional.pad({a}, ({', '.join(ends)}))"
        return f"torch.nn.grad.conv{count}d_weight({x}, {speller.shape(body, K)}, {b}{more})", ATOM
    if plain:
        return f"torch.nn.grad.conv{count}d_input({speller.shape(body, X)}, {b}, {a}{more})", ATOM
    reaches = [_reach(body, w, place, offset) for w, place, offset in zip(windows, D[2:], K[2:], strict=True)]
    shape = f"({', '.join([*(body.dim(dim) for dim in X[:2]), *reaches])})"
    back = ", ".join(str(-int(end)) if end.lstrip("-").isdigit() else f"-({end})" for end in ends)
    return f"torch.nn.functional.pad(torch.nn.grad.conv{count}d_input({shape}, {b}, {a}{more}), ({back}))", ATOM


def _reach(body: Body, window: Window, place: Dim, offset: Dim) -> str:
    """How many entries are read along an axis."""
    said = _Linear(1 - window.stride - window.dilation)
    parts = SizeTable._linear(place), SizeTable._linear(offset)
    said = said.plus(parts[0], window.stride).plus(parts[1], window.dilation)
    return "".join(part if isinstance(part, str) else body.dim(part) for part in said.parts())


def jax(body: Body, node: Node) -> tuple[str, int]:
    """A call of a helper around ``lax.conv_general_dilated``."""
    speller = body.speller
    speller.helpers.update(JAX_HELPERS)
    windows, groups, _ = arguments(body, node)
    a, b = (speller.text(body, arg)[0] for arg in node.args)
    usual = all((w.stride, w.dilation) == (1, 1) for w in windows)
    said = [] if usual else [
        f"stride={tuple_of([w.stride for w in windows])}", f"dilation={tuple_of([w.dilation for w in windows])}"
    ]  # fmt: skip
    said += [f"groups={groups}"] if groups else []
    low = tuple_of([w.low for w in windows])
    sizes = node.shape[2:] if node.op == "conv" else node.shape
    return f"_{node.op}({', '.join([a, b, speller.shape(body, sizes), low, *said])})", ATOM


NUMPY_HELPERS = {
    "_a_slabs": '''\
def _overlap(length, low, reach):
    """The part of a padded axis that the axis covers, and which part of it that is."""
    axes = zip(length, low, reach)
    ends = [(max(a, 0), max(a, 0, min(a + n, m))) for n, a, m in axes]
    inside = [slice(start, stop) for start, stop in ends]
    own = [slice(i - a, j - a) for (i, j), a in zip(ends, low)]
    return (..., *inside), (..., *own)


def _reach(size, kernel, stride, dilation):
    """How many entries are read along each axis."""
    each = zip(size, kernel, stride, dilation)
    return [s * (p - 1) + d * (r - 1) + 1 for p, r, s, d in each]


def _slabs(X, kernel, size, low, stride, dilation, groups):
    """Each example as columns, (groups, c kernel…, length size…), and their shifts.

    Columns hold the shifts along all axes but the first, which has stride 1: a shift
    along that one is a slice of the same columns.
    """
    reach = _reach(size, kernel, stride, dilation)
    inside, own = _overlap(X.shape[2:], low, reach)
    padded = np.zeros((X.shape[1], *reach), X.dtype)
    channel, first, *inner = padded.strides
    steps = [d * t for d, t in zip(dilation[1:], inner)]
    strides = (channel, *steps, first, *[s * t for s, t in zip(stride[1:], inner)])
    shape = (len(padded), *kernel[1:], reach[0], *size[1:])
    columns = np.lib.stride_tricks.as_strided(padded, shape, strides)
    rows, width = len(padded) // groups * math.prod(kernel[1:]), math.prod(size[1:])
    starts = [dilation[0] * r for r in range(kernel[0])]
    shifts = [slice(r * width, (r + size[0]) * width) for r in starts]
    for x in X:
        padded[inside] = x[own]
        flat = columns.reshape(groups, rows, reach[0] * width)
        yield [flat[:, :, shift] for shift in shifts]
''',
    "_b_conv": '''\
def _conv(X, K, size, low, stride=(1, 1, 1), dilation=(1, 1, 1), groups=1):
    """X in windows times K: one example after another, one product for each shift."""
    if stride[0] > 1:  # an axis of length 1 comes first
        X, K, size, low = X[:, :, None], K[:, :, None], (1, *size), (0, *low)
        return _conv(X, K, size, low, (1, *stride), (1, *dilation), groups)[:, :, 0]
    kernel = K.shape[2:]
    rows, inner = len(K) // groups, K.shape[1] * math.prod(kernel[1:])
    matrices = np.moveaxis(K, 2, 0).reshape(kernel[0], groups, rows, inner)
    Y = np.zeros((len(X), groups, rows, math.prod(size)), X.dtype)
    for y, shifts in zip(Y, _slabs(X, kernel, size, low, stride, dilation, groups)):
        for matrix, columns in zip(matrices, shifts):
            y += matrix @ columns
    return Y.reshape(len(X), len(K), *size)
''',
    "_c_conv_weight": '''\
def _conv_weight(X, dY, shape, low, stride=(1, 1, 1), dilation=(1, 1, 1), groups=1):
    """The gradient of K, of this shape."""
    kernel, size = shape[2:], dY.shape[2:]
    if stride[0] > 1:  # an axis of length 1 comes first
        X, dY, shape, low = X[:, :, None], dY[:, :, None], list(shape), (0, *low)
        shape.insert(2, 1)
        dK = _conv_weight(X, dY, shape, low, (1, *stride), (1, *dilation), groups)
        return dK[:, :, 0]
    rows, inner = shape[0] // groups, shape[1] * math.prod(kernel[1:])
    dK = np.zeros((kernel[0], groups, rows, inner), X.dtype)
    dY = dY.reshape(len(dY), groups, rows, math.prod(size))
    for dy, shifts in zip(dY, _slabs(X, kernel, size, low, stride, dilation, groups)):
        for dk, columns in zip(dK, shifts):
            dk += dy @ columns.mT
    return np.moveaxis(dK.reshape(kernel[0], *shape[:2], *kernel[1:]), 0, 2)
''',
    "_d_conv_input": '''\
def _conv_input(dY, K, shape, low, stride=(1, 1, 1), dilation=(1, 1, 1), groups=1):
    """The gradient of X, of this shape."""
    kernel, size = K.shape[2:], dY.shape[2:]
    matrices = K.reshape(groups, len(K) // groups, *K.shape[1:]).swapaxes(1, 2)
    if max(stride) == 1:  # dY in windows times K turned around
        turned = np.flip(matrices, range(3, matrices.ndim))
        turned = turned.reshape(shape[1], len(K) // groups, *kernel)
        low = [d * (r - 1) - a for r, a, d in zip(kernel, low, dilation)]
        return _conv(dY, turned, shape[2:], low, stride, dilation, groups)
    rows = math.prod(matrices.shape[1:2] + kernel)
    matrices = np.moveaxis(matrices, 2, -1).reshape(groups, rows, len(K) // groups)
    padded = np.zeros((*shape[:2], *_reach(size, kernel, stride, dilation)), K.dtype)
    for x, dy in zip(padded, dY):
        columns = matrices @ dy.reshape(groups, len(K) // groups, math.prod(size))
        columns = columns.reshape(shape[1], *kernel, *size)
        for at in np.ndindex(*kernel):
            ends = zip(at, size, stride, dilation)
            places = [slice(d * r, d * r + s * (p - 1) + 1, s) for r, p, s, d in ends]
            x[(..., *places)] += columns[(slice(None), *at)]
    dX = np.zeros(shape, K.dtype)
    inside, own = _overlap(shape[2:], low, padded.shape[2:])
    dX[own] = padded[inside]
    return dX
''',
}
JAX_HELPERS = {
    "_conv": '''\
def _conv(X, K, size, low, stride=(1, 1, 1), dilation=(1, 1, 1), groups=1):
    """X in windows times K."""
    axes = list(zip(X.shape[2:], K.shape[2:], size, low, stride, dilation))
    ends = [(a, s * (p - 1) + d * (r - 1) + 1 - a - n) for n, r, p, a, s, d in axes]
    count = len(axes)
    return jax.lax.conv_general_dilated(
        X,
        K,
        stride[:count],
        ends,
        rhs_dilation=dilation[:count],
        feature_group_count=groups,
    )


def _conv_weight(X, dY, shape, low, **more):
    """The gradient of K, of this shape."""
    K = jax.ShapeDtypeStruct(shape, X.dtype)
    back = jax.linear_transpose(lambda K: _conv(X, K, dY.shape[2:], low, **more), K)
    return back(dY)[0]


def _conv_input(dY, K, shape, low, **more):
    """The gradient of X, of this shape."""
    X = jax.ShapeDtypeStruct(shape, K.dtype)
    back = jax.linear_transpose(lambda X: _conv(X, K, dY.shape[2:], low, **more), X)
    return back(dY)[0]
''',
}
