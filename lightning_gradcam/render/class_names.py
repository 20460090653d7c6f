"""Class names as figures write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lightning_gradcam.render.font import Font


def fit_names(names: Sequence[str], font: Font, width: int) -> list[str]:
    """Put the index of the class before names that could not be told apart otherwise.

    These are names that the font cannot draw, of which only the characters that it can draw remain, and names that
    are the same once they are truncated.

    Args:
        names: The class names.
        font: The font that draws them.
        width: The most characters of a name.

    >>> fit_names(["pine", "station wagon", "station house", "\U000f0000"], Font.load(), 8)
    ['pine', '1 station wagon', '2 station house', '3']
    """
    encoded = [tuple(codes) for codes in font.encode(list(names), width).tolist()]
    counts = Counter(encoded)
    fitted = []
    for index, (name, codes) in enumerate(zip(names, encoded, strict=True)):
        if counts[codes] == 1 and codes[0] and font.can_draw(name):
            fitted.append(name)
        else:
            drawable = name if font.can_draw(name) else "".join(filter(font.can_draw, name))
            fitted.append(f"{index} {drawable}".strip())
    return fitted
