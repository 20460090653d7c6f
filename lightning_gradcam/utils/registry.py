"""Names for choices: a dictionary, a decorator, and an error that offers the closest name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def unknown_name_error(noun: str, name: str, choices: Iterable[str]) -> ValueError:
    """The error for a name that is not there, with the closest ones that are.

    >>> str(unknown_name_error("method", "grad-cam", ["gradcam", "hirescam"]))
    "Expected the name of a method, but got 'grad-cam'. Did you mean 'gradcam'? Choices: 'gradcam', 'hirescam'."
    """
    names = sorted(choices)
    close = [n for n in names if n.endswith(f".{name}")] + difflib.get_close_matches(name, names, n=3)
    close = close or [n for n in names if n.lower() == name.lower()]
    offer = f" Did you mean {' or '.join(repr(n) for n in dict.fromkeys(close))}?" if close else ""
    shown = ", ".join(repr(n) for n in names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    return ValueError(f"Expected the name of a {noun}, but got {name!r}.{offer} Choices: {shown}.")


class Registry(dict[str, T]):
    """What can be chosen by name.

    >>> shapes = Registry[int]("shape")
    >>> _ = shapes.register("square")(4)
    >>> shapes.named("square")
    4
    """

    def __init__(self, noun: str) -> None:
        super().__init__()
        self.noun = noun

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that makes an entry available as ``name``; a later entry replaces an earlier one."""

        def enter(entry: T) -> T:
            self[name] = entry
            return entry

        return enter

    def named(self, name: str) -> T:
        """The entry of that name.

        Raises:
            ValueError: No entry has that name; the message offers the closest.
        """
        if name not in self:
            raise unknown_name_error(self.noun, name, self)
        return self[name]
