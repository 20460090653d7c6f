"""Error handling: raise an error, or disable explanations with one warning while training continues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.capture.forward import is_out_of_memory
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.probe.probe import Probe


class FailureGuard:
    """Catches the errors of the explanations in one run.

    Args:
        config: The callback's configuration.
        ranks: The processes of the run.
        warn_once: Takes the warning.
    """

    def __init__(self, config: CallbackConfig, ranks: Ranks, warn_once: WarnOnce) -> None:
        self.config, self.ranks, self.warn_once = config, ranks, warn_once
        self.gave_up = False

    def give_up(self, message: str) -> None:
        """Disable the explanations of this run with a warning."""
        self.gave_up = True
        self.warn_once(message)

    @contextmanager
    def catch(self, before_training: bool = False) -> Iterator[None]:
        """Raise or report what goes wrong inside the block.

        Args:
            before_training: Whether a wrong argument is raised, because training has not started yet.

        Raises:
            ValueError: An argument is wrong, before training.
            Exception: Any error, with ``on_error="raise"``; and memory that ran out while the model is sharded,
                because the processes are out of step then.
        """
        try:
            yield
        except Exception as error:
            if self.config.on_error == "raise" or (is_out_of_memory(error) and self.ranks.has_sharded_model):
                raise
            if before_training and self._is_user_error(error):
                raise ValueError(str(error)) from error
            self.give_up(
                f"Explanations are disabled for the rest of the run: {describe_error(error).rstrip('.')}. "
                "Training continues; set `on_error='raise'` for the traceback."
            )

    def _is_user_error(self, error: Exception) -> bool:
        """Return whether an argument is wrong; a failing forward pass is, if the user chose images or call."""
        has_user_input = isinstance(self.config.probe, Probe) or self.config.forward is not None
        return isinstance(error, (TypeError, ValueError)) or (has_user_input and isinstance(error, ForwardError))


def describe_error(error: Exception) -> str:
    """Return an error in one sentence, with advice if memory ran out.

    >>> describe_error(KeyError("image"))
    "KeyError: 'image'"
    """
    message = str(error) if isinstance(error, NotExplainableError) else f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        message += " (use a smaller `probe`, a later layer, or smaller training batches)"
    return message
