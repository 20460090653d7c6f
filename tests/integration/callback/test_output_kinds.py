"""What a model returns is read from its data and its training, is said, and decides what is logged."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_gradcam import Baseline, GradCAMCallback, Normalization, Probe
from lightning_gradcam.callback.probe_source import ProbeSource
from lightning_gradcam.callback.summary import describe_output_kind, describe_probe
from tests.helpers.lit import Lit, fit

COUNT = 24


class Data(Dataset):
    """Bright images, and whatever `label` makes of their brightness from 0 to 1."""

    def __init__(self, label, count=COUNT):
        generator = torch.Generator().manual_seed(3)
        self.brightness = torch.linspace(0, 1, count)[torch.randperm(count, generator=generator)]
        noise = torch.rand(count, 3, 16, 16, generator=generator)
        self.images, self.label = 0.2 * noise + self.brightness[:, None, None, None], label

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], *self.label(float(self.brightness[index]))


class Model(Lit):
    """A body and a head; `loss_of` compares the output with the first label."""

    loss_of = staticmethod(lambda output, label: output.square().mean())

    def __init__(self, width=1):
        super().__init__(classes=width)

    def loss(self, batch):
        return self.loss_of(self(batch[0]), batch[1])


class Regression(Model):
    def loss(self, batch):
        return F.mse_loss(self(batch[0])[:, 0], batch[1])


def run(tmp_path, model, label, callback=None, **kwargs):
    callback = callback or GradCAMCallback(probe=8)
    loaders = {name: DataLoader(Data(label), 6) for name in ("train", "val")}
    trainer = fit(tmp_path, [callback], model=model, max_epochs=1, **loaders, **kwargs)
    names = {name.removeprefix("gradcam/") for name in trainer.callback_metrics if name.startswith("gradcam/")}
    return callback, names


def to_age(value):
    return (torch.tensor(80 * value + 0.5),)


def test_a_regression_logs_no_confidence_and_says_why(tmp_path):
    callback, names = run(tmp_path, Regression(), to_age)
    monitor = callback.monitor
    assert {"drift", "concentration", "degenerate"} <= names
    assert not {"confidence", "accuracy"} & names
    assert describe_output_kind(monitor.explainer.output_kind) == (
        "a regression of one value, since labels '1' are float32"
    )
    assert monitor.target.name == "value"
    assert "with labels that are not classes of the output" in describe_probe(monitor, ProbeSource(8))
    sheet = monitor.figures.sheet
    assert sheet.captions.score_word == "value"
    text = torch.cat(sheet.captions.encode_scores(torch.tensor([37.25])), dim=1)
    assert torch.equal(text[:, : len("value")], sheet.font.encode(["value"]))


def test_the_loss_tells_of_a_regression_without_labels(tmp_path):
    class Unlabeled(Model):
        def loss(self, batch):
            return F.huber_loss(self(batch[0])[:, 0], batch[0].mean((1, 2, 3)))

    callback, names = run(tmp_path, Unlabeled(), lambda value: ())
    assert "confidence" not in names
    assert callback.monitor.explainer.output_kind.reason == "training uses huber_loss"


def test_a_callable_target_of_a_regression_logs_no_confidence(tmp_path):
    callback = GradCAMCallback(probe=8, target=lambda output, probe: -output[:, 0])
    _, names = run(tmp_path, Regression(), to_age, callback)
    assert "drift" in names
    assert "confidence" not in names


@pytest.mark.parametrize("output", ["auto", "classes"])
def test_output_overrides_what_is_inferred(tmp_path, output):
    callback, names = run(tmp_path, Regression(), to_age, GradCAMCallback(probe=8, output=output))
    assert ("confidence" in names) is (output == "classes")
    assert callback.monitor.explainer.output_kind.is_chosen is (output == "classes")


def test_boolean_labels_are_classes_of_a_single_logit(tmp_path):
    callback, names = run(tmp_path, Model(), lambda value: (torch.tensor(value > 0.5),))
    assert {"confidence", "accuracy"} <= names
    assert set(callback.monitor.labels.tolist()) == {0, 1}


def test_labels_of_later_batches_change_the_kind(tmp_path):
    class Sorted(Data):
        def __init__(self, label):
            super().__init__(label)
            self.brightness = self.brightness.sort().values

    callback = GradCAMCallback(probe=8)
    counts = Sorted(lambda value: (torch.tensor(int(5 * value)),))  # the first batch has 0 and 1 only
    trainer = fit(
        tmp_path, [callback], model=Model(), max_epochs=1, num_sanity_val_steps=1,
        train=DataLoader(counts, 6), val=DataLoader(counts, 6),
    )  # fmt: skip
    assert callback.monitor.explainer.output_kind.name == "regression"
    assert "gradcam/accuracy" not in trainer.callback_metrics


class Embedder(Model):
    """Embeddings, whose classes live in the loss."""

    def __init__(self):
        super().__init__(width=16)
        self.classifier = nn.Linear(16, 4)

    def loss(self, batch):
        return F.cross_entropy(self.classifier(self(batch[0])), batch[1])


def to_class(value):
    return (torch.tensor(min(int(4 * value), 3)),)


def test_an_embedding_logs_no_accuracy(tmp_path):
    callback, names = run(tmp_path, Embedder(), to_class)
    assert "concentration" in names
    assert not {"confidence", "accuracy"} & names
    assert "'classifier' turns it into 4 classes in training" in callback.monitor.explainer.output_kind.reason
    assert callback.monitor.target.name == "norm of the embedding"


class Identities(Model):
    def __init__(self):
        super().__init__(width=8)


def test_an_undecided_output_is_refused_and_training_goes_on(tmp_path):
    def identity(value):
        return (torch.tensor(int(100 * value)),)

    with pytest.warns(UserWarning, match=r"8 numbers per image.*so it is open.*`output='classes'`, 'regression' or"):
        callback, _ = run(tmp_path, Identities(), identity)
    assert callback.monitor is None
    callback = GradCAMCallback(probe=8, target=lambda output, probe: output[:, 0])
    callback, names = run(tmp_path, Identities(), identity, callback)
    assert {"drift", "drift_from_start"} <= names
    assert not {"confidence", "accuracy"} & names


class Heads(Model):
    """A color of 3 classes and a kind of 4."""

    def __init__(self, order=("color", "kind")):
        super().__init__()
        self.head = nn.ModuleDict({name: nn.Linear(16, {"color": 3, "kind": 4}[name]) for name in order})

    def forward(self, images):
        features = self.features(images).mean((2, 3))
        return {name: head(features) for name, head in self.head.items()}

    def loss(self, batch):
        output = self(batch["image"])
        return sum(F.cross_entropy(output[name], batch[name]) for name in output if name in batch)


class Named(Data):
    names = ("color", "kind")

    def __init__(self):
        super().__init__(None)

    def __getitem__(self, index):
        labels = {"color": torch.tensor(index % 3), "kind": torch.tensor(index % 4)}
        return {"image": self.images[index], **{name: labels[name] for name in self.names}}


class ColorOnly(Named):
    names = ("color",)


def fit_heads(tmp_path, callback, data=Named, order=("color", "kind"), **kwargs):
    loader = DataLoader(data(), 6)
    return fit(tmp_path, [callback], model=Heads(order), train=loader, val=loader, **{"max_epochs": 1, **kwargs})


def find_rows(images):
    """The indices of images in `Named`."""
    return [int((Named().images == image).flatten(1).all(1).nonzero()) for image in images]


@pytest.mark.parametrize("order", [("color", "kind"), ("kind", "color")])
@pytest.mark.parametrize("forward", [False, True])
def test_labels_belong_to_the_head(tmp_path, order, forward):
    head = "kind" if forward else order[0]
    callback = GradCAMCallback(probe=8, forward=(lambda m, p: m(p.images)["kind"]) if forward else None)
    fit_heads(tmp_path, callback, order=order)
    monitor = callback.monitor
    assert monitor.labels.tolist() == [i % {"color": 3, "kind": 4}[head] for i in find_rows(monitor.probe.images)]
    assert f"({head})" in describe_probe(monitor, ProbeSource(8))
    if not forward:
        assert f"of the part {head!r}" in describe_output_kind(monitor.explainer.output_kind)


def test_labels_of_another_head_are_dropped(tmp_path):
    callback = GradCAMCallback(probe=8, forward=lambda m, p: m(p.images)["kind"])
    with pytest.warns(UserWarning, match="labels 'color' have the name of another part of the model"):
        trainer = fit_heads(tmp_path, callback, ColorOnly)
    assert callback.monitor.labels is None
    assert "gradcam/accuracy" not in trainer.callback_metrics


def test_a_resumed_run_keeps_the_head_and_its_labels(tmp_path):
    first, second = GradCAMCallback(probe=8), GradCAMCallback(probe=8)
    trainer = fit_heads(tmp_path, first, order=("kind", "color"))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fit_heads(tmp_path, second, order=("kind", "color"), max_epochs=2, ckpt_path=str(tmp_path / "a.ckpt"))
    assert second.monitor.tracker.snapshots > first.monitor.tracker.snapshots
    assert torch.equal(second.monitor.labels, first.monitor.labels)
    assert second.monitor.explainer.output_kind.head == "kind"


class Segmenter(Model):
    """Scores of pixels, and a class of the image beside them."""

    def __init__(self):
        super().__init__()
        self.pixels, self.image = nn.Conv2d(16, 4, 1), nn.Linear(16, 5)

    def forward(self, images):
        features = self.features(images)
        return F.interpolate(self.pixels(features), scale_factor=2), self.image(features.mean((2, 3)))

    def loss(self, batch):
        return F.cross_entropy(self(batch[0])[0], batch[-1])


def to_mask(value):
    mask = torch.zeros(16, 16, dtype=torch.long)
    mask[4:12, 4:12] = 1 + int(2 * value)
    return torch.tensor(int(4 * value)), mask


@pytest.mark.parametrize("has_labels", [False, True])
def test_masks_decide_for_the_segmentation(tmp_path, has_labels):
    callback, names = run(tmp_path, Segmenter(), to_mask if has_labels else lambda value: to_mask(value)[1:])
    monitor = callback.monitor
    assert monitor.explainer.output_kind.name == "segmentation"
    assert monitor.target.name == "label"
    assert monitor.probe.has_masks
    assert "with masks as labels" in describe_probe(monitor, ProbeSource(8))
    assert not {"confidence", "accuracy"} & names


def test_a_baseline_keeps_the_value_and_the_kind(tmp_path):
    model = Regression(3).eval()
    probe = Probe(torch.rand(64, 3, 16, 16), labels=torch.rand(64, 3))
    baseline = Baseline.record(model, probe, target=2)
    of = Baseline.record(model, probe, target=lambda output, _: output[:, 2])
    [key] = baseline.explanation.evidence
    assert torch.equal(baseline.explanation.evidence[key], of.explanation.evidence[key])
    baseline.save(tmp_path / "values.safetensors")
    loaded = Baseline.load(tmp_path / "values.safetensors")
    assert loaded.metadata == baseline.metadata
    assert loaded.metadata.output == "regression"
    assert loaded.compare(model).status == "pass"  # without labels, it is read as it was
    total = Baseline.record(model, probe)
    assert total.metadata.target == "sum of the 3 values"
    assert total.compare(model).status == "pass"


def test_an_attack_moves_away_from_the_explained_head(tmp_path):
    class FullRange(Heads):
        def forward(self, images):
            return {name: 9 * logits for name, logits in super().forward(images).items()}

    callback = GradCAMCallback(probe=8, attack="fgsm", pixels=Normalization((0.0,), (0.8,)))
    loader = DataLoader(Named(), 6)
    fit(tmp_path, [callback], model=FullRange(("kind", "color")), max_epochs=1, train=loader, val=loader)
    monitor = callback.monitor
    assert monitor.explainer.output_kind.head == "kind"
    assert set(monitor.labels.tolist()) == {0, 1, 2, 3}  # the other head has no class 3


@pytest.mark.parametrize("target", ["label", "positives"])
def test_labels_are_no_values(tmp_path, target):
    callback = GradCAMCallback(probe=8, target=target)
    with pytest.warns(UserWarning, match="which are not classes|has no classes"):
        run(tmp_path, Regression(), lambda value: (torch.tensor(int(80 * value) + 2),), callback)
