"""A parser whose errors are one line."""

from __future__ import annotations

import re
from argparse import RawDescriptionHelpFormatter
from typing import NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from lightning_gradcam.cli.errors import UsageError, to_one_line


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """A formatter that keeps the line breaks of examples."""


class OneLineParser(ArgumentParser):
    """A parser that raises its errors, so that they are one line without the list of all options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a UsageError."""
        raise UsageError(
            f"{describe_parse_error(message)} (see `{self.prog.replace(' [options]', '')} --help`)"
        ) from ex


def describe_parse_error(message: str) -> str:
    r"""Return jsonargparse's message as one line that names the option.

    >>> describe_parse_error("Parser key \"size\" element 1:\n  Expected a <class 'int'>. Got value: nan")
    'Expected --size to be a whole number, but got nan'
    """
    match = re.fullmatch(
        r"Parser key \"([\w.]+)\"(?: element \d+)?:\s+Expected a <class '(int|float|str)'>\. Got value: (.*)",
        message,
        re.DOTALL,
    )
    if match is None:
        return to_one_line(message)
    kind = {"int": "a whole number", "float": "a number", "str": "text"}[match[2]]
    return f"Expected --{match[1]} to be {kind}, but got {to_one_line(match[3])}"
