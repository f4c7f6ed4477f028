"""``d.code("numpy" | "torch" | "jax")``: forward and backward as source text that stands alone."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import FormulaError, OptionError, unknown
from ._body import WIDTH, Body, Names
from ._derivation import Derivation
from ._graph import BINARY, COMPARE, VIEWS, Node, cone, entries
from ._lower import Lowered, Named, lower
from ._print import Text
from ._schedule import Assign
from ._shapes import Dim
from ._spell import SPELLERS, Speller

# Recomputed in backward rather than kept, where what they are computed from is kept or an input.
CHEAP = BINARY | COMPARE | VIEWS
CHEAP |= {"neg", "square", "where", "cast", "relu", "abs", "sign", "and", "isfinite", "inside", "iota", "const", "size"}
CHEAP |= {"zeros", "full", "take", "gather"}

TAKEN = {
    *("np", "torch", "jax", "jnp", "math", "functools", "NamedTuple", "Any", "Saved", "Layer", "layer", "forward"),
    *("backward", "saved", "ctx", "lead", "float", "max", "min", "abs", "slice", "expit", "erf", "ndtr", "self"),
    *keyword.kwlist,
}


def code(derivation: Derivation, backend: str, sizes: Mapping[str, int], values: bool = False) -> str:
    """The source text; see `Derivation.code`. With ``values`` forward returns every statement's value, in a dict."""
    if backend not in SPELLERS:
        hint = unknown(str(backend), tuple(SPELLERS))
        raise OptionError(f"code({backend!r}): there is no such backend{hint}; there are {', '.join(SPELLERS)}")
    letters = {letter for statement in derivation.program.statements for letter in statement.letters}
    for letter in sizes:
        if letter not in letters:
            raise FormulaError(f"code({letter}=…): the formula has no index {letter}{unknown(letter, sorted(letters))}")
    derivation._refuse_taken_names()
    return _Module(lower(derivation, sizes), SPELLERS[backend](), values).text()


class _DimNames(dict[Dim, str]):
    """A name for each size, found when it is first written."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, dim: Dim) -> str:
        name = self[dim] = self._names.new(dim.letter)
        return name


class _Module:
    """The text of one module."""

    def __init__(self, lowered: Lowered, speller: Speller, values: bool) -> None:
        self.of = lowered
        self.derivation = lowered.derivation
        self.speller = speller
        self.values = values
        self.names = Names(TAKEN)
        self.inputs = {node: self.names.new(name) for name, node in lowered.inputs.items()}
        self.dY = self.names.new(f"d{self.derivation.output}")
        self.dims = _DimNames(self.names)
        self.passed = {dim: self.dims[dim] for dim in lowered.table.passed}
        self.output = lowered.forward[-1].node
        self.grads: dict[str, Node] = {}
        for line in lowered.backward:
            if line.name[1:] in self.derivation.differentiable:
                self.grads[line.name[1:]] = line.node
        self.compared = [name for name in self.derivation.program.compared if name in self.derivation.differentiable]
        for name in self.compared:
            self.grads.pop(name, None)

    # -- what is saved -----------------------------------------------------------------------------------------------

    def _saved(self) -> list[Node]:
        """The nodes of forward that backward starts from: inputs, named values, what is dear to compute again."""
        forward = set(cone([self.output]))
        named = {line.node for line in self.of.forward}
        kept = self.of.graph.kept
        needs: dict[Node, dict[Node, None]] = {}

        def dear(node: Node) -> bool:
            return node in forward and (node in named or node in kept or node.op not in CHEAP)

        def leaves(node: Node) -> dict[Node, None]:
            """What has to be saved to have this node in backward."""
            for inner in cone([node]):
                if inner in needs:
                    continue
                if inner.op == "input":
                    needs[inner] = {} if inner is self.of.cotangent else {inner: None}
                elif inner.host or not inner.args:
                    needs[inner] = {}
                elif dear(inner):
                    needs[inner] = {inner: None}
                else:
                    found = {leaf: None for arg in inner.args for leaf in needs[arg]}
                    extra = [leaf for leaf in found if leaf.op != "input" and leaf not in named]
                    if inner in forward and any(entries(leaf.shape) >= entries(inner.shape) for leaf in extra):
                        if inner.op not in VIEWS and inner.op != "iota":
                            found = {inner: None}
                    needs[inner] = found
            return needs[node]

        out: dict[Node, None] = {}
        for grad in self.grads.values():
            out.update(leaves(grad))
        for name in self.compared:
            out[self.of.inputs[name]] = None
        order = {node: i for i, node in enumerate(cone([*self.of.inputs.values(), self.output]))}
        return sorted(out, key=lambda node: (node.op != "input", order[node]))

    # -- the text ----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        saved = self._saved()
        while True:
            self.names_now = self.names.copy()
            forward, fields = self._forward(saved)
            backward, more = self._backward(saved, fields)
            if not more:
                break
            saved = [*more, *saved]
        parts = [self._head(), *self._helpers(), self._saved_class(fields), forward, backward, *self._ready(fields)]
        return "\n\n\n".join(part.rstrip("\n") for part in parts) + "\n"

    def _helpers(self) -> list[str]:
        return [self.speller.helpers[name] for name in sorted(self.speller.helpers)]

    def _printer(self) -> Text:
        return self.derivation._text()

    def _head(self) -> str:
        statements = [text.strip() for text in self.derivation.formula.replace("\n", ";").split(";") if text.strip()]
        lines = ['"""The layer', "", *(f"    {_wrapped(text)}" for text in statements), ""]
        lines += ["and its backward pass.", '"""', ""]
        speller, imports = self.speller, list(self.speller.imports)
        standard = sorted([f"import {name}" for name in imports if " " not in name])
        standard += ["from typing import Any, NamedTuple"] if self.passed else ["from typing import NamedTuple"]
        third = {
            "numpy": ["import numpy as np"],
            "torch": ["import torch"],
            "jax": ["import jax", "import jax.numpy as jnp"],
        }[speller.name]
        merged: dict[str, list[str]] = {}
        for one in imports:
            if one.startswith("from "):
                where, _, what = one.partition(" import ")
                merged.setdefault(where, []).append(what)
        third += [f"{where} import {', '.join(sorted(what))}" for where, what in merged.items()]
        return "\n".join([*lines, *standard, "", *third])

    def _saved_class(self, fields: Sequence[tuple[str, str]]) -> str:
        kind = {"numpy": "np.ndarray", "torch": "torch.Tensor", "jax": "jax.Array"}[self.speller.name]
        lines = ["class Saved(NamedTuple):", '    """What backward needs of forward."""', ""]
        for name, shape in fields:
            lines.append(f"    {name}: {'int' if name in self.passed.values() else kind}{f'  # {shape}' if shape else ''}")
        return "\n".join(lines)

    def _body(self, given: Mapping[Node, str], roots: Sequence[Node], keep: Sequence[Node], backward: bool) -> Body:
        preferred: dict[Node, str] = {}
        for line in self.of.forward:
            preferred.setdefault(line.node, line.name)
        if backward:
            for line in self.of.backward:
                if line.node not in preferred:
                    preferred[line.node] = line.name
        preferred = {node: name for node, name in preferred.items() if node.args and not node.host}
        body = Body(self.speller, self.names_now, given, roots, keep, preferred, self.dims, not backward)
        floats = [name for node, name in given.items() if node.kind == "float"]
        arrays = floats or list(given.values())
        if backward:
            floats = [*(name for node, name in given.items() if node.kind == "float" and node is not self.of.cotangent)]
            floats = floats or [self.dY]
            arrays = floats
        if floats:
            body.dtype = f"{floats[0]}.dtype"
        if arrays:
            body.device = f"{arrays[0]}.device"
        return body

    def _leading(self, node: Node) -> bool:
        return bool(node.shape) and node.shape[0].leading

    def _fold(self, name: str, node: Node, lead: bool) -> list[str]:
        """Leading axes made one."""
        self.speller.imports["math"] = None
        inner = node.rank - 1
        lines = [f"lead = {name}.shape[:-{inner}]" if inner else f"lead = {name}.shape"] if lead else []
        back = f", *{name}.shape[-{inner}:]" if inner else ""
        return [*lines, f"{name} = {name}.reshape(math.prod({name}.shape[: {name}.ndim - {inner}]){back})"]

    def _forward(self, saved: Sequence[Node]) -> tuple[str, list[tuple[str, str]]]:
        of = self.of
        given = dict(self.inputs)
        needed = [node for node in saved if node not in given]
        named = [line.node for line in of.forward] if self.values else [self.output]
        body = self._body(given, [*named, *needed], [*needed, *named], False)
        for line in of.forward:
            if line.node in body.names or (line.node not in body.count and not self.values):
                continue
            self._said(body, line)
            body.variable(line.node)
        for node in needed:
            body.variable(node)
        returned = self._returned(body, self.output, set(), of.forward[-1].name)
        fields = [(body.names[node], body.shape(node)) for node in saved]
        lines = self._start(body, [(self.inputs[n], n) for n in self.inputs if n in set(body.order)], self.passed)
        lead = next((dim for dim in self.output.shape if dim.leading), None)
        if lead is not None:
            returned = self._unfolded(returned, self.output, body)
        arguments = ", ".join([*self.inputs.values(), *(["*", *self.passed.values()] if self.passed else [])])
        kept = ", ".join(name for name, _ in fields)
        doc = f'    """{self.derivation.output}, and what backward needs."""'
        end = f"    return {returned}, Saved({kept})"
        if self.values:
            pairs = [f'"{l.name}": {self._unfolded(body.names.get(l.node) or self._plain(body, l.node), l.node, body)}' for l in of.forward]
            end = f"    return {{{', '.join(pairs)}}}, None"
        return "\n".join([f"def forward({arguments}):", doc, *lines, *body.lines, *_folded_call(end)]), fields

    def _plain(self, body: Body, node: Node) -> str:
        return self.speller.text(body, node)[0]

    def _start(self, body: Body, arrays: Sequence[tuple[str, Node]], passed: Mapping[Dim, str]) -> list[str]:
        """Folded leading axes and sizes."""
        lines: list[str] = []
        seen = False
        for name, node in arrays:
            if self._leading(node):
                lines += self._fold(name, node, not seen)
                seen = True
        wanted = [dim for dim in body.used_dims if dim not in passed]
        found, missing = body.sizes(wanted, [(name, node.shape) for name, node in arrays])
        self.missing = missing
        return [f"    {line}" for line in (*lines, *found)]

    def _said(self, body: Body, line: Named) -> None:
        """The formula of a line as a comment."""
        text = self._printer()
        if isinstance(line.line, Assign):
            body.comment(text.statement(line.name, line.line.left, line.line.body))
        else:
            where, term = line.line.where, line.line.term
            text.letters.statement(where.free, _expr(term))
            left = text.read(where).replace(where.tensor, line.name, 1)
            sign = "-" if term.coefficient < 0 else "+"
            body.comment(f"{left} {sign}= {text.term(type(term)(abs(term.coefficient), term.bound, term.factors))}")

    def _returned(self, body: Body, node: Node, others: set[Node], name: str) -> str:
        """What a function returns for a node: an array that is nobody else's."""
        speller = self.speller
        if node in body.names and node.op not in VIEWS and node not in body.given and node not in others:
            others.add(node)
            return body.names[node]
        base = node
        while base.op in VIEWS and base.op != "broadcast":
            base = base.args[0]
        own = base not in body.given and base not in others and base not in body.keep - {node} and base.op != "broadcast"
        others.update((node, base))
        text = body.names.get(node) or body.variable(node, name)
        if own or not speller.in_place:
            return text
        return f"{text}.{'copy' if speller.name == 'numpy' else 'clone'}()"

    def _unfolded(self, text: str, node: Node, body: Body) -> str:
        if not self._leading(node):
            return text
        inner = ", ".join(body.dim(dim) for dim in node.shape[1:])
        back = f", *{text}.shape[1:]" if inner else ""
        return f"{text}.reshape(*lead{back})" if text.isidentifier() else f"({text}).reshape(lead)"

    def _backward(self, saved: Sequence[Node], fields: list[tuple[str, str]]) -> tuple[str, list[Node]]:
        of = self.of
        given: dict[Node, str] = {node: name for node, (name, _) in zip(saved, fields, strict=True)}
        given[of.cotangent] = self.dY
        self.names_now = self.names.copy()
        for name, _ in fields:
            if name not in self.inputs.values():
                self.names_now.new(name)
        roots = list(self.grads.values())
        body = self._body(given, roots, roots, True)
        needed = set(body.order)
        last = {line.name: i for i, line in enumerate(of.backward)}
        for i, line in enumerate(of.backward):
            if line.node in body.names:
                if line.node in given and line.name[1:] in self.grads:
                    self._said(body, line)
                continue
            if line.node not in needed or line.name[1:] in self.compared:
                continue
            self._said(body, line)
            if last[line.name] != i or line.node.op == "scatter":
                body.preferred = {**body.preferred, line.node: line.name}
            body.variable(line.node)
        del last
        others: set[Node] = set()
        results: list[str] = []
        kept = dict(body.names)
        for name in self.derivation.differentiable:
            if name in self.compared:
                results.append(self._zero(kept[of.inputs[name]]))
                continue
            text = self._returned(body, self.grads[name], others, f"d{name}")
            results.append(self._unfolded(text, self.grads[name], body))
        arrays = [(self.dY, of.cotangent), *((given[node], node) for node in saved)]
        folded = [(name, node) for name, node in arrays if node is of.cotangent or node.op != "input"]
        lines = self._start_backward(body, arrays)
        del folded
        more = [node for dim in self.missing if (node := self._owner(dim, saved)) is not None]
        unpack = ", ".join(name for name, _ in fields)
        unpacked = [f"    {unpack} = saved"] if len(fields) > 1 else [f"    ({unpack},) = saved"] if fields else []
        names = [f"d{name}" for name in self.derivation.differentiable]
        said = ", ".join(names) if names else "nothing"
        doc = _docstring(f"{said}, from {self.dY} and what forward saved.")
        end = f"    return {', '.join(results)}" if len(results) > 1 else f"    return ({results[0]},)" if results else "    return ()"
        text = "\n".join([f"def backward({self.dY}, saved):", *doc, *unpacked, *lines, *body.lines, *_folded_call(end)])
        return text, list(dict.fromkeys(more))

    def _start_backward(self, body: Body, arrays: Sequence[tuple[str, Node]]) -> list[str]:
        lines: list[str] = []
        name, node = arrays[0]
        if self._leading(node):
            lines += self._fold(name, node, True)
        wanted = [dim for dim in body.used_dims if dim not in self.passed]
        found, self.missing = body.sizes(wanted, [(name, node.shape) for name, node in arrays])
        return [f"    {line}" for line in (*lines, *found)]

    def _owner(self, dim: Dim, saved: Sequence[Node]) -> Node | None:
        for name, _ in dim.sources:
            node = self.of.inputs.get(name)
            if node is not None and node not in saved:
                return node
        return None

    def _zero(self, name: str) -> str:
        if self.speller.name == "torch":
            return f"torch.zeros_like({name}) if {name}.is_floating_point() else None"
        np = self.speller.np
        return f'{np}.zeros_like({name}) if {name}.dtype.kind == "f" else None'

    # -- ready for autograd ------------------------------------------------------------------------------------------

    def _ready(self, fields: Sequence[tuple[str, str]]) -> list[str]:
        if self.speller.name == "numpy" or self.values:
            return []
        arguments = ", ".join(self.inputs.values())
        names = list(self.derivation.differentiable)
        everything = [f"d{name}" if name in names else "None" for name in self.derivation.inputs]
        plain = len(names) == len(self.derivation.inputs)
        sizes = ", ".join(self.passed.values())
        call = ", ".join([*self.inputs.values(), *(f"{name}={name}" for name in self.passed.values())])
        both = ", ".join(part for part in (arguments, sizes) if part)
        if self.speller.name == "torch":
            everything += ["None"] * len(self.passed)
            back = f"backward({self.dY}, ctx.saved)" if self.passed else f"backward({self.dY}, Saved(*ctx.saved_tensors))"
            lines = [
                "class Layer(torch.autograd.Function):",
                f'    """{self.derivation.output} for autograd, by the two functions above."""',
                "",
                "    @staticmethod",
                f"    def forward(ctx, {both}):" if both else "    def forward(ctx):",
                f"        {self.derivation.output}, saved = forward({call})",
                "        ctx.saved = saved" if self.passed else "        ctx.save_for_backward(*saved)",
                f"        return {self.derivation.output}",
                "",
                "    @staticmethod",
                "    @torch.autograd.function.once_differentiable",
                f"    def backward(ctx, {self.dY}):",
            ]
            if plain and not self.passed:
                lines.append(f"        return {back}")
            else:
                found = ", ".join(f"d{name}" for name in names)
                lines.append(f"        {found} = {back}" if len(names) > 1 else f"        ({found},) = {back}" if names else "        del ctx")
                lines.append(f"        return {', '.join(everything)}" if len(everything) > 1 else f"        return {everything[0]}")
            end = f"    return Layer.apply({both})"
            star = f"{arguments}, *, {sizes}" if sizes else arguments
            name = f'    """{self.derivation.output}; autograd goes through `backward`."""'
            return ["\n".join(lines), "\n".join([f"def layer({star}):", name, end])]
        numbers = tuple(range(len(self.inputs), len(self.inputs) + len(self.passed)))
        head = "@jax.custom_vjp"
        if self.passed:
            self.speller.imports["functools"] = None
            head = f"@functools.partial(jax.custom_vjp, nondiff_argnums={numbers})"
        lines = [
            head,
            f"def layer({both}):",
            f'    """{self.derivation.output}; jax.grad goes through `backward`."""',
            f"    return forward({call})[0]",
        ]
        back = f"backward({self.dY}, saved)"
        start = ", ".join([*self.passed.values(), "saved", self.dY])
        after = [f"def _backward({start}):"]
        if plain:
            after.append(f"    return {back}")
        else:
            found = ", ".join(f"d{name}" for name in names)
            after.append(f"    {found} = {back}" if len(names) > 1 else f"    ({found},) = {back}" if names else "    del saved")
            after.append(f"    return {', '.join(everything)}" if len(everything) > 1 else f"    return ({everything[0]},)")
        first = "forward"
        if self.passed:
            first = "_forward"
            after = [f"def _forward({both}):", f"    return forward({call})", "", "", *after]
        return ["\n".join(lines), "\n".join([*after, "", "", f"layer.defvjp({first}, _backward)"])]


def _expr(term: Any) -> Any:
    from ._expr import Expr

    return Expr((term,))


def _wrapped(text: str) -> str:
    room = WIDTH - 4
    lines, line = [], ""
    for word in " ".join(text.split()).split(" "):
        if line and len(line) + 1 + len(word) > room - 4:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n        ".join([*lines, line])


def _docstring(text: str) -> list[str]:
    if len(text) + 10 <= WIDTH:
        return [f'    """{text}"""']
    lines = ['    """', *(f"    {line.strip()}" for line in _wrapped(text).split("\n")), '    """']
    return lines


def _folded_call(line: str) -> list[str]:
    return [line]
