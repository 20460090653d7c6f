"""Warnings to the user, without repetition."""

from __future__ import annotations

import warnings

from lightning_utilities.core.rank_zero import rank_zero_warn


class WarnOnce:
    """Warnings of one run, each issued only once, no matter how often its cause occurs."""

    def __init__(self) -> None:
        self._subjects: set[str] = set()

    def __call__(self, *messages: str) -> None:
        """Warn, on rank zero, of the messages that are new; empty ones are ignored."""
        for message in filter(self._is_new, messages):
            rank_zero_warn(f"GradCAMCallback: {message}")

    def warn_on_this_rank(self, *messages: str) -> None:
        """Warn, on this rank even if it is not rank zero, of the messages that are new."""
        for message in filter(self._is_new, messages):
            warnings.warn(f"GradCAMCallback: {message}", stacklevel=2)

    def _is_new(self, message: str) -> bool:
        """Return whether a message was not issued before; parentheses, a path for example, may differ each time."""
        subject = message.partition(" (")[0]
        is_new = subject not in self._subjects
        self._subjects.add(subject)
        return is_new and bool(message)
