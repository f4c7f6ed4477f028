"""The walls: who imports whom, which names are public, what an import costs, what stays out of files."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xwb

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "xwb"

BELOW_ADAPTERS = {"core", "pages", "layers", "algebra", "runs", "data", "proof", "training", "reports"}
MAY_IMPORT = {
    "core": set(),
    "pages": set(),
    "layers": {"core"},
    "algebra": {"core", "pages"},
    "runs": {"core"},
    "data": {"core"},
    "proof": {"core", "layers", "algebra"},
    "training": {"core", "layers", "runs", "data"},
    "reports": {"core", "pages", "layers", "algebra", "proof", "training", "runs", "data"},
    "adapters": BELOW_ADAPTERS,
    "cli": BELOW_ADAPTERS | {"adapters", "xwb"},
    "xwb": BELOW_ADAPTERS,  # the package's own __init__
}
# Packages beyond NumPy and the standard library, and the one room that may import each.
PACKAGES = {
    "scipy": {"core", "layers", "algebra"},
    "click": {"cli"},
    "rich": {"cli"},
    "safetensors": {"runs"},
    "torch": {"adapters"},
    "jax": {"adapters"},
    "sklearn": {"adapters"},
    "onnx": {"adapters"},
    "pyarrow": {"data"},
}
PUBLIC = [
    "Adam",
    "AdamW",
    "DataError",
    "DivergedError",
    "DtypeError",
    "FactoredGradient",
    "FormulaError",
    "Layer",
    "Loss",
    "OptionError",
    "ProofError",
    "RunError",
    "SGD",
    "ShapeError",
    "XwbError",
    "__version__",
    "append_ones",
    "chain",
    "check",
    "clip_per_example",
    "derive",
    "fold_bias",
    "gelu",
    "jacobian",
    "linear",
    "multiclass_hinge",
    "prove",
    "relu",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
    "tanh",
    "train",
]


def room_of(path: Path) -> str:
    """The room a source file stands in; the package's top is ``xwb``, ``__main__`` belongs to ``cli``."""
    parts = path.relative_to(SOURCE).parts
    if len(parts) > 1:
        return parts[0]
    return "cli" if parts[0] == "__main__.py" else "xwb"


def imports(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """``(line, module, name)`` of every import, wherever it stands; relative ones made absolute."""
    package = ("xwb", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def offences(path: Path, text: str) -> list[str]:
    """What the imports of one file break of the table above."""
    here, found = room_of(path), []
    for line, module, name in imports(path, text):
        top, *inside = module.split(".")
        where = f"{path.relative_to(SOURCE)}:{line}: {here} imports {module}{'.' + name if name else ''}"
        if top == "xwb":
            if not inside and name in MAY_IMPORT:
                inside = [name]  # `from .. import core`
            there = inside[0] if inside else "xwb"
            if there != here and there not in MAY_IMPORT[here]:
                found.append(f"{where}; it may import {', '.join(sorted(MAY_IMPORT[here])) or 'no room'}")
            elif there != here and (len(inside) > 1 or re.fullmatch(r"_\w*(?<!__)", name)):
                found.append(f"{where}; only a room's public face may be imported from outside")
        elif top in PACKAGES:
            if here not in PACKAGES[top]:
                found.append(f"{where}; only {', '.join(sorted(PACKAGES[top]))} may")
            elif here == "adapters" and path.stem != top:
                found.append(f"{where}; only the file of that library may")
        elif top != "numpy" and top not in sys.stdlib_module_names:
            found.append(f"{where}, a package that the table does not know")
    return found


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_in_one_direction(path):
    assert offences(path, path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/_layer.py", "from ..layers import linear"),
        ("layers/_linear.py", "from ..algebra import derive"),
        ("algebra/_text.py", "import xwb.layers"),
        ("layers/_linear.py", "from .. import linear"),
        ("layers/_linear.py", "from ..core._blas import product"),
        ("layers/_linear.py", "from xwb.core import _blas"),
        ("proof/_check.py", "def f():\n    from .. import training"),
        ("training/_loop.py", "import torch"),
        ("adapters/torch.py", "from ..proof._subject import Subject"),
        ("adapters/jax.py", "import torch"),
        ("adapters/__init__.py", "import torch"),
        ("proof/_check.py", "from ..adapters import torch"),
        ("proof/_check.py", "import click"),
        ("core/_blas.py", "import requests"),
        ("__init__.py", "from .cli import main"),
    ],
)
def test_the_import_test_can_fail(file, line):
    assert offences(SOURCE / file, line)


def test_the_table_knows_every_room():
    assert {room_of(path) for path in source_files()} <= set(MAY_IMPORT)


def test_implementation_files_start_with_an_underscore():
    assert [p.name for p in source_files() if not p.name.startswith("_") and room_of(p) != "adapters"] == []


def test_public_names():
    assert sorted(xwb.__all__) == sorted(PUBLIC)
    assert [name for name in PUBLIC if not hasattr(xwb, name)] == []
    public = {n for n, value in vars(xwb).items() if not n.startswith("_") and not inspect.ismodule(value)}
    assert public <= set(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_public_objects_are_documented(name):
    thing = getattr(xwb, name)
    assert inspect.getdoc(thing), f"xwb.{name} has no docstring"
    if isinstance(thing, xwb.Layer | xwb.Loss):  # their own, not their class's
        assert inspect.getdoc(thing) != inspect.getdoc(type(thing))
    elif inspect.isclass(thing):
        undocumented = [
            member
            for member, value in vars(thing).items()
            if not member.startswith("_") and callable(value) and not inspect.getdoc(value)
        ]
        assert undocumented == []


def test_version_is_that_of_the_project():
    """What pip was told when it installed the package is what the package says."""
    assert xwb.__version__ == importlib.metadata.version("xwb")


def test_import_is_light():
    """`import xwb` reads neither SciPy nor what only the command or `derive` needs; that keeps it under 0.2 s."""
    heavy = ["scipy", "click", "rich", "safetensors", "torch", "jax", "sklearn", "pyarrow", "pytest"]
    heavy += ["xwb.algebra._derivation", "xwb.adapters"]
    code = f"import sys, xwb; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


# This checkout, this home and anybody's home. A place of one part, as "/" or "/build", may stand in a file by right.
PLACES = [re.escape(str(place)) for place in (ROOT, Path.home()) if len(place.parts) > 2]
MACHINE_PATH = re.compile(r"(?<![\w.~-])(?:" + "|".join([*PLACES, r"/(?:home|root|Users)/\w"]) + ")")
REGISTRY = re.compile(r"pypi\.org|python[h]osted|deb\.debian\.org|npmjs\.org|file:/[/]/opt", re.IGNORECASE)


def text_files() -> list[Path]:
    """What git tracks or would track; without git (an unpacked archive) every file."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "registry hosts"])
def test_files_name_no_machine(pattern):
    found = []
    for path in text_files():
        match = pattern.search(path.read_text("utf-8"))
        if match:
            found.append(f"{path.relative_to(ROOT)}: {match[0]!r}")
    assert found == []


def test_the_machine_patterns_match():
    assert MACHINE_PATH.search("in /" + "root/x")
    assert MACHINE_PATH.search("in /" + "home/somebody")
    assert not MACHINE_PATH.search("example.org/" + "home/page")
    assert REGISTRY.search("https://pypi" + ".org/simple")
