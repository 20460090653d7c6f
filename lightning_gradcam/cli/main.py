"""Where the command begins and ends: words in, an exit code out, and never a traceback that nobody asked for."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_gradcam.cli.errors import WrongCallError, describe_error, to_one_line

if TYPE_CHECKING:
    from lightning_gradcam.cli.parser import ParsedArgs


USAGE, UNREADABLE, INTERRUPTED = 2, 4, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and say how it ended: see `options.EXITS`.

    Args:
        argv: Its words; by default those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        import jsonargparse  # noqa: F401  an extra: what follows needs it
    except ImportError:
        return _said("the command line needs jsonargparse: pip install 'lightning_gradcam[cli]'", USAGE)
    from lightning_gradcam.cli.parser import parse

    try:
        asked = parse(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    except WrongCallError as error:
        return _said(to_one_line(error), USAGE)
    sys.path.insert(0, "")  # the models and data of the folder where one stands, as `python -m` finds them
    try:
        return _run(asked)
    # What the user's own code raises would end the process with 1, and that means regressed.
    except (Exception, SystemExit) as error:
        if asked.options.traceback:
            traceback.print_exc()
        return _said(f"{describe_error(error)} (--traceback shows where)", USAGE)
    except KeyboardInterrupt:
        return _said("interrupted", INTERRUPTED)
    finally:
        sys.path.remove("")


def _run(asked: ParsedArgs) -> int:
    from lightning_gradcam.cli.commands import WORK
    from lightning_gradcam.errors import IncompatibleError, UnreadableError

    try:
        return WORK[asked.command](asked)
    except WrongCallError as error:
        return _said(to_one_line(error), USAGE)
    except UnreadableError as error:
        return _said(to_one_line(error), UNREADABLE)
    except IncompatibleError as error:
        return _said(f"incompatible: {to_one_line(error)}", UNREADABLE)


def _said(message: str, code: int) -> int:
    sys.stderr.write(f"lightning-gradcam: {message}\n")
    return code
