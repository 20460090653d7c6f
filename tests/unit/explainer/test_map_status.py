"""Map status: the numbers on disk, and the fraction of degenerate maps."""

from __future__ import annotations

import torch

from lightning_gradcam.explainer.map_status import MapStatus, degenerate_share, find_status


def test_map_status_numbers_and_texts_do_not_change():
    texts = [None, "not finite", "no gradient", "all zero", "constant", "no label"]
    assert {int(status): status.text for status in MapStatus} == dict(enumerate(texts))


def test_find_status_returns_uint8():
    codes = find_status(torch.zeros(2, 3), torch.zeros(2, 4))
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [MapStatus.NO_GRADIENT] * 2


def test_degenerate_share_leaves_out_images_without_a_label():
    assert degenerate_share(torch.tensor([MapStatus.NO_LABEL] * 2)) == 0
    assert degenerate_share(torch.tensor([0, 0, MapStatus.CONSTANT, MapStatus.NO_LABEL])) == torch.tensor(1 / 3)
