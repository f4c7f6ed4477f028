"""The lines of one function: what gets a name, what is written inside another expression, what is done in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ._graph import BINARY, Node, cone
from ._layout import WIDTH, statement
from ._shapes import ONE, Dim, dims_in

if TYPE_CHECKING:
    from ._spell import Speller

INDENT = 4
UNARY = {"neg", "exp", "log", "sqrt", "abs", "sin", "cos", "tanh", "sigmoid", "relu", "erf", "sign", "square", "gelu"}
# Operations that make a new array, which nobody else has.
FRESH = UNARY | BINARY | {"matmul", "einsum", "vecdot", "sum", "max", "min", "prod", "where", "cast", "take", "gather"}
FRESH |= {"scatter", "zeros", "full", "others", "conv", "conv_weight", "conv_input"}
SUMS = {"sum", "vecdot", "max", "min"}
# Operations with several results, and names for these.
RESULTS = {"norm": ("Y", "mean", "inverse"), "norm_backward": ("dX", "dg", "db")}
COMMUTES = {"add", "mul", "maximum", "minimum"}


class Names:
    """Names that are not taken yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def new(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}{number}", number + 1
        self._taken.add(name)
        return name

    def copy(self) -> Names:
        return Names(self._taken)


class Body:
    """Writes one function.

    Args:
        speller: how the backend spells operations.
        given: nodes that have a name already, such as arguments.
        keep: nodes that must not be changed: they are returned, or saved.
        preferred: names for nodes, those of the formula.
    """

    def __init__(
        self,
        speller: Speller,
        names: Names,
        given: Mapping[Node, str],
        roots: Sequence[Node],
        keep: Iterable[Node],
        preferred: Mapping[Node, str],
        dims: Mapping[Dim, str],
        checked: bool,
    ) -> None:
        self.speller = speller
        self.free = names
        self.names = dict(given)
        self.done: set[Node] = set()
        """What stands inside lines that are written."""
        self.given = set(given)
        self.keep = set(keep)
        self.preferred = preferred
        self.dims = dims
        self.checked = checked
        self.lines: list[str] = []
        self.used_dims: dict[Dim, None] = {}
        self.dtype = speller.no_dtype
        self.device = speller.no_device
        self.users: dict[Node, list[Node]] = {}
        self.order = list(cone(roots, self.given))
        for node in self.order:
            if node not in self.given:
                for arg in dict.fromkeys(node.args):
                    self.users.setdefault(arg, []).append(node)
        self.count = {node: sum(list(user.args).count(node) for user in users) for node, users in self.users.items()}
        for root in roots:
            self.count[root] = self.count.get(root, 0) + 1

    # -- lines -------------------------------------------------------------------------------------------------------

    def write(self, text: str, shape: str = "") -> None:
        line = " " * INDENT + text
        if shape and len(line) + len(shape) + 4 <= WIDTH:
            line += f"  # {shape}"
        self.lines += [line] if len(line) <= WIDTH else statement(text)

    def comment(self, text: str) -> None:
        """A comment, wrapped at spaces."""
        room = WIDTH - INDENT - 2
        words, line = text.split(" "), ""
        words = [word[i : i + room - 4] for word in words for i in range(0, max(len(word), 1), room - 4)]
        for word in words:
            if line and len(line) + 1 + len(word) > room:
                self.lines.append(f"{' ' * INDENT}# {line}")
                line = f"    {word}"
            else:
                line = f"{line} {word}" if line else word
        self.lines.append(f"{' ' * INDENT}# {line}")

    def shape(self, node: Node) -> str:
        """The shape as a comment."""
        if not node.rank:
            return ""
        parts = [self.speller.dim_text(self, dim, note=True) for dim in node.shape]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def dim(self, dim: Dim) -> str:
        """A size in an expression."""
        if dim.value is not None:
            return str(dim.value)
        if dim.parts:
            return " * ".join(self.dim(part) for part in dim.parts)
        self.used_dims[dim] = None
        return self.dims[dim]

    # -- nodes -------------------------------------------------------------------------------------------------------

    def single(self, node: Node) -> bool:
        return self.count.get(node, 0) == 1

    def variable(self, node: Node, hint: str = "") -> str:
        """The name of a node, its line written first if it has none."""
        if node in self.names:
            return self.names[node]
        wanted = self.preferred.get(node) or hint
        if node.op == "scatter":
            return self._scatter(node, wanted)
        if node.op == "inside":
            return self._inside(node, wanted)
        if node.op == "item":
            return self._items(node)
        if (spot := self._in_place(node)) is not None:
            return self._update(node, spot, wanted)
        text = self._fitting(node, wanted)
        self.done.update(self._inlined(node))
        name = self.names[node] = self.free.new(wanted or self.speller.suggestion(self, node))
        self.write(f"{name} = {text}", self.shape(node))
        return name

    def _fitting(self, node: Node, wanted: str, room: int = 0) -> str:
        """An expression short enough for a line, parts of it named beforehand."""
        room = room or WIDTH - INDENT - max(len(wanted), 6) - 4
        for arg in node.args:
            self._prepare(arg)
        while len(text := self.speller.top(self, node)) > room:
            inner = [n for n in self._inlined(node) if n.op != "view" and n.op != "const" and n.op != "size"]
            inner = inner or [n for n in self._inlined(node) if n.op == "view" and len(self.speller.top(self, n)) > 12]
            if not inner:
                break
            longest = max(inner, key=lambda n: (len(self.speller.top(self, n)) <= room, len(self.speller.top(self, n))))
            self.variable(longest)
        return text

    def _inlined(self, node: Node) -> list[Node]:
        out: list[Node] = []
        pending = list(node.args)
        while pending:
            arg = pending.pop()
            if arg not in self.names:
                out.append(arg)
                pending += arg.args
        return out

    def _prepare(self, node: Node) -> None:
        """Name whatever inside an expression cannot be written inline."""
        if node in self.names:
            return
        for arg in node.args:
            self._prepare(arg)
        if not self.inline(node):
            self.variable(node)

    def inline(self, node: Node) -> bool:
        """Whether a node is written inside the expression that uses it."""
        if node in self.names or node.host or node.op in RESULTS:
            return True
        if node in self.keep or node in self.preferred or node.op in ("scatter", "zeros", "item"):
            return False
        if node.op == "inside":
            return not self.checked
        if node.op == "view" and (node.args[0] in self.names):
            return True
        if not self.single(node):
            return False
        return self._in_place(node) is None

    def _in_place(self, node: Node) -> int | None:
        """The operand that a node may be written over."""
        if not self.speller.in_place or node.rank < 2 or node.kind != "float" or node.op not in UNARY | BINARY:
            return None
        spots = [i for i, arg in enumerate(node.args) if arg.kind == "float" and arg.shape == node.shape]
        for spot in spots:
            if node.op != "pow" and self._ours(node.args[spot], node):
                return spot
        return None

    def _ours(self, arg: Node, node: Node) -> bool:
        """Whether nothing needs an array after this node."""
        if list(node.args).count(arg) > 1:
            return False
        base = arg
        while True:
            if base in self.given or base in self.keep:
                return False
            if not base.view:
                break
            if base is not arg and self.count.get(base, 0) != 1:
                return False
            base = base.args[0]
        if base.op not in FRESH or arg.op == "broadcast":
            return False
        if base is not arg:
            return self.single(arg) and self.single(base)
        others = [user for user in self.users.get(arg, ()) if user is not node]
        if not others:
            return self.single(arg)
        if any(user.view for user in others):
            return False
        before = set(cone([a for a in node.args if a is not arg], self.given))
        late = [user for user in others if user not in before and user not in self.names and user not in self.done]
        # sums of what is written over are taken first
        return all(user.op in SUMS and node not in cone([user], self.given) for user in late)

    def _update(self, node: Node, spot: int, wanted: str) -> str:
        arg = node.args[spot]
        if not wanted and node in self.keep:
            wanted = self.speller.suggestion(self, node)
        others = [a for i, a in enumerate(node.args) if i != spot]
        named = self.variable(arg, wanted or self.speller.suggestion(self, node))
        for user in self.users.get(arg, ()):
            if user is not node and user not in self.names and user not in self.done:
                self.variable(user)
        for other in others:
            self._prepare(other)
        name = named if wanted in ("", named) else self.free.new(wanted)
        while True:
            text = self.speller.update(self, node, spot, named, name)
            inner = [n for other in others for n in ([other] if other not in self.names else []) + self._inlined(other)]
            inner = [n for n in inner if not n.host and n.op != "view" and n not in self.names]
            if len(text) <= WIDTH - INDENT or not inner:
                break
            self.variable(max(inner, key=lambda n: len(self.speller.top(self, n))))
        self.done.update(
            n for other in others for n in ([other] if other not in self.names else []) + self._inlined(other)
        )
        self.names[node] = name
        self.write(text, self.shape(node) if name != named else "")
        return name

    def _scatter(self, node: Node, wanted: str) -> str:
        target, value, *at = node.args
        for arg in (value, *at):
            self._prepare(arg)
        fresh = target.op in FRESH and not target.view and target not in self.keep and self.single(target)
        if target.op == "zeros" and target not in self.names:
            name = self.free.new(wanted or "t")
            self.write(f"{name} = {self.speller.top(self, target)}", self.shape(target))
        elif fresh:
            name = self.variable(target, wanted)
        else:
            self._prepare(target)
            name = self.free.new(wanted or "t")
            self.write(f"{name} = {self.speller.copied(self, target)}", self.shape(target))
        for arg in (value, *at):
            if not arg.host and arg not in self.names and len(self.speller.top(self, arg)) > 24:
                self.variable(arg)
        lines = self.speller.scatter(self, node, name)
        while max(map(len, lines)) > WIDTH - INDENT:
            inner = [arg for arg in (value, *at) if not arg.host and arg not in self.names]
            if not inner:
                break
            self.variable(max(inner, key=lambda arg: len(self.speller.top(self, arg))))
            lines = self.speller.scatter(self, node, name)
        self.done.update(self._inlined(node))
        for line in lines:
            self.write(line)
        self.names[node] = name
        return name

    def _items(self, node: Node) -> str:
        """All results of an operation that has several."""
        call = node.args[0]
        for arg in call.args:
            self.variable(arg)
        items = {other.attrs[0]: other for other in self.order if other.op == "item" and other.args[0] is call}
        targets = []
        for number, usual in enumerate(RESULTS[call.op]):
            if (item := items.get(number)) is None:
                targets.append("_")
            else:
                self.names[item] = self.free.new(self.preferred.get(item, usual))
                targets.append(self.names[item])
        self.write(f"{', '.join(targets)} = {self.speller.top(self, call)}")
        return self.names[node]

    def _inside(self, node: Node, wanted: str) -> str:
        position = node.args[0]
        self._prepare(position)
        if not self.checked or not self.speller.raises or position.host:
            self.names[node] = name = self.variable(position) if not position.host else self.speller.top(self, position)
            return name
        name = self.variable(position, wanted)
        self.names[node] = name
        self.lines += [f"    {line}" for line in self.speller.check(name)]
        return name

    def sizes(self, wanted: Iterable[Dim], arrays: Sequence[tuple[str, Sequence[Dim]]]) -> tuple[list[str], list[Dim]]:
        """Lines that read sizes from shapes, and the sizes that no shape says."""
        lines: list[str] = []
        missing: list[Dim] = []
        known: set[Dim] = set()
        by: dict[str, dict[int, Dim]] = {}
        ranks = {name: len(shape) for name, shape in arrays}
        later: list[Dim] = []

        def visit(dim: Dim) -> None:
            if dim in known or dim.value is not None or dim is ONE:
                return
            known.add(dim)
            if dim.parts:
                for part in dim.parts:
                    visit(part)
                return
            for name, shape in arrays:
                for axis, found in enumerate(shape):
                    if found is dim:
                        by.setdefault(name, {})[axis] = dim
                        return
            if dim.formula:
                for part in dims_in(dim):
                    visit(part)
                later.append(dim)
            else:
                missing.append(dim)

        for dim in wanted:
            visit(dim)
        for name, axes in by.items():
            if len(axes) == ranks[name] and len(axes) > 1:
                targets = [self.dims[axes[axis]] for axis in range(ranks[name])]
                if len(set(targets)) == len(targets):
                    lines.append(f"{', '.join(targets)} = {name}.shape")
                    continue
            lines += [f"{self.dims[dim]} = {name}.shape[{axis}]" for axis, dim in sorted(axes.items())]
        for dim in later:
            text = "".join(part if isinstance(part, str) else self.dim(part) for part in dim.formula)
            lines.append(f"{self.dims[dim]} = {text}")
        return lines, missing
