"""The tags of figures in a logger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning_gradcam.loggers import sanitize_tag
from lightning_gradcam.stability.drift import FIRST

FILM, CHOICES = "film", "choices"
"""The tags of the filmstrip of the run and of the resolved configuration."""


def assign_tags(keys: Iterable[str]) -> Mapping[str, str]:
    """Return a tag for the figure of each layer that neither another figure, the film nor a curve has.

    Tags that differ in case only count as the same: they would share a file on some disks.

    >>> assign_tags(["layer4", "film", "layer_film"])
    {'layer4': 'layer4', 'film': 'layer_film', 'layer_film': 'layer_film_2'}
    """
    used_tags, tags = {FILM, CHOICES, *FIRST}, {}
    for key in keys:
        tag = sanitize_tag(key)
        if tag.lower() in {FILM, CHOICES, *FIRST}:
            tag = f"layer_{tag}"
        stem, number = tag, 1
        while tag.lower() in used_tags:
            number += 1
            tag = f"{stem}_{number}"
        used_tags.add(tag.lower())
        tags[key] = tag
    return tags
