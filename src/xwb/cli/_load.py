"""What a user's file defines, named on the command line as ``FILE.py:NAME``."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Spec(NamedTuple):
    """``FILE.py``, ``FILE.py:NAME`` or ``FILE.py:FORWARD,BACKWARD``."""

    file: Path
    names: tuple[str, ...]


def spec(text: str) -> Spec | None:
    """The file and the names in it; None where no Python file is named."""
    match = re.fullmatch(r"(.+\.py)(?::(.*))?", text, re.DOTALL)
    if match is None:
        return None
    return Spec(Path(match[1]), tuple(name.strip() for name in match[2].split(",")) if match[2] else ())


def load(where: Spec, default: tuple[str, ...] = ()) -> Any:
    """Run the file and return what is named in it: one thing, or a pair of functions.

    Args:
        default: the names where none is given.

    Raises:
        OptionError: there is no such file or no such name in it; nothing is named; running the file raises.
    """
    from ..algebra import Derivation
    from ..core import Layer, Loss, OptionError, unknown

    names = where.names or default
    if len(names) > 2:
        raise OptionError(f"{where.file}:{','.join(names)} names {len(names)} things; type FILE.py:FORWARD,BACKWARD")
    module = _run(where.file)
    if not names:
        own = [key for key, thing in module.items() if isinstance(thing, Layer | Loss | Derivation)]
        defines = f"it defines {', '.join(own)}" if own else "it defines no layer"
        raise OptionError(f"{where.file} alone names no layer, and {defines}; type  {where.file}:NAME")
    found = []
    for name in names:
        first, *attributes = name.split(".")
        if first not in module:
            own = [key for key in module if not key.startswith("_")]
            raise OptionError(
                f"{where.file.name} defines no {name}{unknown(name, own)}; it defines {', '.join(own) or 'nothing'}"
            )
        thing = module[first]
        for attribute in attributes:
            if not hasattr(thing, attribute):
                raise OptionError(f"{where.file.name}: {first} has no attribute {attribute}")
            thing = getattr(thing, attribute)
        found.append(thing)
    return found[0] if len(found) == 1 else tuple(found)


def _run(file: Path) -> dict[str, Any]:
    """The names that a file defines, run as a script of its folder but for ``__name__``."""
    from ..core import OptionError
    from ..proof import own_line, raised

    if not file.is_file():
        raise OptionError(f"there is no file {file}" if not file.exists() else f"{file} is no file")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    description = importlib.util.spec_from_file_location(file.stem, file)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules.setdefault(file.stem, module)  # dataclasses look for the module that they stand in
    try:
        description.loader.exec_module(module)
    except SyntaxError as error:
        raise OptionError(f"{Path(error.filename or file).name}:{error.lineno}: {error.msg}") from None
    except SystemExit:
        raise OptionError(
            f'{file.name} ends the program when it is run; put that under  if __name__ == "__main__":'
        ) from None
    except Exception as error:
        raise OptionError(f"{own_line(error) or file.name}: running the file {raised(error)}") from None
    return vars(module)


@contextlib.contextmanager
def users_code() -> Iterator[None]:
    """An exception that came through a user's file becomes one line that names it there.

    Raises:
        ProofError: instead of the exception.
    """
    from ..core import ProofError
    from ..proof import own_line, raised

    try:
        yield
    except (Exception, SystemExit) as error:  # a function that ends the program proves nothing
        line = own_line(error)
        if not line:
            raise
        raise ProofError(f"{line}: {raised(error)}") from None
