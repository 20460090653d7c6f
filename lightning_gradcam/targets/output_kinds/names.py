"""The values of the argument ``output``."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

OutputName: TypeAlias = Literal[
    "auto", "classes", "regression", "embedding", "segmentation", "image", "detection", "other"
]
"""What a model's output is; ``"auto"`` to infer it."""

OUTPUT_NAMES: tuple[OutputName, ...] = get_args(OutputName)


def check_output_name(output: object) -> None:
    """Raise a ValueError if ``output`` is not one of `OUTPUT_NAMES`.

    >>> check_output_name("classes")
    """
    if output not in OUTPUT_NAMES:
        names = ", ".join(map(repr, OUTPUT_NAMES[:-1]))
        raise ValueError(f"Expected `output` to be {names} or {OUTPUT_NAMES[-1]!r}, but got {output!r}.")
