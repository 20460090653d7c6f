"""What a model says about its output: its losses and metrics, and classifiers that only training uses."""

from __future__ import annotations

import pytest
import torch
import torchmetrics  # a dependency of Lightning
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer, resnet18

from lightning_gradcam import explain
from lightning_gradcam.targets.output_kinds.model_clues import find_unused_classifiers, read_losses, read_num_classes

CRITERIA = {
    "classes": [
        nn.CrossEntropyLoss(), nn.NLLLoss(), nn.BCEWithLogitsLoss(), nn.BCELoss(), nn.MultiMarginLoss(),
        nn.MultiLabelSoftMarginLoss(),
    ],
    "values": [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.GaussianNLLLoss(), nn.PoissonNLLLoss()],
    "embeddings": [nn.TripletMarginLoss(), nn.CosineEmbeddingLoss()],
}  # fmt: skip


@pytest.mark.parametrize("kind", CRITERIA)
def test_losses_of_pytorch_are_recognized(kind):
    for criterion in CRITERIA[kind]:
        model = nn.Linear(2, 2)
        model.criterion = criterion
        assert read_losses(model) == {kind: type(criterion).__name__}


class Calls(nn.Module):
    """Methods as those of a LightningModule."""

    def training_step(self, batch):
        def loss(output):
            return F.binary_cross_entropy_with_logits(output, batch[1])

        return loss(self(batch[0]))


class Both(Calls):
    """A further loss, and a function as an attribute."""

    def __init__(self):
        super().__init__()
        self.reconstruction = F.l1_loss


class Depth(nn.Module):
    """Names that only look like losses."""

    def forward(self, focal_length, themselves):
        return self.focal_net(focal_length) + self.dice(themselves) + self.sum_squares


class Overrides(Calls):
    """A loss that replaces that of the base class."""

    def training_step(self, batch):
        return F.mse_loss(self(batch[0]), batch[1])


def test_calls_and_attributes_of_a_model_are_read():
    assert read_losses(Overrides()) == {"values": "mse_loss"}
    assert read_losses(Calls()) == {"classes": "binary_cross_entropy_with_logits"}
    assert read_losses(Both()).keys() == {"classes", "values"}
    assert read_losses(Depth()) == {}
    assert read_losses(resnet18()) == {}
    assert read_losses(nn.Sequential(nn.Linear(1, 1))) == {}


def test_metrics_are_read():
    for metric, kind in (
        (torchmetrics.classification.MulticlassAccuracy(3), "classes"),
        (torchmetrics.MeanSquaredError(), "values"),
        (torchmetrics.R2Score(), "values"),
    ):
        model = nn.Linear(2, 2)
        model.metric = metric
        assert list(read_losses(model)) == [kind]
    model.metric = torchmetrics.MeanMetric()
    assert read_losses(model) == {}


def test_no_model_of_torchvision_has_unused_classifiers():
    transformer = VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=16)
    for model, classes in ((resnet18(), 1000), (transformer, 16)):  # as many classes as attention has channels
        assert explain(model, torch.rand(2, 3, 32, 32)).logits.shape == (2, classes)


def test_the_number_of_classes_of_a_model_is_read():
    inner, outer = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 2))
    assert read_num_classes(outer) is None
    inner.num_classes = 3
    assert read_num_classes(nn.Sequential(inner, nn.ReLU())) == 3
    outer.hparams = {"num_classes": 5}
    assert read_num_classes(outer) == 5
    outer.num_classes = 7
    assert read_num_classes(outer) is None  # they contradict each other
    outer.num_classes = True
    assert read_num_classes(outer) == 5


class Backbone(nn.Sequential):
    """A model without its classifier, as timm creates it with ``num_classes=0``."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_classes = 0


def test_a_backbone_has_no_say_where_a_head_follows():
    assert read_num_classes(nn.Sequential(Backbone(), nn.ReLU())) == 0
    classifier = nn.Sequential(Backbone(), nn.Linear(4, 3))
    assert read_num_classes(classifier) is None
    assert explain(classifier, torch.rand(2, 3, 8, 8)).logits.shape == (2, 3)  # and no warning


class Settings(dict):
    """A mapping that has an attribute of every name, as some libraries' configurations."""

    def __getattr__(self, name):
        return Settings()


def test_settings_of_a_model_are_no_losses():
    model = nn.Linear(2, 2)
    model.settings, model.criterion = Settings(), F.cross_entropy
    assert read_losses(model) == {"classes": "cross_entropy"}


class Metric(nn.Module):
    """An embedding, and the centers of classes that its loss holds."""

    def __init__(self):
        super().__init__()
        self.body, self.embed = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Linear(6, 4)
        self.loss, self.head = nn.ParameterDict({"centers": torch.rand(7, 4)}), nn.Linear(4, 9)

    def forward(self, images):
        return self.embed(self.body(images).mean((2, 3)))


def test_classifiers_of_the_loss_are_listed_with_both_readings():
    found = find_unused_classifiers(Metric(), {"body", "body.0", "body.1", "embed"})
    assert [(c.name, c.width, c.num_classes, c.is_certain) for c in found] == [
        ("loss.centers", 4, 7, False), ("loss.centers", 7, 4, False), ("head", 4, 9, True),
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="an embedding of 4 coordinates, since 'head' turns it into 9 classes"):
        explain(Metric(), torch.rand(2, 3, 8, 8))
