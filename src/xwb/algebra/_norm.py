"""Layer normalisation over the last axis, recognised in a program; PyTorch has one kernel for each of its passes.

What is looked for is built as the lowering builds it: operations are made once each, so what is there is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from ._graph import Graph, Node, cone
from ._lower import Lowered
from ._shapes import ONE, Shape

if TYPE_CHECKING:
    from ._body import Body


class _Norm(NamedTuple):
    """``H = (X - mean(X))/sqrt(mean((X - mean(X))²) + eps)``; ``root`` is what is divided by."""

    H: Node
    X: Node
    root: Node
    eps: Fraction


def fused(lowered: Lowered) -> Lowered:
    """The program with its layer normalisations and their gradients as one operation each."""
    done: set[Node] = set()
    while True:
        live = _live(lowered)
        found = next((norm for node in live if node not in done and (norm := _norm(lowered.graph, node))), None)
        if found is None:
            return lowered
        done.add(found.H)
        for whole in (True, False):
            changed = _replaced(lowered, _by(lowered, found, live, whole))
            if changed is not None and found.H not in _live(changed):
                lowered = changed
                break


def _live(lowered: Lowered) -> list[Node]:
    return list(cone([lowered.forward[-1].node, *lowered.grads.values()]))


def _mean(graph: Graph, node: Node) -> Node:
    """Of the entries along the last axis, which stays with length 1."""
    return _along(graph, graph.binary("div", graph.reduce("sum", node, [node.rank - 1]), graph.size(node.shape[-1])))


def _dot(graph: Graph, a: Node, b: Node) -> Node:
    return graph.binary("div", graph.vecdot(a, b), graph.size(a.shape[-1]))


def _along(graph: Graph, node: Node) -> Node:
    return graph.view(node, [*range(node.rank), None])


def _norm(graph: Graph, H: Node) -> _Norm | None:
    match H:
        case Node(
            op="div",
            args=(
                Node(op="sub", args=(X, _)) as t,
                Node(op="view", args=(Node(op="sqrt", args=(Node(op="add", args=(_, small)),)),)),
            ),
        ) if isinstance(small.value, Fraction) and X.rank and X.shape == H.shape and X.kind == "float":
            if t is not graph.binary("sub", X, _mean(graph, X)):
                return None
            root = _along(graph, graph.unary("sqrt", graph.binary("add", _dot(graph, t, t), small)))
            return _Norm(H, X, root, small.value) if H is graph.binary("div", t, root) else None
    return None


def _by(lowered: Lowered, norm: _Norm, live: list[Node], whole: bool) -> dict[Node, Node]:
    """What stands for which nodes; with ``whole`` gain and bias are taken into the operation."""
    graph, X, row = lowered.graph, norm.X, norm.X.shape[-1:]
    out, gain, bias = norm.H, list[Node](), list[Node]()
    forward = list(cone([lowered.forward[-1].node]))
    for op, parts in (("mul", gain), ("add", bias)) if whole else ():
        users = [node for node in forward if out in node.args]
        if len(users) != 1 or users[0].op != op:
            break
        (other,) = (
            (arg for arg in users[0].args if arg is not out) if users[0].args[0] is not users[0].args[1] else (out,)
        )
        if other.shape != row or other.kind != "float":
            break
        parts.append(other)
        out = users[0]
    column = (*X.shape[:-1], ONE)
    call = graph.node("norm", (X, *gain, *bias), (norm.eps, bool(gain)), (), "any")
    by = {out: _item(graph, call, 0, X.shape)}
    moments = [_item(graph, call, i, column) for i in (1, 2)]
    for node in live:
        for dH in _flowing(graph, norm, node):
            dY = next((a for g in gain for a in (dH.args if dH.op == "mul" else ()) if g in dH.args and a is not g), dH)
            weights = gain if dY is not dH and dY.shape == X.shape else []
            dY = dY if weights else dH
            sums = _sums(graph, norm.H, dY, live) if weights else {}
            wanted = (True, 1 in sums.values(), bool(bias) and 2 in sums.values())
            arrays = (dY, X, *moments, *weights, *(bias if weights else ()))
            back = graph.node("norm_backward", arrays, (len(weights), wanted), (), "any")
            by[node] = _item(graph, back, 0, X.shape)
            by |= {total: _item(graph, back, i, row) for total, i in sums.items() if wanted[i]}
    return by if len(by) > 1 else {}


def _flowing(graph: Graph, norm: _Norm, node: Node) -> Iterator[Node]:
    """dH, where a node is ``(dH - mean(dH) - H mean(dH H))/root``."""
    match node:
        case Node(op="div", args=(Node(op="sub", args=(Node(op="sub", args=(dH, _)), _)) as above, root)):
            if root is norm.root and dH.shape == norm.X.shape:
                mean = _mean(graph, dH)
                for dot in (_dot(graph, dH, norm.H), _dot(graph, norm.H, dH)):
                    both = mean, graph.binary("mul", norm.H, _along(graph, dot))
                    for first, second in (both, both[::-1]):
                        if above is graph.binary("sub", graph.binary("sub", dH, first), second):
                            yield dH
                            return


def _sums(graph: Graph, H: Node, dY: Node, live: list[Node]) -> dict[Node, int]:
    """The gradients of gain (1) and of bias (2)."""
    rows = "abcdefghijklmnopqrstuvwxyz"[: H.rank]
    spelled = {f"{rows},{rows}->{rows[-1]}"}
    out = {}
    for node in live:
        if node.op == "einsum" and set(node.args) == {H, dY} and node.attrs[0] in spelled:
            out[node] = 1
        elif node.op == "sum" and node.args[0] is dY and node.attrs == tuple(range(H.rank - 1)):
            out[node] = 2
    return out


def _item(graph: Graph, call: Node, number: int, shape: Shape) -> Node:
    """One of the results of an operation that has several."""
    return graph.node("item", (call,), (number,), shape, "float")


def _replaced(lowered: Lowered, by: dict[Node, Node]) -> Lowered | None:
    """The program with other nodes in the place of some."""
    if not by:
        return None
    graph, new = lowered.graph, dict[Node, Node]()
    lines = [*lowered.forward, *lowered.backward]
    pending = [*(line.node for line in lines), *lowered.grads.values()]
    while pending:
        node = pending[-1]
        needed = (by[node],) if node in by else node.args
        missing = [other for other in needed if other not in new]
        pending += missing
        if not missing:
            args = tuple(new[other] for other in needed)
            other = node if args == needed else graph.node(node.op, args, node.attrs, node.shape, node.kind)
            new[node] = args[0] if node in by else other
            pending.pop()
    graph.kept.update({new[node]: None for node in graph.kept if node in new})
    changed = replace(
        lowered,
        forward=[line._replace(node=new[line.node]) for line in lowered.forward],
        backward=[line._replace(node=new[line.node]) for line in lowered.backward],
        grads={name: new[node] for name, node in lowered.grads.items()},
    )
    before, after = set(_live(lowered)), set(_live(changed))
    absorbed = frozenset(line.name for line in lines if line.node in before and new[line.node] not in after)
    return replace(changed, absorbed=lowered.absorbed | absorbed)


# -- spelling ------------------------------------------------------------------------------------------------------


def torch(body: Body, call: Node) -> str:
    """PyTorch's own."""
    speller = body.speller
    said = [speller.text(body, arg)[0] for arg in call.args]
    if call.op == "norm":
        eps, gain = call.attrs
        x, *more = said
        weight, bias = [*more, "None", "None"][:2] if gain else ["None", "None"]
        size = speller.shape(body, call.args[0].shape[-1:])
        return f"torch.native_layer_norm({x}, {size}, {weight}, {bias}, {speller.number(eps)[0]})"
    count, wanted = call.attrs
    dY, x, mean, inverse, *more = said
    weight, bias = [*more, "None", "None"][:2] if count else ["None", "None"]
    size = speller.shape(body, call.args[1].shape[-1:])
    parts = f"{dY}, {x}, {size}, {mean}, {inverse}, {weight}, {bias}, {list(wanted)}"
    return f"torch.ops.aten.native_layer_norm_backward({parts})"
