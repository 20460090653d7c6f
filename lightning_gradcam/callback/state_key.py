"""The keys of callbacks in checkpoints, and the tags that they are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_gradcam.loggers import sanitize_tag


class StateKey(str):
    """A key that equals its text, but not the key of another callback with the same text.

    The Trainer refuses callbacks with equal keys, in an error that does not say which argument to change. It accepts
    these keys, so that `check_tags` can raise an error that does, before anything runs.

    >>> StateKey("a", owner=1) == "a", StateKey("a", owner=1) == StateKey("a", owner=2)
    (True, False)
    """

    __slots__ = ("owner",)
    owner: object

    def __new__(cls, text: str, owner: object) -> StateKey:
        """Create the key of a callback, its owner."""
        key = super().__new__(cls, text)
        key.owner = owner
        return key

    def __eq__(self, value: object) -> bool:
        if isinstance(value, StateKey) and self.owner is not value.owner:
            return False
        return str.__eq__(self, value)

    def __ne__(self, value: object) -> bool:
        return not self == value

    __hash__ = str.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the text, so that checkpoints need no class of this package."""
        return str, (str(self),)


def check_tags(tags: Iterable[str]) -> None:
    """Raise a ValueError if two callbacks of a Trainer would write to the same names in the logger.

    >>> check_tags(["gradcam", "gradcam/stages"])
    """
    names = [sanitize_tag(tag) for tag in tags]
    shared = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if shared:
        raise ValueError(
            f"Expected a different `tag` for each GradCAMCallback, but {names.count(shared[0])} have the tag "
            f"{shared[0]!r}. Pass another one, for example GradCAMCallback(tag='{shared[0]}_2')."
        )
