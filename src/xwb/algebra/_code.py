"""``d.code("numpy" | "torch" | "jax")``: forward and backward as source text that stands alone."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping, Sequence

from ..core import FormulaError, OptionError, unknown
from ._body import Body, Names
from ._derivation import Derivation
from ._expr import Expr, Term
from ._gradient import spelled_out
from ._graph import BINARY, COMPARE, VIEWS, Node, cone, entries
from ._layout import WIDTH, call, returned, unpacked
from ._lower import Lowered, Named, lower
from ._norm import fused
from ._read import checked_sizes
from ._schedule import Assign
from ._shapes import Dim
from ._spell import SPELLERS, Speller

# Recomputed in backward rather than kept, where what they are computed from is kept or an input.
CHEAP = BINARY | COMPARE | VIEWS
CHEAP |= {"neg", "square", "where", "cast", "relu", "abs", "sign", "and", "isfinite", "inside", "iota", "const", "size"}
CHEAP |= {"zeros", "full", "take", "gather"}

# Characters of a formula in a comment.
LONG = 240

# Letters that ruff takes for digits.
AMBIGUOUS = {"l", "O", "I"}

TAKEN = {
    *("np", "torch", "jax", "jnp", "math", "functools", "NamedTuple", "Any", "Saved", "Layer", "layer", "forward"),
    *("backward", "saved", "ctx", "float", "max", "min", "abs", "slice", "expit", "erf", "ndtr", "self"),
    *keyword.kwlist,
}


# Frames that the longest sum, 1,000 terms one after the other, is written with.
DEEPEST = 20_000


def code(derivation: Derivation, backend: str, sizes: Mapping[str, int], values: bool = False) -> str:
    """The source text; see `Derivation.code`. With ``values`` forward returns every statement's value, in a dict."""
    if backend not in SPELLERS:
        hint = unknown(str(backend), tuple(SPELLERS))
        raise OptionError(f"code({backend!r}): there is no such backend{hint}; there are {', '.join(SPELLERS)}")
    sizes = checked_sizes(derivation.program, sizes)
    derivation._refuse_taken_names()
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEEPEST))
    lowered = lower(derivation, sizes)
    if backend == "torch" and not values:
        lowered = fused(lowered)
    return _Module(lowered, SPELLERS[backend](), values).text()


class _DimNames(dict[Dim, str]):
    """A name for each size, found when it is first written."""

    def __init__(self, names: Names, wanted: str = "") -> None:
        super().__init__()
        self._names = names
        self._wanted = wanted

    def __missing__(self, dim: Dim) -> str:
        letter = f"size_{dim.letter}" if dim.letter in AMBIGUOUS else dim.letter
        name = self[dim] = self._names.new(self._wanted or letter)
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
        self.leads = _DimNames(self.names, "lead")
        self.whole: dict[Node, str] = {}
        """Inputs that are saved with their leading axes, and what they are called without."""
        self.wanted_whole: dict[Node, None] = {}
        self.missing: list[Dim] = []
        self.saved_sizes: dict[Dim, str] = {}
        """Sizes that were passed in and that backward cannot read from a shape."""
        self.again = False
        for dim in lowered.table.all():
            self.dims[dim]  # named before any value is
            if dim.leading:
                self.leads[dim]
        self.users: dict[Node, list[Node]] = {}
        for node in cone(lowered.grads.values()):
            for arg in node.args:
                self.users.setdefault(arg, []).append(node)
        self.passed = {dim: self.dims[dim] for dim in lowered.table.passed}
        self.output = lowered.forward[-1].node
        self.grads = dict(lowered.grads)
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
            if node.op == "item":
                return node.args[0] in forward
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
                    large = any(entries(leaf.shape) >= entries(inner.shape) for leaf in extra)
                    if inner in forward and large and inner.op not in VIEWS:
                        found = {inner: None}
                    needs[inner] = found
            return needs[node]

        out: dict[Node, None] = {}
        for grad in self.grads.values():
            out.update(leaves(grad))
        for name in self.compared:
            out[self.of.inputs[name]] = None
        order = {node: i for i, node in enumerate(cone([*self.of.inputs.values(), self.output, *out]))}
        return sorted(out, key=lambda node: (node.op != "input", order[node]))

    # -- the text ----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        saved = self._saved()
        while True:
            self.again = False
            self.names_now = self.names.copy()
            forward, fields = self._forward(saved)
            backward, more = self._backward(saved, fields)
            if not more and not self.again:
                break
            saved = [*more, *saved]
        ready = self._ready()
        kept = self._saved_class(fields)
        parts = [*self._helpers(), kept, forward, backward, *ready]
        parts.insert(0, self._head("\n".join(parts)))
        return "\n\n\n".join(part.rstrip("\n") for part in parts) + "\n"

    def _helpers(self) -> list[str]:
        return [self.speller.helpers[name] for name in sorted(self.speller.helpers)]

    def _head(self, code: str) -> str:
        statements = [text.strip() for text in self.derivation.formula.replace("\n", ";").split(";") if text.strip()]
        lines = ['"""The layer', "", *(f"    {_wrapped(text)}" for text in statements), ""]
        lines += ["and its backward pass.", '"""', ""]
        speller, imports = self.speller, list(self.speller.imports)
        standard = sorted([f"import {name}" for name in imports if " " not in name and f"{name}." in code])
        standard += [] if self._static() else ["from typing import NamedTuple"]
        third = {
            "numpy": ["import numpy as np"] if "np." in code else [],
            "torch": ["import torch"],
            "jax": ["import jax", *(["import jax.numpy as jnp"] if "jnp." in code else [])],
        }[speller.name]
        merged: dict[str, list[str]] = {}
        for one in imports:
            if one.startswith("from "):
                where, _, what = one.partition(" import ")
                merged.setdefault(where, []).append(what)
        third += [f"{where} import {', '.join(sorted(what))}" for where, what in merged.items()]
        return "\n".join([*lines, *standard, *([""] if standard and third else []), *third])

    def _saved_class(self, fields: Sequence[tuple[str, str]]) -> str:
        kind = {"numpy": "np.ndarray", "torch": "torch.Tensor", "jax": "jax.Array"}[self.speller.name]
        lines = ["class Saved(NamedTuple):", '    """What backward needs of forward."""', ""]
        if self._static():  # sizes are no arrays to be traced
            self.speller.imports.update({"dataclasses": None, "functools": None})
            data = ", ".join(f'"{name}"' for name, _ in fields if name not in self.saved_sizes.values())
            meta = ", ".join(f'"{name}"' for name in self.saved_sizes.values())
            head = ["@functools.partial(", "    jax.tree_util.register_dataclass,"]
            head += [f"    data_fields=[{data}],", f"    meta_fields=[{meta}],", ")", "@dataclasses.dataclass"]
            lines = [*head, "class Saved:", *lines[1:]]
        for name, shape in fields:
            lines.append(
                f"    {name}: {'int' if name in self.passed.values() else kind}{f'  # {shape}' if shape else ''}"
            )
        return "\n".join(lines)

    def _static(self) -> bool:
        """Whether what is saved has fields that JAX must not trace."""
        return bool(self.saved_sizes) and self.speller.name == "jax"

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

    def _pruned(self, lines: list[str]) -> list[str]:
        """Without the lines that name a size, leading axes, or an input without them, where nothing uses the name."""
        names = dict.fromkeys((*self.whole.values(), *self.dims.values(), *self.leads.values()))
        while True:
            unused = [line for line in lines if (name := _named(line)) in names and not _mentions(lines, name, line)]
            if not unused:
                return lines
            lines = [line for line in lines if line not in unused]

    def _fold(self, name: str, new: str, node: Node, known: dict[Dim, None]) -> list[str]:
        """Leading axes made one; ``known`` are those whose shape has a name."""
        self.speller.imports["math"] = None
        inner, dim = node.rank - 1, node.shape[0]
        lines = []
        if dim not in known:
            known[dim] = None
            lines.append(f"{self.leads[dim]} = {name}.shape{f'[:-{inner}]' if inner else ''}")
        back = f", *{name}.shape[-{inner}:]" if inner else ""
        return [*lines, f"{new} = {name}.reshape(math.prod({self.leads[dim]}){back})"]

    def _forward(self, saved: Sequence[Node]) -> tuple[str, list[tuple[str, str]]]:
        of = self.of
        given = {node: self._inner(node) for node in self.inputs}
        needed = [node for node in saved if node not in given]
        named = [line.node for line in of.forward] if self.values else [self.output]
        body = self._body(given, [*named, *needed], [*needed, *named], False)
        for line in of.forward:
            if line.name in of.absorbed:
                self._said(body, line)
            if line.node in body.names or (line.node not in body.count and not self.values):
                continue
            self._said(body, line)
            body.variable(line.node)
        for node in needed:
            body.variable(node)
        known: dict[Dim, None] = {}
        used = [node for node in self.inputs if node in body.users or node in body.count or node in saved]
        self._sizes(body, [(given[node], node) for node in used])
        used += [owner for dim in self.missing if (owner := self._owner(dim, used)) is not None]
        lines = self._folded(list(dict.fromkeys(used)), known)
        value = self._unfolded(self._returned(body, self.output, set(), of.forward[-1].name), self.output, body, known)
        fields = [(self.inputs[n] if n in self.whole else body.names[n], body.shape(n)) for n in saved]
        fields += [(name, "") for name in self.saved_sizes.values()]
        kept = call("Saved", [name for name, _ in fields], "", "    ")
        end = [f"    return {value}, {kept[0].strip()}"]
        if len(end[0]) > WIDTH or len(kept) > 1:
            end = [*([f"    saved = {kept[0].strip()}", *kept[1:]]), f"    return {value}, saved"]
        if self.values:
            pairs = [
                (line.name, body.names.get(line.node) or self.speller.text(body, line.node)[0], line.node)
                for line in of.forward
            ]
            said = ", ".join(f'"{name}": {self._unfolded(text, node, body, known)}' for name, text, node in pairs)
            end = [f"    return {{{said}}}, None"]
        for node in used:
            if node.kind in ("int", "any") and (node in body.users or node in saved):
                users = [*body.users.get(node, ()), *self.users.get(node, ())]
                plain = all(user.op in COMPARE | {"inside", "gather"} for user in users)
                lines += [f"    {line}" for line in self.speller.positions(given[node], node.kind, plain)]
        lines += self._sizes(body, [(given[node], node) for node in used])
        head = call("def forward", [*self.inputs.values(), *(["*", *self.passed.values()] if self.passed else [])], ":")
        doc = f'    """{self.derivation.output}, and what backward needs."""'
        return "\n".join([*head, doc, *self._pruned([*lines, *body.lines, *end])]), fields

    def _inner(self, node: Node) -> str:
        """The name of an input inside the functions, its leading axes made one."""
        return self.whole.get(node, self.inputs[node])

    def _folded(self, nodes: Sequence[Node], known: dict[Dim, None]) -> list[str]:
        lines: list[str] = []
        for node in nodes:
            if self._leading(node):
                lines += self._fold(self.inputs[node], self._inner(node), node, known)
        return [f"    {line}" for line in lines]

    def _sizes(self, body: Body, arrays: Sequence[tuple[str, Node]]) -> list[str]:
        """Lines that name the sizes that are used; `missing` are those that no shape says."""
        found, self.missing = body.sizes(list(body.used_dims), [(name, node.shape) for name, node in arrays])
        self.unsaid = [dim for dim in self.missing if dim in self.passed]
        self.missing = [dim for dim in self.missing if dim not in self.passed]
        return [f"    {line}" for line in found]

    def _said(self, body: Body, line: Named) -> None:
        """The formula of a line as a comment."""
        try:
            said = self._formula(line)
        except FormulaError:  # the slope of prod[...] is not in the grammar
            said = f"{line.name}: the product of all other entries, for each"
        body.comment(said if len(said) <= LONG else f"{said[:LONG].rsplit(' ', 1)[0]} …")

    def _formula(self, line: Named) -> str:
        text = self.derivation._text()
        if isinstance(line.line, Assign):
            return text.statement(line.name, line.line.left, spelled_out(line.line.said))
        where = line.line.where
        (term,) = spelled_out(Expr((line.line.said,))).terms
        text.letters.statement(where.free, Expr((term,)))
        left = text.read(where).replace(where.tensor, line.name, 1)
        sign = "-" if term.coefficient < 0 else "+"
        return f"{left} {sign}= {text.term(Term(abs(term.coefficient), term.bound, term.factors))}"

    def _returned(self, body: Body, node: Node, others: set[Node], name: str) -> str:
        """What a function returns for a node: an array that is nobody else's."""
        speller = self.speller
        if node in body.names and not node.view and node not in body.given and node not in others:
            others.add(node)
            return body.names[node]
        base = node
        while base.view and base.op != "broadcast":
            base = base.args[0]
        own = (
            base not in body.given and base not in others and base not in body.keep - {node} and base.op != "broadcast"
        )
        others.update((node, base))
        text = body.names.get(node) or body.variable(node, name)
        if own or not speller.in_place:
            return text
        return f"{text}.{'copy' if speller.name == 'numpy' else 'clone'}()"

    def _unfolded(self, text: str, node: Node, body: Body, known: Mapping[Dim, None]) -> str:
        """With its leading axes again."""
        if not self._leading(node):
            return text
        lead = self.leads[node.shape[0]]
        if node.shape[0] not in known:
            source = next(n for n in self.inputs if n.shape and n.shape[0] is node.shape[0])
            self.wanted_whole[source] = None
        if node.rank == 1:
            return f"{text}.reshape({lead})"
        inner = f"*{text}.shape[1:]" if text.isidentifier() else ", ".join(body.dim(dim) for dim in node.shape[1:])
        return f"{text}.reshape(*{lead}, {inner})"

    def _backward(self, saved: Sequence[Node], fields: list[tuple[str, str]]) -> tuple[str, list[Node]]:
        of = self.of
        given = {n: self._inner(n) if n in self.inputs else name for n, (name, _) in zip(saved, fields, strict=False)}
        given[of.cotangent] = self.dY
        self.names_now = self.names.copy()
        for name, _ in fields:
            if name not in (*self.inputs.values(), *self.saved_sizes.values()):
                self.names_now.new(name)
        roots = list(self.grads.values())
        body = self._body(given, roots, roots, True)
        needed = set(body.order)
        for line in of.backward:
            if line.name in of.absorbed:
                self._said(body, line)
            if line.name[1:] in self.compared or line.node not in needed:
                continue
            if line.node in body.names and not (line.node in given and line.name[1:] in self.grads):
                continue
            self._said(body, line)
            body.preferred = {**body.preferred, line.node: body.preferred.get(line.node, line.name)}
            body.variable(line.node)
        others: set[Node] = set()
        known: dict[Dim, None] = {}
        lines = []
        if self._leading(of.cotangent):
            lines = [f"    {line}" for line in self._fold(self.dY, self.dY, of.cotangent, known)]
        lines += self._folded([n for n in saved if n in self.whole], known)
        results: list[str] = []
        for name in self.derivation.differentiable:
            if name in self.compared:
                if self._leading(of.inputs[name]):
                    self.wanted_whole[of.inputs[name]] = None
                body.write(f"d{name} = {self._zero(self.inputs[of.inputs[name]])}")
                results.append(f"d{name}")
                continue
            text = self._returned(body, self.grads[name], others, f"d{name}")
            results.append(self._unfolded(text, self.grads[name], body, known))
        lines += self._sizes(body, [(self.dY, of.cotangent), *((given[node], node) for node in saved)])
        more = [node for dim in self.missing if (node := self._owner(dim, saved)) is not None]
        for dim in self.unsaid:
            if dim not in self.saved_sizes:
                self.saved_sizes[dim] = self.passed[dim]
                self.again = True
        for node in self.wanted_whole:
            if node not in self.whole:
                self.whole[node] = self.names.new(f"{self.inputs[node]}_rows")
                more += [node] if node not in saved else []
                self.again = True
        start = unpacked([name for name, _ in fields], "saved") if fields else []
        if self._static():
            start = [f"    {name} = saved.{name}" for name, _ in fields]
        names = [f"d{name}" for name in self.derivation.differentiable]
        doc = _docstring(f"{', '.join(names) or 'Nothing'}, from {self.dY} and what forward saved.")
        end = returned(results)
        text = "\n".join([f"def backward({self.dY}, saved):", *doc, *start, *self._pruned([*lines, *body.lines, *end])])
        return text, list(dict.fromkeys(more))

    def _owner(self, dim: Dim, saved: Sequence[Node]) -> Node | None:
        for name, _ in dim.sources:
            node = self.of.inputs.get(name)
            if node is not None and node not in saved:
                return node
        return None

    def _zero(self, name: str) -> str:
        return f"{self.speller.np}.zeros_like({name}) if {self.speller.floating(name)} else None"

    # -- ready for autograd ------------------------------------------------------------------------------------------

    def _ready(self) -> list[str]:
        if self.speller.name == "numpy" or self.values:
            return []
        output, inputs, sizes = self.derivation.output, list(self.inputs.values()), list(self.passed.values())
        grads = [f"d{name}" for name in self.derivation.differentiable]
        everything = [f"d{name}" if f"d{name}" in grads else "None" for name in self.derivation.inputs]
        plain = "None" not in everything
        passed = [*inputs, *(f"{name}={name}" for name in sizes)]
        if self.speller.name == "torch":
            everything += ["None"] * len(sizes)
            back = call("backward", [self.dY, "ctx.saved" if sizes else "Saved(*ctx.saved_tensors)"], "")[0]
            pad = " " * 8
            result = Names({*TAKEN, *inputs, *sizes}).new(output)
            lines = [
                "class Layer(torch.autograd.Function):",
                f'    """{output} for autograd, by the two functions above."""',
                "",
                "    @staticmethod",
                *call("def forward", ["ctx", *inputs, *sizes], ":", "    "),
                *call(f"{result}, saved = forward", passed, "", pad),
                "        ctx.saved = saved" if sizes else "        ctx.save_for_backward(*saved)",
                f"        return {result}",
                "",
                "    @staticmethod",
                "    @torch.autograd.function.once_differentiable",
                f"    def backward(ctx, {self.dY}):",
            ]
            if plain and not sizes:
                lines.append(f"        return {back}")
            else:
                lines += unpacked(grads, back, pad) if grads else []
                lines += returned(everything, pad)
            head = call("def layer", [*inputs, *(["*", *sizes] if sizes else [])], ":")
            doc = f'    """{output}; autograd goes through `backward`."""'
            return [
                "\n".join(lines),
                "\n".join([*head, doc, *call("return Layer.apply", [*inputs, *sizes], "", "    ")]),
            ]
        head = ["@jax.custom_vjp"]
        if sizes:
            self.speller.imports["functools"] = None
            numbers = tuple(range(len(inputs), len(inputs) + len(sizes)))
            head = [f"@functools.partial(jax.custom_vjp, nondiff_argnums={numbers})"]
        value = call("return forward", passed, "[0]", "    ")
        doc = f'    """{output}; jax.grad goes through `backward`."""'
        layer = [*head, *call("def layer", [*inputs, *sizes], ":"), doc, *value]
        start = call("def _backward", [*sizes, "saved", self.dY], ":")
        back = f"backward({self.dY}, saved)"
        after = [f"    return {back}"] if plain else [*(unpacked(grads, back) if grads else []), *returned(everything)]
        parts = ["\n".join(layer), "\n".join([*start, *after])]
        if sizes:
            forward = [*call("def _forward", [*inputs, *sizes], ":"), *call("return forward", passed, "", "    ")]
            parts.insert(1, "\n".join(forward))
        return [*parts, f"layer.defvjp({'_forward' if sizes else 'forward'}, _backward)"]


def _named(line: str) -> str:
    """The name that a line gives, where it gives one."""
    name, equals, _ = line.strip().partition(" = ")
    return name if equals else ""


def _mentions(lines: Sequence[str], name: str, own: str) -> bool:
    """Whether any other line has a name outside its comment."""
    return any(line is not own and re.search(rf"\b{name}\b", line.partition("#")[0]) for line in lines)


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
    return ['    """', *(f"    {line.strip()}" for line in _wrapped(text).split("\n")), '    """']
