"""Errors."""

from __future__ import annotations


class NotExplainableError(RuntimeError):
    """The model turned out to have nothing that can be explained this way; the message says why and what to do."""


class ForwardError(NotExplainableError):
    """The model's own forward pass raised; the error it raised is the cause."""


class IncompatibleError(ValueError):
    """Two baselines, or a baseline and a model, cannot be compared; the message says why and what to do."""


class UnreadableError(ValueError):
    """A file is not what it should be; the message is one line that says what is wrong."""
