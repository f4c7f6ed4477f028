"""MathML as the printer writes it, read back into index notation; and whether a browser would draw it.

The reader goes by what stands on the page, as a reader of a paper does: a sum extends over the product that follows it,
a fraction holds together, an exponent belongs to its base. It shares nothing with the printer.
"""

from __future__ import annotations

import re
import unicodedata
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

TIMES, APPLY = "\u2062", "\u2061"
COMPARISONS = {"=": "==", "≠": "!=", "≤": "<=", "≥": ">=", "<": "<", ">": ">"}
# MathML Core, as far as it is used, and the number of children that an element must have.
ELEMENTS = {
    **dict.fromkeys(("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msqrt", "mtable", "mtr", "mtd"), None),
    **dict.fromkeys(("mfrac", "msub", "msup", "munder", "semantics"), 2),
    "munderover": 3,
    "annotation": None,
}
LEAVES = ("mi", "mn", "mo", "mtext", "annotation")
ATTRIBUTES = {
    "math": {"display", "alttext"},
    "mi": {"mathvariant", "style"},
    "mn": {"style"},
    "mo": {"form", "stretchy", "lspace", "rspace"},
    "mrow": {"style"},
    "mspace": {"width"},
    "mtable": {"columnalign", "displaystyle"},
    "mtd": {"style"},
    "annotation": {"encoding"},
}


def statement(row: str) -> str:
    """One equation as a statement of index notation; ``row`` is XML of one element."""
    nodes = _children(ElementTree.fromstring(row))
    at = next(i for i, node in enumerate(nodes) if _sign(node) == "=")
    left = _Reader(nodes[:at]).sum()
    return f"{left} = {_Reader(nodes[at + 1 :]).sum()}"


def equations(math: str) -> list[str]:
    """The statements of a ``math`` element with one equation or a table of them; a sum may go on in the next line."""
    shown = ElementTree.fromstring(math).find("semantics")[0]
    if shown.tag != "mtable":
        return [statement(ElementTree.tostring(shown, "unicode"))]
    rows: list[list[Element]] = []
    for left, right in (list(line) for line in shown):
        cells = [*(_children(left) if len(left) else ()), *_children(right)]
        goes_on = _sign(_children(right)[0]) != "="
        rows[-1:] = [[*rows[-1], *cells]] if goes_on else [*rows[-1:], cells]
    found = []
    for cells in rows:
        whole = Element("mrow")
        whole.extend(cells)
        found.append(statement(ElementTree.tostring(whole, "unicode")))
    return found


def _children(node: Element) -> list[Element]:
    """What stands in a row, side by side; what holds together is one."""
    if node.tag not in ("mrow", "mtd") or _fence(node) or _applied(node):
        return [node]
    only = list(node)
    return _children(only[0]) if len(only) == 1 and only[0].tag == "mrow" else only


def _applied(node: Element) -> bool:
    return node.tag == "mrow" and len(node) == 3 and _sign(node[1]) == APPLY


def _sign(node: Element | None) -> str:
    return node.text or "" if node is not None and node.tag == "mo" else ""


def _fence(node: Element) -> str:
    """The sign around a row, if there is one."""
    nodes = list(node) if node.tag == "mrow" else []
    first = _sign(nodes[0]) if nodes else ""
    if first == "{":
        return first
    return first if len(nodes) > 1 and (first, _sign(nodes[-1])) in (("(", ")"), ("[", "]"), ("|", "|")) else ""


class _Reader:
    def __init__(self, nodes: list[Element]) -> None:
        self.nodes = [node for node in nodes if node.tag != "mspace"]
        self.at = 0

    def peek(self) -> Element | None:
        return self.nodes[self.at] if self.at < len(self.nodes) else None

    def take(self) -> Element:
        self.at += 1
        return self.nodes[self.at - 1]

    def whole(self, text: str) -> str:
        assert self.peek() is None, [ElementTree.tostring(node, "unicode") for node in self.nodes[self.at :]]
        return text

    def sum(self, whole: bool = True) -> str:
        out = "-" if _sign(self.peek()) == "−" and self.take() is not None else ""
        out += self.product()
        while _sign(self.peek()) in ("+", "−"):
            sign = "-" if _sign(self.take()) == "−" else "+"
            out += f" {sign} {self.product()}"
        return self.whole(out) if whole else out

    def product(self) -> str:
        factors = []
        while (node := self.peek()) is not None and (node.tag != "mo" or _sign(node) in (TIMES, "·")):
            if node.tag == "mo":
                assert factors, "a product begins with its sign"
                self.take()
                assert self.peek() is not None
                continue
            if node.tag == "munder" and _sign(node[0]) == "∑":
                self.take()
                factors.append(f"sum[{_places(node[1])}]({self.product()})")
            else:
                factors.append(_factor(self.take()))
        assert factors, "a product is missing"
        return "*".join(factors)


def _factor(node: Element) -> str:
    match node.tag:
        case "mn":
            return node.text
        case "mi" | "msub":
            return _access(node)
        case "msup":
            base, exponent = node
            nodes = _children(exponent)
            if [_sign(n) for n in nodes] == ["", "/", ""]:
                return f"({_factor(base)})**({nodes[0].text}/{nodes[2].text})"
            return f"({_factor(base)})**({_Reader(nodes).sum()})"
        case "mfrac":
            above, below = (_children(half) for half in node)
            if above[0].text == "∂":
                assert len(above) == len(below) == 2
                assert below[0].text == "∂"
                return f"d{_access(below[1])}"
            return f"(({_Reader(above).sum()})/({_Reader(below).sum()}))"
        case "msqrt":
            return f"sqrt({_Reader([part for child in node for part in _children(child)]).sum()})"
        case "mrow":
            return _group(node)
    raise AssertionError(ElementTree.tostring(node, "unicode"))


def _group(node: Element) -> str:
    """Something in parentheses or bars, cases, or a function that is applied."""
    nodes = list(node)
    match _fence(node):
        case "(":
            return f"({_Reader(nodes[1:-1]).sum()})"
        case "[":
            return f"[{_condition(nodes[1:-1])}]"
        case "|" if nodes[0].get("stretchy") == "true":
            return f"abs({_Reader(nodes[1:-1]).sum()})"
        case "|":
            (name,) = nodes[1:-1]
            return "sum[...](1)" if _name(name) == "..." else f"size({_name(name)})"
        case "{":
            (yes, where), (no, otherwise) = (list(line) for line in nodes[1])
            assert (where[0].text, otherwise[0].text) == ("if\xa0", "otherwise")
            condition = _condition([child for rest in list(where)[1:] for child in _children(rest)])
            return f"where({condition}, {_Reader(_children(yes)).sum()}, {_Reader(_children(no)).sum()})"
    function, applied, argument = nodes
    assert _sign(applied) == APPLY
    assert _fence(argument) == "("
    inside = list(argument)[1:-1]
    if function.tag == "munder":
        kind = {"∏": "prod"}.get(function[0].text, function[0].text)
        return f"{kind}[{_places(function[1])}]({_Reader(inside).sum()})"
    if function.text in ("zero", "clamp", "wrap", "mirror", "reflect"):
        return f"{function.text}({_position(inside)})"
    return f"{function.text}({', '.join(_Reader(part).sum() for part in _parted(inside))})"


def _condition(nodes: list[Element]) -> str:
    (at,) = (i for i, node in enumerate(nodes) if _sign(node) in COMPARISONS)
    left, right = _Reader(nodes[:at]).sum(), _Reader(nodes[at + 1 :]).sum()
    return f"{left} {COMPARISONS[_sign(nodes[at])]} {right}"


def _parted(nodes: list[Element]) -> list[list[Element]]:
    """What stands between commas."""
    out: list[list[Element]] = [[]]
    for node in nodes:
        if _sign(node) == ",":
            out.append([])
        else:
            out[-1].append(node)
    return out


def _places(node: Element) -> str:
    return ",".join(_position(part) for part in _parted(_children(node)))


def _position(nodes: list[Element]) -> str:
    out = ""
    for node in nodes:
        out += {"−": "-", "+": "+", TIMES: "*"}[_sign(node)] if node.tag == "mo" else _factor(node)
    return out


def _access(node: Element) -> str:
    if node.tag == "msub":
        return f"{_name(node[0])}[{_places(node[1])}]"
    return _name(node)


def _name(node: Element) -> str:
    assert node.tag == "mi"
    name = node.text
    if name == "…":
        return "..."
    letter = unicodedata.name(name) if len(name) == 1 else ""
    if greek := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", letter):
        return greek[2].lower() if greek[1] == "SMALL" else greek[2].title()
    return f"{name}[]" if node.get("mathvariant") == "normal" else name


def check(math: str) -> None:
    """Whether a browser would draw a ``math`` element as it is meant: MathML Core, the right number of children.

    Raises:
        AssertionError, ElementTree.ParseError: at the first fault.
    """
    root = ElementTree.fromstring(math)
    assert root.tag == "math"
    assert [child.tag for child in root] == ["semantics"]
    assert len(root[0]) == 2
    _, said = root[0]
    assert said.get("encoding") == "application/x-tex"
    assert said.text
    for node in root.iter():
        assert node.tag in ELEMENTS, node.tag
        assert set(node.keys()) <= ATTRIBUTES.get(node.tag, set()), (node.tag, node.keys())
        wanted = ELEMENTS[node.tag]
        assert wanted in (None, len(node)), ElementTree.tostring(node, "unicode")
        if node.tag in LEAVES:
            assert node.text
            assert len(node) == 0
        else:
            assert not (node.text or "").strip(), f"bare text in {node.tag}: {node.text}"
            assert not [child for child in node if (child.tail or "").strip()], ElementTree.tostring(node, "unicode")
        if node.tag == "mtable":
            assert {child.tag for child in node} == {"mtr"}
            assert len({len(line) for line in node}) == 1
        if node.tag == "mtr":
            assert {child.tag for child in node} == {"mtd"}
