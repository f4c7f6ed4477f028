"""LaTeX as the printer writes it, read back into index notation; and whether a document would compile.

The reader knows mathematics as a reader of a paper does: a sum extends over the product that follows it, a fraction
holds together, an exponent belongs to what stands right before it. It shares nothing with the printer.
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
FUNCTIONS = {r"\exp", r"\log", r"\sin", r"\cos", r"\tanh", r"\max", r"\min"}
COMPARISONS = {"=": "==", r"\neq": "!=", r"\leq": "<=", r"\geq": ">=", "<": "<", ">": ">"}
LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi rho sigma tau upsilon phi chi psi omega"
GREEK = {f"\\{letter}" for letter in (LETTERS + " Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega").split()}
STRUCTURE = {r"\frac", r"\sum", r"\prod", r"\sqrt", r"\left", r"\right", r"\operatorname", r"\mathit", r"\mathrm"}
STRUCTURE |= {
    r"\mathcal",
    r"\mathbf",
    r"\partial",
    r"\begin",
    r"\end",
    r"\text",
    r"\ldots",
    r"\cdot",
    r"\circ",
    r"\odot",
}
STRUCTURE |= {r"\top", r"\quad", r"\noindent", r"\item", r"\times", r"\dots", r"\textbackslash", r"\textasciitilde"}
KNOWN = (
    FUNCTIONS | set(COMPARISONS) | GREEK | STRUCTURE | {r"\,", r"\\", r"\_", r"\{", r"\}", r"\%", r"\&", r"\#", r"\$"}
)


def statement(text: str) -> str:
    r"""One equation, ``Y_{n} = \sum_{d} X_{n,d}``, as a statement of index notation."""
    reader = _Reader(text)
    left = reader.factor()
    reader.take("=")
    right = reader.sum()
    assert reader.peek() == "", reader.rest()
    return f"{left} = {right}"


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = [token for token in TOKEN.findall(text) if not token.isspace()]
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def rest(self) -> str:
        return " ".join(self.tokens[self.at :])

    def take(self, *expected: str) -> str:
        for token in expected or (self.peek(),):
            assert self.peek() == token, f"{token} expected before {self.rest()}"
            self.at += 1
        return self.tokens[self.at - 1]

    def group(self, read) -> str:
        self.take("{")
        inside = read()
        self.take("}")
        return inside

    def word(self) -> str:
        r"""The letters of ``{exp}``, escapes undone."""
        self.take("{")
        word = ""
        while self.peek() != "}":
            word += self.take().removeprefix("\\")
        self.take("}")
        return word

    def sum(self) -> str:
        out = "-" if self.peek() == "-" and self.take() else ""
        out += self.product()
        while self.peek() in ("+", "-"):
            out += f" {self.take()} {self.product()}"
        return out

    def product(self) -> str:
        factors = []
        while self.begins_factor():
            if self.peek() == r"\sum":
                self.take(r"\sum", "_")
                indices = self.group(self.places)
                factors.append(f"sum[{indices}]({self.product()})")
            else:
                factors.append(self.factor())
            if self.peek() == r"\cdot":
                self.take()
                assert self.begins_factor(), self.rest()
        assert factors, f"a product expected before {self.rest()}"
        return "*".join(factors)

    def begins_factor(self) -> bool:
        token = self.peek()
        return token not in ("", "+", "-", "}", "&", r"\right", r"\\", r"\end", ",", ")") and token not in COMPARISONS

    def factor(self) -> str:
        base = self.base()
        if self.peek() == "^":
            self.take("^", "{")
            if self.tokens[self.at + 1 : self.at + 4 : 2] in (["/", "}"],):
                base = f"({base})**({self.take()}{self.take()}{self.take()})"
            else:
                base = f"({base})**({self.sum()})"
            self.take("}")
            assert self.peek() not in ("^", "_"), "two exponents"
        return base

    def base(self) -> str:
        match self.peek():
            case r"\frac":
                self.take()
                if self.peek(1) == r"\partial":
                    self.take("{", r"\partial")
                    while self.take() != "}":
                        pass
                    self.take("{", r"\partial")
                    below = self.factor()
                    self.take("}")
                    return f"d{below}"
                return f"(({self.group(self.sum)})/({self.group(self.sum)}))"
            case r"\sqrt":
                self.take()
                return f"sqrt({self.group(self.sum)})"
            case r"\left":
                return self.fenced()
            case "|":
                self.take()
                name = self.name()
                self.take("|")
                return "sum[...](1)" if name == "..." else f"size({name})"
            case r"\operatorname":
                self.take()
                word = self.word()
                if self.peek() == "(":
                    self.take("(")
                    position = self.position()
                    self.take(")")
                    return f"{word}({position})"
                return f"{word}{self.arguments()}"
            case r"\max" | r"\min" | r"\prod" if self.peek(1) == "_":
                command = self.take().removeprefix("\\")
                self.take("_")
                return f"{command}[{self.group(self.places)}]{self.arguments()}"
            case command if command in FUNCTIONS:
                self.take()
                return command.removeprefix("\\") + self.arguments()
            case r"\begin":
                return self.cases()
            case number if number[0].isdigit():
                return self.take()
        return self.access()

    def fenced(self) -> str:
        self.take(r"\left")
        fence = self.take()
        if fence == "[":
            inside = f"[{self.condition()}]"
        elif fence == "|":
            inside = f"abs({self.sum()})"
        else:
            inside = f"({self.sum()})"
        self.take(r"\right", {"[": "]", "|": "|", "(": ")"}[fence])
        return inside

    def condition(self) -> str:
        left = self.sum()
        return f"{left} {COMPARISONS[self.take()]} {self.sum()}"

    def arguments(self) -> str:
        self.take(r"\left", "(")
        inside = [self.sum()]
        while self.peek() == ",":
            self.take()
            inside.append(self.sum())
        self.take(r"\right", ")")
        return f"({', '.join(inside)})"

    def cases(self) -> str:
        self.take(r"\begin")
        assert self.word() == "cases"
        yes = self.sum()
        self.take("&", r"\text")
        assert self.word() == "if"
        condition = self.condition()
        self.take(r"\\")
        no = self.sum()
        self.take("&", r"\text")
        assert self.word() == "otherwise"
        self.take(r"\end")
        assert self.word() == "cases"
        return f"where({condition}, {yes}, {no})"

    def name(self) -> str:
        token = self.take()
        if token in (r"\mathit", r"\mathrm"):
            return self.word() + ("[]" if token == r"\mathrm" else "")
        if token == r"\ldots":
            return "..."
        assert token in GREEK or (len(token) == 1 and token.isalpha()), f"a name expected, not {token}"
        return token.removeprefix("\\")

    def access(self) -> str:
        name = self.name()
        if self.peek() == "_":
            self.take()
            name = f"{name}[{self.group(self.places)}]"
        assert self.peek() != "_", "two subscripts"
        return name

    def places(self) -> str:
        out = [self.position()]
        while self.peek() == ",":
            self.take()
            out.append(self.position())
        return ",".join(out)

    def position(self) -> str:
        out = self.take() if self.peek() == "-" else ""
        while True:
            parts = [self.factor()]
            while self.begins_factor():
                parts.append(self.factor())
            out += "*".join(parts)
            if self.peek() not in ("+", "-"):
                return out
            out += self.take()


def check(document: str) -> None:
    """Whether LaTeX with amsmath would take it: known commands, pairs, no mathematics outside mathematics.

    Raises:
        AssertionError: at the first fault.
    """
    document = re.sub(r"(?<!\\)%.*", "", document)
    tokens = TOKEN.findall(document)
    opened: list[str] = []
    math = False
    for at, token in enumerate(tokens):
        following = "".join(tokens[at + 1 : at + 20])
        inside = math or any(o in ("align*", "cases") for o in opened)
        text = bool(opened) and opened[-1] == "text"
        if token.startswith("\\"):
            assert token in KNOWN, token
        if token == r"\begin":
            name = re.match(r"\{(\w+\*?)\}", following)[1]
            assert name in ("align*", "cases", "itemize")
            assert inside == (name == "cases")
            opened.append(name)
        elif token == r"\end":
            assert opened.pop() == re.match(r"\{(\w+\*?)\}", following)[1]
        elif token == "{":
            opened.append("text" if at and tokens[at - 1] == r"\text" else "{")
        elif token == "}":
            assert opened.pop() in ("{", "text")
        elif token == r"\left":
            opened.append("left")
        elif token == r"\right":
            assert opened.pop() == "left"
        elif token == "$":
            assert not any(o in ("align*", "cases") for o in opened) or text
            math = not math
        elif token == "&":
            assert opened[-1] in ("align*", "cases"), document[:200]
        elif token == r"\\":
            assert opened[-1] in ("align*", "cases")
        elif token in ("_", "^"):
            assert inside
            assert not text
            assert tokens[at + 1] == "{", "an exponent of one group"
        elif token in (r"\frac", r"\sum", r"\partial", r"\operatorname"):
            assert inside
            assert not text
        assert token.isascii(), token
    assert opened == []
    assert not math
