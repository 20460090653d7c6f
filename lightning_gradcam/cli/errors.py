"""What can be wrong with a call."""

from __future__ import annotations

from lightning_gradcam.utils.sanitize import escape_terminal


class WrongCallError(Exception):
    """The command was called in a way that it cannot serve; the message is one line with the remedy."""


def to_one_line(error: BaseException) -> str:
    r"""What an error says, in a line that a terminal can show.

    >>> to_one_line(ValueError("a first\n\tand a \x1b[31msecond line"))
    'a first and a ?[31msecond line'
    """
    return escape_terminal(" ".join(str(error).split()) or type(error).__name__)


def describe_error(error: BaseException) -> str:
    """The same with the kind of error in front, for errors of code that is not ours."""
    said = to_one_line(error)
    name = type(error).__name__
    return said if said == name else f"{name}: {said}"
