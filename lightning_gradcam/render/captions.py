"""Captions under the tiles of a figure, composed on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.render.class_names import fit_names
from lightning_gradcam.render.colors import INK, PAPER, make_color
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.targets.logits import predictions, probabilities

_PERCENTAGE = 7  # characters of a mark, a percentage and spaces
_WIDE = 14  # characters of a line for names of any length with their percentages


@dataclass(frozen=True)
class Captions:
    """Labels, predictions and scores of images, as text of a fixed width.

    Args:
        font: Font of the text.
        name_codes: ``(K, characters)`` codes of the class names.
        labels: ``(N,)`` classes; None without labels.
        width: Width of a caption in pixels.
        multilabel: Whether each image may have several labels, so that each class has its own probability.
        region_classes: ``(N,)`` classes of the explained pixels, for segmentation models.
        score_word: What a score is, such as "value".
    """

    font: Font
    name_codes: Tensor
    labels: Tensor | None
    width: int
    multilabel: bool = False
    region_classes: Tensor | None = None
    score_word: str = "score"

    @staticmethod
    def from_names(
        names: Sequence[str],
        labels: Tensor | None,
        font: Font,
        width: int,
        multilabel: bool = False,
        score_word: str = "score",
    ) -> Captions:
        """Build captions from class names, truncated to leave room for a mark, a space and, if wide, a percentage."""
        characters = _count_characters(width, font)
        is_short = max(map(font.count_cells, names), default=0) <= characters - _PERCENTAGE
        room = max(characters - (_PERCENTAGE if is_short or characters >= _WIDE else 2), 1)
        codes = font.encode(fit_names(names, font, room), room)
        return Captions(font, codes, labels, width, multilabel, score_word=score_word)

    @property
    def characters(self) -> int:
        """Number of characters in a line."""
        return _count_characters(self.width, self.font)

    @property
    def is_wide(self) -> bool:
        """Whether a name and its percentage fit into one line; otherwise the percentage is below the name."""
        return self.name_codes.shape[1] <= self.characters - _PERCENTAGE

    def draw(self, logits: Tensor, *, scores: Tensor | None = None, with_label: bool = True) -> Tensor:
        """Draw the label and, below it, the prediction, the class of the region or the score of each image.

        Args:
            logits: ``(N, K)``; without classes (K = 0) there is no prediction.
            scores: ``(N,)`` explained scores, shown if there are no classes.
            with_label: Whether to draw the labels.

        Returns:
            ``(N, 3, height, width)`` uint8; the height is 0 if there is nothing to write.
        """
        lines: list[Tensor] = []
        is_right = None
        if self.labels is not None and with_label:
            lines.append(self.encode_labels(self.labels))
        if logits.shape[1]:
            predicted, is_right = self.encode_predictions(logits)
            lines += predicted
        elif self.region_classes is not None:
            lines.append(self.encode_labels(self.region_classes, "class"))
        elif scores is not None:
            lines += self.encode_scores(scores)
        if not lines:
            return torch.empty(len(logits), 3, 0, self.width, dtype=torch.uint8, device=logits.device)
        return self.draw_lines(lines, is_right)

    def draw_lines(self, lines: Sequence[Tensor], is_right: Tensor | None = None) -> Tensor:
        """Draw lines of codes ``(N, characters)`` below one another: ``(N, 3, height, width)`` uint8.

        Lines are cut to the width of the caption. Where ``is_right`` ``(N,)`` is False, text is white on black.
        """
        coverage = torch.cat([self.font.draw(self._fit_line(line)) for line in lines], dim=1)
        coverage = F.pad(coverage, (1, self.width - coverage.shape[-1] - 1, 1, 1))
        ink, paper = make_color(INK, coverage.device), make_color(PAPER, coverage.device)
        if is_right is not None:
            is_right = is_right[:, None]
            ink, paper = torch.where(is_right, ink, paper), torch.where(is_right, paper, ink)
        return paint(coverage, ink, paper)

    def check_predictions(self, classes: Tensor) -> Tensor | None:
        """Compare predicted classes ``(N,)`` with the labels: ``(N,)`` bool, or None without labels."""
        return None if self.labels is None else classes == self.labels

    def encode_labels(self, classes: Tensor, noun: str = "label") -> Tensor:
        """Encode classes ``(N,)`` as ``label pine``, or as ``pine`` where lines are short: ``(N, ...)`` codes."""
        if not self.is_wide:
            return self._select_names(classes)
        word = self.font.encode([f"{noun} "])[0].expand(len(classes), -1)
        return torch.cat([word, self._select_names(classes)], 1)

    def encode_predictions(self, logits: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Encode the predictions of logits ``(N, K)`` as ``✓ pine   98%``, without a mark if there are no labels.

        Returns:
            One or two lines of ``(N, ...)`` codes, and ``(N,)`` bool: whether each prediction is right, None without
            labels.
        """
        confidence, classes = predictions(logits, self.multilabel)
        is_right = self.check_predictions(classes)
        count = len(classes)
        mark = self._repeat(" ", count)
        if is_right is not None:
            mark = torch.where(is_right[:, None], self._repeat("✓", count), self._repeat("✗", count))
        name = torch.where(classes[:, None] < 0, 0, self._select_names(classes))
        return self._add_percentage(torch.cat([mark, self._repeat(" ", count), name], 1), confidence), is_right

    def encode_probabilities(self, logits: Tensor, classes: Tensor) -> list[Tensor]:
        """Encode classes ``(N,)`` and their probabilities as ``  oak     1%``, blank for -1.

        Returns:
            One or two lines of ``(N, ...)`` codes.
        """
        indices = classes.clamp_min(0)
        confidence = probabilities(logits, self.multilabel).gather(1, indices[:, None])[:, 0]
        name = torch.cat([self._repeat("  ", len(logits)), self.name_codes[indices]], 1)
        return [torch.where(classes[:, None] < 0, 0, line) for line in self._add_percentage(name, confidence)]

    def encode_scores(self, scores: Tensor) -> list[Tensor]:
        """Encode scores ``(N,)`` as ``score  -0.83``, with up to three digits before the point.

        Returns:
            One or two lines of ``(N, ...)`` codes.
        """
        sign, magnitude = self.font.encode(["-", " "])[(~(scores < 0)).long()], scores.abs()
        small = torch.cat([self._repeat(" ", len(scores)), sign, self.font.encode_number(magnitude, 1, 2)], 1)
        large = torch.cat([sign, self.font.encode_number(magnitude, 3, 1)], 1)
        number = torch.where(magnitude[:, None] < 9.995, small, large)
        room = self.characters - len(self.score_word) - number.shape[1]
        word = self._repeat(self.score_word + " " * (room > 0), len(scores))
        return [word, number] if room < 0 else [torch.cat([word, number], 1)]

    def _add_percentage(self, name: Tensor, fraction: Tensor) -> list[Tensor]:
        """Add a percentage after names ``(N, characters)``, or at the right of the next line."""
        percentage = torch.cat([self.font.encode_number(fraction * 100, 3, 0), self._repeat("%", len(name))], 1)
        if self.is_wide:
            return [torch.cat([name, self._repeat(" ", len(name)), percentage], 1)]
        return [name, torch.cat([self._repeat(" " * max(self.characters - 4, 0), len(name)), percentage], 1)]

    def _select_names(self, classes: Tensor) -> Tensor:
        return self.name_codes[classes.clamp(0, len(self.name_codes) - 1)]

    def _repeat(self, text: str, count: int) -> Tensor:
        return self.font.encode([text]).expand(count, -1)

    def _fit_line(self, line: Tensor) -> Tensor:
        return F.pad(line, (0, max(self.characters - line.shape[1], 0)))[:, : self.characters]


def _count_characters(width: int, font: Font) -> int:
    """Return the number of characters that fit into a width, with a margin of one pixel at both sides."""
    return (width - 2) // font.width
