"""Registries of entries by name: a dictionary, a decorator, and an error that suggests the closest name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_MOST_CHOICES = 40


def unknown_name_error(noun: str, name: str, choices: Iterable[str]) -> ValueError:
    """Create the error for an unknown name; its message suggests the closest names.

    >>> str(unknown_name_error("method", "grad-cam", ["gradcam", "hirescam"]))
    "Expected the name of a method, but got 'grad-cam'. Did you mean 'gradcam'? Choices: 'gradcam', 'hirescam'."
    """
    names = sorted(choices)
    close = [n for n in names if n.endswith(f".{name}")] + difflib.get_close_matches(name, names, n=3)
    close = close or [n for n in names if n.lower() == name.lower()]
    suggestion = f" Did you mean {' or '.join(repr(n) for n in dict.fromkeys(close))}?" if close else ""
    listing = ", ".join(repr(n) for n in names[:_MOST_CHOICES])
    if len(names) > _MOST_CHOICES:
        listing += f", ... ({len(names)} in all)"
    article = "an" if noun[0] in "aeiou" else "a"
    return ValueError(f"Expected the name of {article} {noun}, but got {name!r}.{suggestion} Choices: {listing}.")


class Registry(dict[str, T]):
    """A dictionary of entries that users select by name.

    Args:
        noun: The kind of entry, for the error message.

    >>> shapes = Registry[int]("shape")
    >>> _ = shapes.register("square")(4)
    >>> shapes.resolve("square")
    4
    """

    def __init__(self, noun: str) -> None:
        super().__init__()
        self.noun = noun

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers an entry as ``name``; a later entry replaces an earlier one."""

        def enter(entry: T) -> T:
            self[name] = entry
            return entry

        return enter

    def resolve(self, name: str) -> T:
        """Return the entry registered as ``name``. (``get`` is `dict.get`, which raises nothing.)

        Raises:
            ValueError: No entry has that name; the message suggests the closest.
        """
        if name not in self:
            raise unknown_name_error(self.noun, name, self)
        return self[name]
