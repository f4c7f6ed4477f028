"""Index notation read: text to tokens to the tree of `_tree`, and every error with carets under its place.

The grammar; a statement ends at ``;`` or at the end of a line outside all brackets:

    statement  =  name ["[" letters "]"] "=" sum
    sum        =  product {("+" | "-") product}
    product    =  factor {"*" factor | "/" factor | factor}      the last is juxtaposition
    factor     =  {"-"} operand ["**" ["+"] factor]              so -x**2 is -(x**2)
    operand    =  number | name | name "[" places "]" | "(" sum ")" | "[" condition "]" | "size" "(" name ")"
               |  function "(" arguments ")" | reduction "[" letters "]" ("(" sum ")" | product)
    places     =  "..." or a side first, then sides, with commas between
    condition  =  side comparison side
    side       =  sum | mode "(" sum ")"
"""

from __future__ import annotations

import difflib
import keyword
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from ..core import FormulaError
from ._tree import (
    COMPARISONS,
    FUNCTIONS,
    LEADING,
    MODES,
    REDUCTIONS,
    Access,
    Bracket,
    Call,
    Compare,
    Factor,
    Formula,
    Leading,
    LeftIndex,
    Mode,
    Name,
    Negative,
    Node,
    Number,
    Power,
    Product,
    Reduce,
    Size,
    Span,
    Statement,
    Sum,
    Summand,
)

# Within these a text is read in milliseconds, and no later stage meets a tree that it cannot walk.
MAX_CHARACTERS = 10_000
MAX_STATEMENTS = 200
MAX_OPERANDS = 1_000  # terms of one sum, factors of one product
MAX_INDICES = 26
MAX_DEPTH = 100
MAX_DIGITS = 30
LARGEST = Fraction(10**300)  # a float holds it, and its inverse

EXAMPLE = "Y[n,m] = X[n,d] W[d,m] + b[m]"
SHOWN_COLUMNS = 100
SHOWN_LINES = 8


def pointed(text: str, fact: str, *spans: Span, more: Sequence[str] = ()) -> FormulaError:
    """The error that says ``fact``, shows the lines of ``text`` that hold ``spans`` with carets, then says ``more``.

    An empty span is one caret wide. Of a long line only what is near its spans is shown, of many lines the outer ones.
    """
    pictures, start = [], 0
    for line in text.split("\n"):
        marks = []
        for span in sorted(spans):
            left, right = max(span.start - start, 0), min(max(span.end, span.start + 1) - start, len(line) + 1)
            if left >= right:
                continue
            piece = line[left:right]
            if piece.strip():
                left += len(piece) - len(piece.lstrip())
                marks.append((left, left + len(piece.strip())))
            elif span.start >= start:
                marks.append((left, left + max(len(piece), 1)))
        pictures += _pictures(line, marks)
        start += len(line) + 1
    if len(pictures) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        pictures = [*pictures[:half], "    …", *pictures[-half:]]
    return FormulaError("\n".join([fact, *pictures, *more]))


def _pictures(line: str, marks: list[tuple[int, int]]) -> list[str]:
    """The line over its carets; a long line once for each group of marks that fits into a window."""
    # One column each, whatever a terminal makes of tabs, control and combining characters.
    line = "".join(c if _visible(c) else " " if c in "\t\r" else "\ufffd" for c in line)
    windows: list[tuple[int, int, list[str]]] = []
    for left, right in marks:
        if not windows or right > windows[-1][1] + 1:
            begin, end = 0, len(line)
            if len(line) > SHOWN_COLUMNS:
                begin = max(0, min((left + right - SHOWN_COLUMNS) // 2, left - 10))
                end = min(begin + SHOWN_COLUMNS, len(line))
            windows.append((begin, end, [" "] * end))
        _, end, carets = windows[-1]
        carets[left:right] = "^" * (min(right, end + 1) - left)
    pictures = []
    for begin, end, carets in windows:
        before, after = "…" if begin else "", "…" if end < len(line) else ""
        shown, under = before + line[begin:end] + after, " " * len(before) + "".join(carets[begin:])
        pictures.append(f"    {shown.rstrip()}\n    {under.rstrip()}")
    return pictures


def _visible(char: str) -> bool:
    return char.isprintable() and not unicodedata.combining(char)


def _quoted(text: str) -> str:
    """A piece of a formula for the middle of a message: on one line, its own middle cut out if it is long."""
    text = " ".join(text.split())
    return f"`{text}`" if len(text) <= 60 else f"`{text[:29]} … {text[-29:]}`"


class Token(NamedTuple):
    kind: str  # name, number, mark, or end (of a statement)
    text: str
    span: Span


TOKEN = re.compile(
    r"(?P<space>[ \t]+|\r(?=\n))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<mark>\.\.\.|\*\*|[=!<>]=|[-+*/=<>()\[\],])"
    r"|(?P<end>[;\n])"
    r"|(?P<strange>.)",
    re.DOTALL,
)
CLOSES = {"(": ")", "[": "]"}

# What to type for a character that is not part of the notation, where Unicode's own tables do not say it.
INSTEAD = {
    **dict.fromkeys("×·∙⋅∗•✕⨯", "`*`"),
    **dict.fromkeys("÷∕⁄", "`/`"),
    **dict.fromkeys("−–—‐‑‒", "`-`"),
    **{power: f"`**{digit}`" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{
        cyrillic: f"`{latin}`" for cyrillic, latin in zip("АВЕКМНОРСТХаеорсухіѕј", "ABEKMHOPCTXaeopcyxisj", strict=True)
    },
    "≤": "`<=`",
    "≥": "`>=`",
    "≠": "`!=`",
    "…": "`...`",
    "∑": "`sum[k](…)`",
    "Σ": "`sum[k](…)`",
    "∏": "`prod[k](…)`",
    "√": "`sqrt(…)`",
    "λ": "`lam`, for lambda is a Python keyword",
    "^": "`**` for a power",
    "{": "`(` or `[`",
    "}": "`)` or `]`",
    "|": "`abs(x)` for an absolute value",
    "@": "the indices: `X[n,d] W[d,m]`",
    **dict.fromkeys("'’ᵀ", "the indices in the other order for a transpose: `X[d,n]`"),
    ".": "`...` for leading axes, `X[d,n]` for a transpose",
    ":": "an index for each axis: `X[n,d]`",
    "!": "`!=` for unequal",
    "&": "a product of brackets: `[i > 0]*[i < 3]`",
}


def _instead(char: str) -> str:
    """What to type for a strange character; the message puts "type" before it."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c))
    for known in (char, plain):
        if known in INSTEAD:
            return INSTEAD[known]
    if re.fullmatch(r"[A-Za-z0-9]+|[-+*/=<>()\[\],;]", plain):
        return f"`{plain}`"
    if unicodedata.digit(char, None) is not None:
        return f"`{unicodedata.digit(char)}`"
    match unicodedata.name(plain, "").split() if len(plain) == 1 else []:
        case ["GREEK", "SMALL", "LETTER", *_, letter]:
            return f"`{letter.lower()}`"
        case ["GREEK", "CAPITAL", "LETTER", *_, letter]:
            return f"`{letter.capitalize()}`"
    if char.isspace():
        return "a space"
    return "names of ASCII letters, digits and inner underscores, and the marks `+ - * / ** = ( ) [ ] , ;`"


def _tokens(text: str) -> list[Token]:
    """The tokens, every bracket closed by its like; each statement that is not blank ends with one token ``end``.

    Raises:
        FormulaError: a strange character, a misshapen name or number, brackets that do not match.
    """
    tokens: list[Token] = []
    opened: list[Token] = []
    previous = Token("end", "", Span(0, 0))
    for match in TOKEN.finditer(text):
        kind, word, span = match.lastgroup or "", match[0], Span(*match.span())
        if kind == "space" or (word == "\n" and opened):
            continue
        if kind == "strange":
            known = unicodedata.name(word, f"U+{ord(word):04X}")
            shown = f"`{word}` ({known})" if _visible(word) else f"the character {known}"
            more = f"type {_instead(word)}" if word.isspace() or _visible(word) else "leave it out"
            raise pointed(text, f"{shown} is not part of the notation", span, more=[more])
        if kind in ("name", "number") and previous.kind == "number" and previous.span.end == span.start:
            number, both = previous.text, Span(previous.span.start, span.end)
            more = f"{_quoted(f'{number} {word}')} or {_quoted(f'{number}*{word}')}"
            if not word[0].isalpha():
                more = "a number as `2`, `0.5` or `1e-5`"
            raise pointed(text, f"{_quoted(number + word)} runs together", both, more=[f"type {more}"])
        if kind == "name" and "_" in (word[0], word[-1]):
            better = word.strip("_")
            better = better if better[:1].isalpha() else f"x{better}"
            fact = f"the name {_quoted(word)} begins or ends with an underscore"
            raise pointed(text, fact, span, more=[f"type {_quoted(better)}"])
        token = Token(kind, word, span)
        if word in CLOSES:
            opened.append(token)
        elif word in (")", "]"):
            if not opened:
                more = "leave it out, or open it before"
                raise pointed(text, f"`{word}` closes what nothing opened", span, more=[more])
            opening = opened.pop()
            if CLOSES[opening.text] != word:
                fact = f"`{opening.text}` is closed by `{word}`"
                more = f"type `{CLOSES[opening.text]}` to close the `{opening.text}`"
                raise pointed(text, fact, opening.span, span, more=[more])
        elif opened and word == ";":
            raise _unclosed(text, opened[-1], span)
        elif kind == "end":
            if previous.kind == "end":
                continue
            if word == "\n":
                token = Token(kind, word, Span(previous.span.end, previous.span.end))
        tokens.append(token)
        previous = token
    end = Span(previous.span.end, previous.span.end)
    if opened:
        line_end = text.find("\n", opened[-1].span.end)
        # A bracket left open takes in the lines that follow; if one is a statement, it should have closed before.
        if line_end >= 0 and any(token.text == "=" and token.span.start > line_end for token in tokens):
            column = len(text[:line_end].rstrip())
            end = Span(column, column)
        raise _unclosed(text, opened[-1], end)
    if previous.kind != "end":
        tokens.append(Token("end", "", end))
    return tokens


def _unclosed(text: str, opening: Token, place: Span) -> FormulaError:
    more = [f"type `{CLOSES[opening.text]}` where it ends"]
    return pointed(text, f"`{opening.text}` is not closed", opening.span, place, more=more)


RESERVED = {
    **dict.fromkeys(keyword.kwlist, "a Python keyword"),
    **dict.fromkeys(FUNCTIONS, "a function"),
    **dict.fromkeys(REDUCTIONS, "a reduction"),
    **dict.fromkeys(MODES, "a boundary mode"),
    "size": "the size of an index",
    "sizes": "an argument of derive",
}
USE = {
    **{name: f"`{name}(…)`" for name in FUNCTIONS},
    **{name: f"`{name}[k](…)`" for name in REDUCTIONS},
    **{name: f"`x[{name}(…)]`" for name in MODES},
    "size": "`size(n)`",
}

# What other libraries have as one function, as it is written here.
WRITTEN = {
    "softmax": "exp(X[n,k])/sum[j](exp(X[n,j]))",
    "log_softmax": "X[n,k] - log(sum[j](exp(X[n,j])))",
    "logsumexp": "log(sum[k](exp(X[n,k])))",
    "argmax": "the positions as an integer input, k[n]: they have no gradient",
    "argmin": "the positions as an integer input, k[n]: they have no gradient",
    "softplus": "log(1 + exp(x))",
    "silu": "x*sigmoid(x)",
    "swish": "x*sigmoid(x)",
    "leaky_relu": "where(x > 0, x, 0.01*x)",
    "elu": "where(x > 0, x, exp(x) - 1)",
    "clip": "min(max(x, 0), 1)",
    "square": "x**2",
    "rsqrt": "1/sqrt(x)",
    "norm": "sqrt(sum[k](X[n,k]**2))",
    "var": "mean[k]((X[n,k] - m[n])**2), after m[n] = mean[k](X[n,k])",
    "std": "sqrt(mean[k]((X[n,k] - m[n])**2)), after m[n] = mean[k](X[n,k])",
    "layer_norm": "(X[n,k] - m[n])/sqrt(v[n] + 1e-5), after m[n] = mean[k](X[n,k]) and v[n] = …",
}
# Of these, what nobody calls a tensor.
NO_TENSORS = ("softmax", "log_softmax", "logsumexp", "argmax", "argmin")


def parse(text: str) -> Formula:
    """The syntax tree of a formula.

    What needs the meaning of an index stays for later: whether a position is affine, whether a name is an index or a
    tensor, the scope of sums, the number of a tensor's axes.

    Raises:
        FormulaError: anything that cannot be read, with its place and the line to type.
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula is a str, not {type(text).__name__}\ntype for example `{EXAMPLE}`, in quotes")
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"the formula has {len(text):,} characters; {MAX_CHARACTERS:,} are the limit")
    tokens = _tokens(text)
    if not tokens:
        raise FormulaError(f"the formula is empty\ntype for example `{EXAMPLE}`")
    try:
        return Formula(text, _Parser(text, tokens).statements())
    except RecursionError:  # within MAX_DEPTH only where the caller has used up most of Python's stack
        raise FormulaError("the formula is nested deeper than what is left of Python's stack") from None


class _Parser:
    """One method per rule of the grammar; ``at`` is the token that is read next."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text, self.tokens, self.at = text, tokens, 0
        self.depth = 0
        self.positions = 0  # how many index positions are open around what is read
        self.reads: dict[str, Span] = {}  # tensors, where first read
        self.letters: set[str] = set()  # of the statement at hand: names that it uses as an index
        self.bare: list[Name] = []  # of the statement at hand: names that may be either

    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def since(self, start: int) -> Span:
        """From ``start`` to the end of what has been read."""
        return Span(start, self.tokens[self.at - 1].span.end)

    def words(self, start: int) -> str:
        return self.text[slice(*self.since(start))]

    def begins_operand(self) -> bool:
        token = self.peek()
        return token.kind in ("name", "number") or token.text in CLOSES

    def error(self, fact: str, *spans: Span, more: str) -> FormulaError:
        return pointed(self.text, fact, *spans, more=[more])

    def deeper(self, token: Token) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            more = "give an inner part a name in a statement of its own: `A[i] = …; Y[i] = exp(A[i])`"
            raise self.error(f"nested deeper than {MAX_DEPTH} levels", token.span, more=more)

    def close(self) -> None:
        """Read the closing bracket; that it is the right one, the tokens have shown."""
        if self.peek().text not in (")", "]"):
            raise self.misplaced(self.peek())
        self.at += 1
        self.depth -= 1

    def statements(self) -> tuple[Statement, ...]:
        statements: list[Statement] = []
        assigned: dict[str, Span] = {}
        while self.at < len(self.tokens):
            token = self.peek()
            if len(statements) == MAX_STATEMENTS:
                more = "derive the parts one after another"
                raise self.error(f"more than {MAX_STATEMENTS} statements", token.span, more=more)
            statement = self.statement()
            name = statement.name
            if name in assigned:
                more = f"choose another name for one of them, such as `{name}2`"
                raise self.error(f"{_quoted(name)} is assigned twice", assigned[name], token.span, more=more)
            if name in self.reads:
                more = "put its statement first, or choose another name"
                raise self.error(
                    f"{_quoted(name)} is read before it is assigned", self.reads[name], token.span, more=more
                )
            assigned[name] = token.span
            statements.append(statement)
        return tuple(statements)

    def statement(self) -> Statement:
        first = self.peek()
        name, indices = self.left()
        self.letters = {index.name for index in indices}
        self.bare = []
        body = self.sum()
        if self.peek().kind != "end":
            raise self.misplaced(self.peek())
        span = self.since(first.span.start)
        self.at += 1
        for bare in self.bare:
            if bare.name not in self.letters:
                self.reads.setdefault(bare.name, bare.span)
        return Statement(span, name, indices, body)

    def left(self) -> tuple[str, tuple[LeftIndex, ...]]:
        """What stands before the ``=``, which is read too."""
        first = self.peek()
        equals = self.at
        while self.tokens[equals].text != "=":
            if self.tokens[equals].kind == "end":
                raise self.no_left()
            equals += 1
        if equals == self.at:
            raise self.error("the left side is missing", first.span, more="type the result first: `Y[n,m] = …`")
        indices: tuple[LeftIndex, ...] = ()
        if first.kind == "name":
            self.at += 1
            self.reserve(first)
            if self.peek().text == "[":
                self.at += 1
                indices = self.indices("on the left side", "`Y[n,m] = …`, and compute on the right side")
        if self.at != equals:
            whole = Span(first.span.start, self.tokens[equals - 1].span.end)
            raise self.error("the left side is one name with its indices", whole, more="type `Y[n,m] = …`")
        self.at += 1
        return first.text, indices

    def no_left(self) -> FormulaError:
        """The error for a statement without ``=``."""
        first, depth = self.peek(), 0
        while (token := self.take()).kind != "end":
            depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
            if token.text == "==" and not depth:
                return self.error("`==` compares, it does not assign", token.span, more="type `=`")
        whole = Span(first.span.start, token.span.start)
        if first.text in ("+", "-", "*", "/", "**"):
            more = "a line ends its statement; to go on, put the right side in parentheses"
            return self.error(f"a statement begins with `{first.text}`", first.span, more=more)
        more = f"type the result first: `Y[n,m] = {_quoted(self.text[slice(*whole)])[1:]}"
        return self.error("the left side is missing", whole, more=more)

    def reserve(self, token: Token) -> None:
        """Refuse a reserved name where a tensor's or an index's name stands."""
        name = token.text
        if name in RESERVED:
            use = f"{USE[name]}, or another name" if name in USE else "another name"
            raise self.error(f"`{name}` is {RESERVED[name]}", token.span, more=f"type {use} such as `{name}1`")

    def indices(self, where: str, right: str) -> tuple[LeftIndex, ...]:
        """The index names of a left side or a reduction, and their closing bracket."""
        indices: list[LeftIndex] = []
        if self.peek().text == "]":
            self.at += 1
            return ()
        while True:
            token = self.take()
            if token.text == LEADING and indices:
                raise self.leading(token)
            if token.kind == "name":
                self.reserve(token)
            elif token.text != LEADING:
                raise self.error(f"{where} stand only names of indices", token.span, more=f"type {right}")
            for index in indices:
                if index.name == token.text:
                    fact = f"the index {_quoted(token.text)} stands twice {where}"
                    raise self.error(fact, index.span, token.span, more="leave one out, or give it a name of its own")
            if len(indices) == MAX_INDICES:
                more = "join axes, or derive with fewer"
                raise self.error(f"more than {MAX_INDICES} indices", token.span, more=more)
            indices.append(LeftIndex(token.text, token.span))
            token = self.take()
            if token.text == "]":
                return tuple(indices)
            if token.text != ",":
                raise self.error(f"{where} stand only names of indices", token.span, more=f"type {right}")

    def sum(self) -> Node:
        start = self.peek().span.start
        terms = [Summand(self.product(), False)]
        while (token := self.peek()).text in ("+", "-"):
            if len(terms) == MAX_OPERANDS:
                more = "give parts of it names in statements of their own"
                raise self.error(f"a sum of more than {MAX_OPERANDS:,} terms", token.span, more=more)
            self.at += 1
            terms.append(Summand(self.product(), token.text == "-"))
        return Sum(self.since(start), tuple(terms)) if len(terms) > 1 else terms[0].node

    def product(self) -> Node:
        start = group = self.peek().span.start  # of the product, and of the juxtaposition at hand
        factors = [Factor(self.factor(), False)]
        while (token := self.peek()).text in ("*", "/") or self.begins_operand():
            if len(factors) == MAX_OPERANDS:
                more = "give parts of it names in statements of their own"
                raise self.error(f"a product of more than {MAX_OPERANDS:,} factors", token.span, more=more)
            if token.text in ("*", "/"):
                self.at += 1
                group = self.peek().span.start
            elif factors[-1].divides:
                raise self.after_division(start, group)
            elif token.kind == "number":
                raise self.late_number(group)
            factors.append(Factor(self.factor(), token.text == "/"))
        return Product(self.since(start), tuple(factors)) if len(factors) > 1 else factors[0].node

    def after_division(self, start: int, divisor: int) -> FormulaError:
        """The error for c in ``a/b c``, of which a begins at ``start`` and b at ``divisor``."""
        above = self.text[start:divisor].rstrip().removesuffix("/").rstrip()
        below = self.words(divisor)
        begin, number = self.peek().span.start, self.peek().kind == "number"
        self.factor()
        while self.begins_operand() and self.peek().kind != "number":
            self.factor()
        rest = self.words(begin)
        inside, outside = f"{above}/({below}{'*' if number else ' '}{rest})", f"{above}/{below}*{rest}"
        more = f"type {_quoted(inside)} or {_quoted(outside)}"
        return self.error("after `/`, factors side by side can be read in two ways", self.since(begin), more=more)

    def late_number(self, group: int) -> FormulaError:
        """The error for 2 in ``x 2``, of which x begins at ``group``."""
        before, begin = self.words(group), self.peek().span.start
        self.factor()
        number = self.words(begin)
        more = f"type {_quoted(f'{before}*{number}')}"
        if before[0] != "-" and before[0] != "." and not before[0].isdigit():
            more = f"type {_quoted(f'{number} {before}')} or {_quoted(f'{before}*{number}')}"
        return self.error("of factors side by side, only the first may be a number", self.since(begin), more=more)

    def factor(self) -> Node:
        signs = []
        while self.peek().text == "-":
            self.deeper(self.peek())
            signs.append(self.take().span.start)
        start = self.peek().span.start
        node = self.operand()
        if self.peek().text == "**":
            self.deeper(self.take())
            if self.peek().text == "+":
                self.at += 1
            exponent = self.factor()
            self.depth -= 1
            node = Power(self.since(start), node, exponent)
        for sign in reversed(signs):
            node = Negative(self.since(sign), node)
        self.depth -= len(signs)
        return node

    def operand(self) -> Node:
        if not self.begins_operand():
            raise self.missing()
        token = self.take()
        name, following = token.text, self.peek().text
        if token.kind == "number":
            return Number(token.span, self.value(token))
        if name == "(":
            self.deeper(token)
            node = self.sum()
            self.close()
            return node
        if name == "[":
            return self.bracket(token)
        if following == "[" and name in REDUCTIONS:
            return self.reduction(token)
        if following == "(":
            return self.size(token) if name == "size" else self.call(token)
        self.reserve(token)
        if following == "[":
            return self.access(token)
        node = Name(token.span, name)
        if self.positions:
            self.letters.add(name)
        else:
            self.bare.append(node)
        return node

    def value(self, token: Token) -> Fraction:
        mantissa, _, exponent = token.text.lower().partition("e")
        if len(mantissa.replace(".", "")) <= MAX_DIGITS and len(exponent) <= 4:
            value = Fraction(token.text)
            if not value or 1 / LARGEST <= value <= LARGEST:
                return value
        fact = f"a number has at most {MAX_DIGITS} digits and lies between 1e-300 and 1e300"
        raise self.error(fact, token.span, more="type fewer digits, or pass the number as a scalar such as `c`")

    def access(self, name: Token) -> Node:
        self.reads.setdefault(name.text, name.span)
        self.deeper(self.take())
        self.positions += 1
        places: list[Node] = []
        while self.peek().text != "]" or places:
            token = self.peek()
            if len(places) == MAX_INDICES:
                more = "join axes, or derive with fewer"
                raise self.error(f"more than {MAX_INDICES} indices", token.span, more=more)
            if token.text == LEADING and not places:
                self.at += 1
                places.append(Leading(token.span))
            else:
                places.append(self.side())
            if self.peek().text in COMPARISONS:
                self.at += 1
                self.side()
                span = self.since(token.span.start)
                more = f"a scalar times a bracket is {_quoted(f'{name.text}*[{self.text[slice(*span)]}]')}"
                raise self.error(f"a condition stands in the index list of {_quoted(name.text)}", span, more=more)
            if self.peek().text != ",":
                break
            self.at += 1
        self.close()
        self.positions -= 1
        if name.text in NO_TENSORS and self.peek().text == "(":
            raise self.error(
                f"there is no function {_quoted(name.text)}", name.span, more=f"write {_quoted(WRITTEN[name.text])}"
            )
        return Access(self.since(name.span.start), name.text, tuple(places))

    def side(self) -> Node:
        """An index position or one side of a condition: an expression, or a boundary mode around one."""
        token = self.peek()
        if token.text not in MODES or self.tokens[self.at + 1].text != "(":
            return self.sum()
        self.at += 1
        self.deeper(self.take())
        self.positions += 1
        position = self.sum()
        self.close()
        self.positions -= 1
        if self.peek().text not in ("]", ",", "=", *COMPARISONS):
            raise self.inner_mode(token)
        return Mode(self.since(token.span.start), token.text, position)

    def condition(self) -> Node:
        """A `Compare`; an expression if no comparison follows it, which the caller judges."""
        start = self.peek()
        left, op = self.side(), self.peek()
        if op.text == "=":
            raise self.error("`=` assigns, it does not compare", op.span, more="type `==`")
        if op.text not in COMPARISONS:
            if isinstance(left, Mode):
                raise self.inner_mode(start)
            return left
        self.at += 1
        right, following = self.side(), self.peek()
        if following.text in COMPARISONS:
            self.at += 1
            self.side()
            first = self.text[start.span.start : following.span.start].rstrip()
            second = self.words(op.span.end).strip()
            more = f"type {_quoted(f'[{first}]*[{second}]')}"
            raise self.error("two comparisons in one condition", op.span, following.span, more=more)
        compare = Compare(self.since(start.span.start), op.text, left, right)
        for side, other in ((left, right), (right, left)):
            if isinstance(side, Mode):
                if op.text != "==" or not isinstance(other, Name):
                    more = f"type `[i == {side.mode}(…)]`"
                    raise self.error(f"`{side.mode}` stands against a bare index under `==`", compare.span, more=more)
                self.letters.add(other.name)
        return compare

    def bracket(self, opening: Token) -> Node:
        before = self.tokens[self.at - 2].text
        self.deeper(opening)
        more = "type a condition: `[i == j]`"
        if before == "]":
            more = "to index, put all indices into one list: `A[i,j]`"
        elif before == ")":
            more = "only a name is indexed; give this one in a statement of its own: `A[i] = …`"
        condition = None if self.peek().text == "]" else self.condition()
        if not isinstance(condition, Compare):
            self.at += self.peek().text == "]"
            raise self.error("this bracket holds no comparison", self.since(opening.span.start), more=more)
        self.close()
        return Bracket(self.since(opening.span.start), condition)

    def call(self, token: Token) -> Node:
        name = token.text
        if name in MODES:
            raise self.inner_mode(token)
        if name in REDUCTIONS and name not in FUNCTIONS:
            raise self.error(f"`{name}` does not say over which index", token.span, more=f"type {USE[name]}")
        if name not in FUNCTIONS:
            self.reserve(token)
            known = "log" if name == "ln" else "".join(difflib.get_close_matches(name.lower(), USE, 1))
            meant = f"did you mean {USE[known]}? " if known else ""
            more = f"{meant}a scalar times a parenthesis is {_quoted(f'{name}*(…)')}"
            if name.lower() in WRITTEN:
                more = f"write {_quoted(WRITTEN[name.lower()])}"
            raise self.error(f"there is no function {_quoted(name)}", token.span, more=more)
        self.deeper(self.take())
        arguments: list[Node] = []
        while self.peek().text != ")" or arguments:
            arguments.append(self.condition() if name == "where" and not arguments else self.sum())
            if self.peek().text != ",":
                break
            self.at += 1
        self.close()
        span, count = self.since(token.span.start), FUNCTIONS[name]
        if len(arguments) != count:
            right = "where(x[i] > 0, …, …)" if name == "where" else f"{name}({', '.join('…' * count)})"
            more = f"type `{right}`" + (f"; over an index it is {USE[name]}" if name in REDUCTIONS else "")
            fact = f"`{name}` takes {count} argument{'s'[: count > 1]}, not {len(arguments)}"
            raise self.error(fact, span, more=more)
        if name == "where":
            condition = arguments[0]
            if isinstance(condition, Bracket):
                arguments[0] = condition.condition
            elif not isinstance(condition, Compare):
                fact = "the first argument of `where` is a condition"
                raise self.error(fact, condition.span, more="type `where(x[i] > 0, …, …)`")
        return Call(span, name, tuple(arguments))

    def reduction(self, token: Token) -> Node:
        kind = token.text
        self.at += 1
        names = tuple(index.name for index in self.indices(f"behind `{kind}`", f"`{kind}[i,j](…)`"))
        if not names:
            raise self.error(f"`{kind}` names no index", self.since(token.span.start), more=f"type {USE[kind]}")
        self.letters.update(names)
        opening = self.peek()
        self.deeper(opening)
        if opening.text == "(":
            self.at += 1
            body = self.sum()
            self.close()
        elif opening.text == "-" or self.begins_operand():
            body = self.product()
            self.depth -= 1
        else:
            head = self.since(token.span.start)
            more = f"type {_quoted(f'{self.text[slice(*head)]}(…)')}"
            raise self.error(f"nothing follows for `{kind}` to reduce", head, opening.span, more=more)
        return Reduce(self.since(token.span.start), kind, names, body)

    def size(self, token: Token) -> Node:
        self.at += 1
        index = self.peek()
        if index.kind != "name" or self.tokens[self.at + 1].text != ")":
            raise self.error("`size` takes the name of one index", index.span, more="type `size(n)`")
        self.reserve(index)
        self.letters.add(index.text)
        self.at += 2
        return Size(self.since(token.span.start), index.text)

    def inner_mode(self, token: Token) -> FormulaError:
        mode = token.text
        fact = f"`{mode}` stands around a whole index position, or on one side of `==`"
        return self.error(fact, token.span, more=f"type `x[{mode}(i+1)]` or `[i == {mode}(j+1)]`")

    def leading(self, token: Token) -> FormulaError:
        return self.error("`...` stands only first in an index list", token.span, more="type for example `X[...,d]`")

    def missing(self) -> FormulaError:
        """The error for a token where an operand should begin."""
        before, token = self.tokens[self.at - 1], self.peek()
        if token.text == LEADING:
            return self.leading(token)
        if token.kind == "end" and before.text == "=":
            return self.error("the right side is missing", token.span, more="type what the left side is equal to")
        if token.text == "+":
            return self.error("a `+` without a left operand", token.span, more="leave it out")
        if token.text == "\n" and self.at + 1 < len(self.tokens):
            more = "a line ends its statement; to go on, put the right side in parentheses"
        elif token.kind == "end":
            more = f"type one, or leave out the `{before.text}`"
        else:
            more = "type one there"
        between = f"after `{before.text}`" if token.kind == "end" else f"between `{before.text}` and `{token.text}`"
        return self.error(f"a value is missing {between}", token.span, more=more)

    def misplaced(self, token: Token) -> FormulaError:
        """The error for a token that cannot follow a whole expression."""
        if token.text in COMPARISONS:
            more = f"type `[a {token.text} b]`, which is 1 or 0, or `where(a {token.text} b, …, …)`"
            return self.error("a comparison stands only in a bracket or first in `where`", token.span, more=more)
        if token.text == "=":
            more = "type `==` to compare, or `;` before the next statement"
            return self.error("a second `=` in one statement", token.span, more=more)
        if token.text == LEADING:
            return self.leading(token)
        if token.text == ",":
            more = "type a decimal point as `.`, or leave the comma out"
            return self.error("a comma stands only between indices or arguments", token.span, more=more)
        before = self.tokens[self.at - 1].text
        return self.error(f"`{token.text}` cannot follow `{before}`", token.span, more="type for example `X[...,d]`")
