"""The alarm for sudden drift in a run."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Callback

from lightning_gradcam import GradCAMCallback
from tests.helpers.lit import Lit, fit


class Shuffles(Callback):
    """Gives the head another order of channels from some epoch on."""

    def on_validation_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch >= 8 and not trainer.sanity_checking:
            with torch.no_grad():
                weight = pl_module.head.weight
                weight.copy_(weight[:, torch.randperm(weight.shape[1])])


def test_sudden_change_warns_once(tmp_path):
    class Slow(Lit):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    said = r"epoch 9 · step \d+: the maps of layer 'features' suddenly differ from the previous snapshot's"
    with pytest.warns(UserWarning, match=said) as caught:
        fit(tmp_path, [Shuffles(), GradCAMCallback(every_n_epochs=1)], make=Slow, max_epochs=11)
    assert len([w for w in caught if "suddenly differ" in str(w.message)]) == 1
    fit(tmp_path, [GradCAMCallback()], make=Slow, max_epochs=11)  # where nothing happens, nothing is said
