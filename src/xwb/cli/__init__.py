"""The command ``xwb``: one thin file per sub-command; mistakes get one line, not a traceback.

A mistake in a formula gets several: the formula and a caret under the character.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import click

from .. import __version__
from ..core import DivergedError, FormulaError, ProofError, RunError, XwbError
from ._check import check
from ._derive import derive
from ._evaluate import evaluate
from ._gallery import gallery
from ._output import complain, drop_output, point_out, ready_output
from ._predict import predict
from ._prove import prove
from ._signals import Interrupted, signals_raise
from ._train import train

EPILOG = """\b
Exit codes:
  0    done
  1    the work failed or its result is wrong: a gradient that disagrees, your
       function that raises, a training that diverged, a full disk
  2    a mistake in the call: an option, a file, a folder or a formula
  130  interrupted (Ctrl-C, SIGTERM or SIGHUP); what was reached is kept"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xwb", message="%(prog)s %(version)s")
def commands() -> None:
    """Y = XW + b and its backward pass: trained with, checked, proved, written down."""


commands.add_command(train)
commands.add_command(predict)
commands.add_command(evaluate)
commands.add_command(derive)
commands.add_command(check)
commands.add_command(prove)
commands.add_command(gallery)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line ``args`` (default: that of the process, which then is to end) and return the exit code."""
    ready_output()
    with signals_raise(to_the_end=args is None):
        try:
            return _run(list(sys.argv[1:] if args is None else args))
        except Interrupted:
            complain("interrupted")
            return 130


def _run(words: list[str]) -> int:
    try:
        code = commands.main(words, "xwb", standalone_mode=False, obj=["xwb", *words])
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        if error.ctx and isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            click.echo(error.ctx.get_help(), err=True)
            return 2
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        complain(error.format_message() + where)
        return 2
    except click.ClickException as error:
        complain(error.format_message())
        return 2
    except FormulaError as error:
        point_out(str(error))
        return 2
    except XwbError as error:
        complain(str(error))
        return _code(error)
    except BrokenPipeError:  # the reader of our output, say head, has seen enough
        drop_output()
        return 0
    except (OSError, MemoryError) as error:
        drop_output()
        complain(str(error) or "out of memory")
        return 1


def _code(error: XwbError) -> int:
    """1 where the world failed, 2 where the call was a mistake."""
    cause = error.__cause__
    failed = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return 1 if isinstance(error, ProofError | DivergedError) or (isinstance(error, RunError) and failed) else 2
