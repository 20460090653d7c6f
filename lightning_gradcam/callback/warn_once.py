"""The way of every warning to the user."""

from __future__ import annotations

import warnings

from lightning_utilities.core.rank_zero import rank_zero_warn


class WarnOnce:
    """Warnings of one run, each issued once however often its reason occurs."""

    def __init__(self) -> None:
        self._subjects: set[str] = set()

    def __call__(self, *messages: str) -> None:
        """Issue, on rank zero, the messages that are new; empty ones are ignored."""
        for message in filter(self._is_new, messages):
            rank_zero_warn(f"GradCAMCallback: {message}")

    def on_this_rank(self, *messages: str) -> None:
        """Issue the messages that are new on this rank, whichever it is."""
        for message in filter(self._is_new, messages):
            warnings.warn(f"GradCAMCallback: {message}", stacklevel=2)

    def _is_new(self, message: str) -> bool:
        """Return whether a message was not issued before; parentheses, a path for example, may differ each time."""
        subject = message.partition(" (")[0]
        is_new = subject not in self._subjects
        self._subjects.add(subject)
        return is_new and bool(message)
