"""The page about attacks shows foolbox: its snippet runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gradcam import Probe
from lightning_gradcam.monitor.adversarial import attack_probe
from tests.helpers.lit import Lit
from tests.integration.docs.test_docs import snippets

pytestmark = pytest.mark.zoo


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # foolbox is of 2024
def test_foolbox_snippet_attacks():
    [code] = snippets("docs/adversarial.md", "python foolbox")
    names: dict[str, Any] = {}
    exec(compile(code, "adversarial.md", "exec"), names)
    probe = Probe(torch.rand(3, 3, 16, 16), labels=torch.arange(3))
    change = attack_probe(Lit(), probe, names["linf_pgd"]).images - probe.images
    assert 7 / 255 < change.abs().max() <= 8 / 255 + 1e-6
