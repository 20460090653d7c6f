"""Entry point of the command: converts results and errors to exit codes and one-line messages."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_gradcam.cli.errors import UsageError, describe_error, to_one_line

if TYPE_CHECKING:
    from lightning_gradcam.cli.parser import ParsedArgs


USAGE, UNREADABLE, INTERRUPTED = 2, 4, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, see `parser.EXITS`.

    Args:
        argv: The arguments; by default those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        import jsonargparse  # noqa: F401  an optional dependency of the modules imported below
    except ImportError:
        return _fail("the command line requires jsonargparse: pip install 'lightning_gradcam[cli]'", USAGE)
    from lightning_gradcam.cli.parser import parse

    try:
        args = parse(argv)
    except SystemExit as error:
        return int(error.code or 0)
    except UsageError as error:
        return _fail(to_one_line(error), USAGE)
    sys.path.insert(0, "")  # so that modules in the working directory are importable, as with `python -m`
    try:
        return _run(args)
    # An uncaught error in the user's code would end the process with 1, which means "regressed".
    except (Exception, SystemExit) as error:
        if args.options.traceback:
            traceback.print_exc()
        return _fail(f"{describe_error(error)} (use --traceback for details)", USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    finally:
        sys.path.remove("")


def _run(args: ParsedArgs) -> int:
    from lightning_gradcam.cli.commands import COMMANDS
    from lightning_gradcam.errors import IncompatibleError, UnreadableError

    try:
        return COMMANDS[args.command](args)
    except UsageError as error:
        return _fail(to_one_line(error), USAGE)
    except UnreadableError as error:
        return _fail(to_one_line(error), UNREADABLE)
    except IncompatibleError as error:
        return _fail(f"incompatible: {to_one_line(error)}", UNREADABLE)


def _fail(message: str, exit_code: int) -> int:
    """Write an error message and return the exit code."""
    sys.stderr.write(f"lightning-gradcam: {message}\n")
    return exit_code
