"""The errors of this package."""

from __future__ import annotations


class NotExplainableError(RuntimeError):
    """The model cannot be explained this way; the message states the reason and the remedy."""


class ForwardError(NotExplainableError):
    """The model's own forward pass raised an error, which is the ``__cause__``."""


class UninitializedModelError(NotExplainableError):
    """The model creates parameters in its first forward pass, and has not run yet."""


class IncompatibleError(ValueError):
    """Two baselines, or a baseline and a model, cannot be compared; the message states the reason and the remedy."""


class UnreadableError(ValueError):
    """A file does not have the expected content; the message states the problem in one line."""
