"""A row of numbers per image: what labels, losses and the numbers themselves say about it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import Probe, explain
from lightning_gradcam.targets.output_kinds import OutputClues, find_output_kind
from lightning_gradcam.targets.output_kinds.label_clues import read_labels
from lightning_gradcam.targets.output_kinds.model_clues import UnusedClassifier

N = 6
IMAGES = torch.rand(N, 3, 8, 8)


def decide(output, labels=None, extras=None, **clues):
    probe = Probe(IMAGES, labels=labels, extras=extras or {})
    return find_output_kind(output, probe, OutputClues(read_labels(probe, with_extras=True), **clues))


NUMBERS = torch.linspace(20, 80, N)
LABELS = {
    "ages": (NUMBERS, 1, "regression"),
    "ages of a column": (NUMBERS[:, None], 1, "regression"),
    "ages in integers": (NUMBERS.long(), 1, "regression"),
    "counts of one": (torch.tensor([0, 1, 2, 1, 0, 3]), 1, "regression"),
    "yes and no": (torch.tensor([0, 1, 1, 0, 0, 1]), 1, "classes"),
    "ones and zeros": (torch.tensor([0.0, 1, 1, 0, 0, 1]), 1, "classes"),
    "flags": (torch.tensor([True, False, True, True, False, False]), 1, "classes"),
    "ignored": (torch.tensor([0, 1, -100, 0, 0, 1]), 1, "classes"),
    "coordinates": (torch.rand(N, 4), 4, "regression"),
    "points": (torch.rand(N, 2, 2), 4, "regression"),
    "classes": (torch.tensor([0, 1, 2, 3, 0, 1]), 4, "classes"),
    "several": (torch.tensor([[1, 0, 0, 1]] * N), 4, "classes"),
    "mixed up": (torch.softmax(torch.rand(N, 4), 1), 4, "classes"),
    "identities": (torch.arange(N) * 10, 4, "other"),
    "an age for four numbers": (NUMBERS, 4, "other"),
    "none": (None, 4, "classes"),
    "none for one": (None, 1, "regression"),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("in_extras", [False, True])
def test_labels_decide_the_kind(name, in_extras):
    labels, width, expected = LABELS[name]
    output = torch.randn(N, width)
    kind = decide(output, extras={"1": labels} if labels is not None else {}) if in_extras else decide(output, labels)
    assert kind.name == expected
    if labels is not None:
        assert "labels" in kind.reason


@pytest.mark.parametrize(
    ("losses", "labels", "width", "expected"),
    [
        ({"values": "mse_loss"}, None, 1, "regression"),
        ({"values": "mse_loss"}, None, 4, "regression"),
        ({"values": "mse_loss"}, torch.arange(N) % 4, 4, "other"),  # an encoder of an autoencoder
        ({"values": "mse_loss"}, torch.arange(N), 4, "other"),
        ({"values": "mse_loss"}, torch.arange(N) % 2, 1, "regression"),
        ({"classes": "bce"}, None, 1, "classes"),
        ({"classes": "cross_entropy"}, torch.arange(N) * 9, 4, "classes"),  # the integers are no labels
        ({"classes": "cross_entropy"}, torch.rand(N, 4), 4, "classes"),
        ({"classes": "cross_entropy", "values": "mse_loss"}, None, 1, "regression"),  # it remains open
        ({"classes": "cross_entropy", "values": "mse_loss"}, torch.arange(N) % 4, 4, "classes"),
        ({"embeddings": "triplet_margin_loss"}, torch.arange(N) % 4, 4, "embedding"),
    ],
)
def test_the_loss_decides_where_it_is_one(losses, labels, width, expected):
    assert decide(torch.randn(N, width), labels, losses=losses).name == expected


def test_a_classifier_may_learn_a_squared_error():
    labels, logits, losses = torch.arange(N) % 4, torch.randn(N, 4), {"values": "mse_loss"}
    assert decide(logits, labels, losses=losses, model_classes=4).name == "classes"
    assert decide(logits.softmax(1), labels, losses=losses).name == "classes"
    assert decide(logits, labels, losses=losses, model_classes=5).name == "other"


def test_numbers_themselves_decide():
    logits = torch.randn(N, 4)
    assert decide(nn.functional.normalize(logits)).name == "embedding"
    assert decide(logits / logits.norm(dim=1, keepdim=True)).name == "embedding"
    for dtype in (torch.float16, torch.bfloat16):
        assert decide(nn.functional.normalize(logits.to(dtype))).name == "embedding"
    assert decide(1.0005 * nn.functional.normalize(logits)).name == "classes"  # by chance, as of a single image
    assert decide(logits.softmax(1)).name == "classes"
    saturated = torch.eye(4)[[0, 1, 2, 3, 0, 1]]  # of length 1 as well, but probabilities
    assert decide(saturated).name == "classes"
    assert decide(torch.randn(N, 1).requires_grad_().sigmoid()).name == "classes"
    for name in ("embedding", "pooler_output", "image_embeds"):
        assert decide({name: logits}, torch.arange(N) % 4).name == "embedding"
    assert decide({"pooler_output": logits, "logits": logits}).name == "classes"


def test_a_classifier_that_only_training_uses_makes_it_an_embedding():
    labels, output = torch.arange(N), torch.randn(N, 32)
    linear, centers = UnusedClassifier("head", 32, 10, True), UnusedClassifier("loss.centers", 32, 6, False)
    for classifier in (linear, centers):
        assert decide(output, labels, classifiers=[classifier]).name == "embedding"
        assert classifier.name in decide(output, labels, classifiers=[classifier]).reason
    other_width, too_few = UnusedClassifier("aux", 16, 10, True), UnusedClassifier("aux", 32, 5, True)
    center_loss = UnusedClassifier("center_loss.centers", 32, 512, False)  # 32 classes with features of 512
    for classifier in (other_width, too_few, center_loss):
        assert decide(output, labels, classifiers=[classifier]).name == "classes"
    assert decide(output, labels, classifiers=[linear], num_classes=32).name == "classes"


def test_the_target_and_the_data_may_name_classes():
    one = torch.randn(N, 1)
    assert decide(one, names_class=True).name == "classes"
    assert decide(one, NUMBERS, names_class=True).name == "regression"
    assert decide(one, num_classes=2).name == "classes"
    assert decide(one, num_classes=7).name == "regression"


def test_what_a_model_without_a_classifier_returns_is_an_embedding():
    normalized = nn.LayerNorm(8)(torch.randn(N, 8)).unsqueeze(1)[:, 0]
    assert decide(normalized).name == "embedding"
    assert decide(normalized, torch.arange(N)).name == "classes"  # labels weigh more
    assert decide(nn.Linear(8, 4)(normalized)).name == "classes"
    assert decide(torch.randn(N, 8), model_classes=0).name == "embedding"
    assert decide(torch.randn(N, 8), model_classes=8).reason == "the model has 8 classes"


class Net(nn.Module):
    """Numbers of the brightness of each channel."""

    def __init__(self, width=1):
        super().__init__()
        self.body, self.out = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Linear(6, width)

    def forward(self, images):
        return self.out(self.body(images).mean((2, 3)))


def test_a_value_is_explained_in_one_direction():
    model, images = Net(), torch.randn(8, 3, 10, 10)
    model.out.bias.data.sub_(model(images).mean())  # some are negative
    activations = model.body(images).detach().requires_grad_()
    value = model.out(activations.mean((2, 3)))[:, 0]
    assert value.min() < 0 < value.max()
    [gradient] = torch.autograd.grad(value.sum(), [activations])
    expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1)
    with pytest.warns(UserWarning, match="a regression of one value, since nothing tells.*`output='classes'`"):
        found = explain(model, images)
    torch.testing.assert_close(found.evidence["body"], expected.detach())
    torch.testing.assert_close(found.scores[""], value.detach())
    assert found.classes is None
    assert found.logits.shape == (8, 0)
    chosen = explain(model, images, output="regression")  # without a word
    assert torch.equal(chosen.evidence["body"], found.evidence["body"])
    binary = explain(model, images, output="classes")
    sign = torch.where(value > 0, 0.5, -0.5)[:, None, None]
    torch.testing.assert_close(binary.evidence["body"], (sign * expected).detach())


def test_one_of_several_values_is_explained_by_its_number():
    model, probe = Net(3), Probe(torch.randn(4, 3, 10, 10), labels=torch.rand(4, 3))
    for number in range(3):
        found = explain(model, probe, target=number)
        of = explain(model, probe, target=lambda output, _, k=number: output[:, k])
        assert torch.equal(found.evidence["body"], of.evidence["body"])
        assert found.classes.tolist() == [number] * 4
    with pytest.warns(UserWarning, match="the sum of the values"):
        total = explain(model, probe)
    of = explain(model, probe, target=lambda output, _: output.sum(1))
    torch.testing.assert_close(total.evidence["body"], of.evidence["body"])
    with pytest.raises(ValueError, match=r"values from 0 to 2 in `target`, as the model has 3, but got 3"):
        explain(model, probe, target=3)


@pytest.mark.parametrize("target", ["topk", "margin"])
@pytest.mark.parametrize("output", ["regression", "embedding", "other", "image"])
def test_targets_of_classes_are_refused_without_classes(target, output):
    dense = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    with pytest.raises(RuntimeError, match="target"):
        explain(dense if output == "image" else Net(4), torch.randn(2, 3, 10, 10), target=target, output=output)


def test_the_norm_of_an_embedding_is_explained_and_announced():
    model, images = Net(8), torch.randn(4, 3, 10, 10)
    normalized = nn.Sequential(model, nn.Hardtanh(-9, 9))
    normalized.forward = lambda x: nn.functional.normalize(model(x))
    with pytest.warns(UserWarning, match="an embedding of 8 coordinates, since all rows have length 1"):
        found = explain(normalized, images)
    expected = explain(model, images, target=lambda output, _: output.norm(dim=1))
    torch.testing.assert_close(found.evidence["0.body"], expected.evidence["body"])


def test_an_undecided_output_is_refused_with_the_choices():
    probe = Probe(torch.randn(4, 3, 10, 10), labels=torch.arange(4) * 25)
    with pytest.raises(RuntimeError, match=r"8 numbers.*0 to 75.*`output='classes'`, 'regression' or 'embedding'"):
        explain(Net(8), probe)
    assert explain(Net(8), probe, target=lambda output, _: output[:, 0]).logits.shape == (4, 0)
    assert explain(Net(8), probe, output="classes").logits.shape == (4, 8)
    with pytest.raises(ValueError, match=r"classes from 0 to 7, as the model has 8, but got 75 in `labels`.*`output=`"):
        explain(Net(8), probe, target="label", output="classes")
    ignored = Probe(probe.images, labels=torch.tensor([0, 1, -100, 2]))
    with pytest.raises(ValueError, match=r"got -100 in `labels`.*the loss ignores"):
        explain(Net(8), ignored, target="label")
    with pytest.raises(ValueError, match=r"Expected `output` to be 'auto', .* but got 'clases'"):
        explain(Net(8), probe, output="clases")
    with pytest.raises(RuntimeError, match="`output='segmentation'` needs scores of shape"):
        explain(Net(8), probe, output="segmentation")
