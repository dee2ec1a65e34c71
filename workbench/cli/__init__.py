"""The command line (DESIGN section 9). Each verb turns its flags into a spec; `tasks` does the
work, here or as a job.

Exit codes: 0 done; 2 bad input, with one line on stderr; 130 stopped by Ctrl-C, to be resumed; 1 a
fault of the program.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from ..plugins import load_from_environment
from ..records import BadInput
from .flags import app

# The order of --help.
# isort: off
from . import profile, plan, distill, compare, reproduce, jobs  # noqa: F401
# isort: on

# the base of all complaints about arguments; typer keeps its click private
UsageError: type[Any] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        sys.exit(run())
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def run(arguments: list[str] | None = None) -> int:
    """The exit code; every expected error becomes one line on stderr."""
    try:
        load_from_environment()
        return int(
            app(
                (sys.argv[1:] if arguments is None else arguments) or ["--help"],
                standalone_mode=False,
            )
            or 0
        )
    except BadInput as error:
        return fail(str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        return fail("interrupted", 130)
    except UsageError as error:
        return fail(
            " ".join(error.format_message().split()).rstrip(".") + "; see `workbench --help`", 2
        )
    except Exception as error:
        if type(error).__name__ != "Stopped":
            raise
        return fail(
            f"stopped; go on with `workbench jobs resume {error}`" if str(error) else "stopped", 130
        )


def fail(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
