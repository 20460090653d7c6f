"""Output of the command: text on the terminal, and reports as files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from lightning_gradcam.cli.errors import UsageError
from lightning_gradcam.utils.files import write_atomic


class Printable(Protocol):
    """An object that can be rendered in four formats, such as a report or the summary of a baseline."""

    def text(self) -> str:
        """Render for a terminal."""

    def markdown(self) -> str:
        """Render for a comment on a pull request."""

    def json(self) -> str:
        """Render for programs."""

    def html(self) -> str:
        """Render as a page with figures."""


_RENDERERS: Mapping[str, Callable[[Printable], str]] = {
    ".html": lambda printable: printable.html(),
    ".md": lambda printable: printable.markdown(),
    ".json": lambda printable: printable.json(),
    ".txt": lambda printable: printable.text() + "\n",
}


def check_suffixes(paths: Sequence[str]) -> None:
    """Raise a UsageError for a path whose suffix is not that of a format."""
    for path in paths:
        if Path(path).suffix not in _RENDERERS:
            raise UsageError(f"Expected a report file that ends in {', '.join(_RENDERERS)}, but got {path!r}.")


def write_files(printable: Printable, paths: Sequence[str]) -> None:
    """Write each file in the format of its suffix.

    Raises:
        UsageError: A file could not be written.
    """
    for path in paths:
        content = _RENDERERS[Path(path).suffix](printable).encode()
        with raise_write_errors(path):
            write_atomic(path, content)
        print_text(f"wrote {path}")


@contextmanager
def raise_write_errors(path: str) -> Iterator[None]:
    """Raise what the file system refuses, such as a full disk or a read-only folder, as a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path!r} could not be written: {error.strerror or error}.") from error


def print_text(text: str) -> None:
    """Print text, with "?" for characters that the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
