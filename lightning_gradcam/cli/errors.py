"""Usage errors, and the formatting of errors as one line."""

from __future__ import annotations

from lightning_gradcam.utils.sanitize import escape_terminal


class UsageError(Exception):
    """An invalid call of the command; the message is one line and says what to do."""


def to_one_line(error: BaseException | str) -> str:
    r"""Return an error's message, or a text, as one line that is safe for a terminal.

    >>> to_one_line(ValueError("a first\n\tand a \x1b[31msecond line"))
    'a first and a ?[31msecond line'
    """
    return escape_terminal(" ".join(str(error).split()) or type(error).__name__)


def describe_error(error: BaseException) -> str:
    """Return an error's message as one line after its type, for errors raised by other code."""
    message = to_one_line(error)
    name = type(error).__name__
    return message if message == name else f"{name}: {message}"
