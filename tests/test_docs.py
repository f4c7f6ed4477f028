"""What the documentation says is run: every Python block and session, every `xwb` command, every link.

The blocks of one document share a namespace and a folder, and run from top to bottom.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
# Shown, not run here: .ci/run runs the first two; benchmarks take minutes.
SHOWN = ("python3 -m venv .venv", ".venv/bin/", "python benchmarks/")


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of its first line in the document, from 1


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        yield Block(match[1], match[2], text[: match.start(2)].count("\n") + 1)


def run_python(block: Block, document: str, namespace: dict[str, object]) -> None:
    code = "\n" * (block.line - 1) + block.text  # so that a traceback names the document's line
    exec(compile(code, document, "exec"), namespace)


def run_session(block: Block, document: str, namespace: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, namespace, document, document, block.line - 1)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(test, out=said.append, clear_globs=False)
    namespace.update(test.globs)
    assert result.attempted, f"{document}:{block.line}: a session without a prompt"
    assert not result.failed, "".join(said)


def run_commands(block: Block, document: str, namespace: dict[str, object]) -> None:
    for command in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if words[:1] == ["xwb"]:
            done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{document}:{block.line}: {command}\n{done.stdout}{done.stderr}"
        else:
            assert not words or command.startswith(SHOWN), f"{document}:{block.line}: unknown command {command}"


def ignore(block: Block, document: str, namespace: dict[str, object]) -> None:
    """Plain text."""


RUN = {"python": run_python, "pycon": run_session, "sh": run_commands, "text": ignore}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    name = str(document.relative_to(ROOT))
    for block in blocks(document.read_text("utf-8")):
        assert block.language in RUN, f"{name}:{block.line}: a block of the language {block.language!r}"
        RUN[block.language](block, name, namespace)


def anchors(path: Path) -> set[str]:
    """The names of a document's headings, as in links."""
    text = FENCE.sub("", path.read_text("utf-8"))
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    dead = []
    for target, anchor in LINK.findall(CODE.sub("", FENCE.sub("", document.read_text("utf-8")))):
        if target.startswith(("https://", "mailto:")):
            continue
        path = document.parent / target if target else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(f"{target}#{anchor}" if anchor else target)
    assert dead == []


def test_readme_starts_with_the_two_set_up_commands():
    first, second = [block.text for block in blocks((ROOT / "README.md").read_text("utf-8")) if block.language == "sh"][
        :2
    ]
    for command in (first, second):
        assert command.count("\n") == 1, "each is one line"
        assert command.startswith("python3 -m venv .venv && "), "each makes its own environment"
    assert first.rstrip().endswith(".venv/bin/xwb train digits")
    assert "-m pytest" in second
    # An open range would pull the newest build, of gigabytes, before the pin is seen.
    assert second.index("torch==") < second.index('".[test]"')


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nassert 1 == 2\n```\n", AssertionError),
        ("```pycon\n>>> 1 + 1\n3\n```\n", AssertionError),
        ("```pycon\n1 + 1\n```\n", AssertionError),
        ("```sh\nxwb no-such-command\n```\n", AssertionError),
        ("```sh\nrm -r nothing\n```\n", AssertionError),
        ("```fortran\nEND\n```\n", KeyError),
    ],
)
def test_a_wrong_block_is_found(text, fault):
    (block,) = blocks(text)
    with pytest.raises(fault):
        RUN[block.language](block, "document", {})


def test_readme_counts_the_lines_to_read():
    sentence = re.search(r"About ([\d,]+) lines.*?\. Then", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    lines = sum(len((ROOT / path).read_text("utf-8").splitlines()) for path, _ in LINK.findall(sentence[0]))
    assert 0.85 < lines / int(sentence[1].replace(",", "")) < 1.15
