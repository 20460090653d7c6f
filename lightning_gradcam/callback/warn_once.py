"""What is said to the user: each thing once."""

from __future__ import annotations

import warnings

from lightning_utilities.core.rank_zero import rank_zero_warn


class WarnOnce:
    """Warnings of one run, said once however often their reason comes up."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def warn(self, *sentences: str) -> None:
        """Of several processes the first one says it."""
        for sentence in filter(self._is_new, sentences):
            rank_zero_warn(f"GradCAMCallback: {sentence}")

    def warn_here(self, *sentences: str) -> None:
        """This process says it, whichever it is."""
        for sentence in filter(self._is_new, sentences):
            warnings.warn(f"GradCAMCallback: {sentence}", stacklevel=2)

    def _is_new(self, sentence: str) -> bool:
        subject = sentence.partition(" (")[0]  # what stands in parentheses, a path say, may be another each time
        new = subject not in self._said
        self._said.add(subject)
        return new and bool(sentence)
