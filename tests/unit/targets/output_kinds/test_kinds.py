"""Output kinds: each output is recognized as one kind, and a class is adapted to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import BoxScore, EmbeddingNorm, NotExplainableError, Probe, SegmentationScore, TopK
from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.targets import TARGETS, class_target, freeze_classes
from lightning_gradcam.targets.output_kinds import (
    OUTPUT_KINDS,
    PROBABILITIES_NOTE,
    ClassificationOutput,
    DetectionOutput,
    EmbeddingOutput,
    ImageOutput,
    OutputClues,
    OutputKind,
    RegressionOutput,
    SegmentationOutput,
    UnknownOutput,
    find_output_kind,
)
from tests.helpers.detectors import Spots

PROBE = Probe(torch.rand(2, 3, 8, 8))
BOXES = {"boxes": torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 4]]), "labels": torch.tensor([1, 2])}
DETECTIONS = [{**BOXES, "scores": torch.tensor([0.5, 0.75])}] * 2
CLASSES = OutputClues(choice="classes")
OUTPUTS = {
    ClassificationOutput: [torch.rand(2, 5), {"loss": torch.zeros(()), "logits": torch.rand(2, 5)}],
    RegressionOutput: [torch.rand(2), torch.rand(2, 1)],
    EmbeddingOutput: [nn.functional.normalize(torch.rand(2, 5)), {"pooler_output": torch.rand(2, 5)}],
    SegmentationOutput: [torch.rand(2, 5, 8, 8), {"out": torch.rand(2, 5, 4, 4)}],
    ImageOutput: [],  # never without labels or a loss: see test_decide_map
    DetectionOutput: [DETECTIONS, ({}, DETECTIONS)],
    UnknownOutput: [[], None, torch.rand(2, 5, 8), torch.zeros(2, 5, dtype=torch.long), torch.rand(2, 1, 8, 8)],
}
"""Outputs by kind, of which nothing else is known: a kind is tested by an entry here."""


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_each_output_is_recognized_as_its_kind(kind):
    assert all(type(find_output_kind(output, PROBE)) is kind for output in OUTPUTS[kind])


def test_counts_are_those_of_the_output():
    kinds = [find_output_kind(outputs[0], PROBE) for outputs in OUTPUTS.values() if outputs]
    assert [kind.num_classes for kind in kinds] == [5, None, None, 5, None, None]
    assert [kind.num_logits for kind in kinds] == [5, None, None, None, None, None]
    assert [kind.has_classes for kind in kinds] == [True, False, False, True, True, False]
    assert find_output_kind(torch.rand(2), PROBE, CLASSES).num_logits == 2  # one logit is a binary classifier's


@pytest.mark.parametrize(
    ("kind", "adapted"),
    [(ClassificationOutput(5), None), (SegmentationOutput(5), SegmentationScore), (DetectionOutput(), BoxScore)],
)
def test_a_class_is_adapted_and_other_targets_are_kept(kind, adapted):
    score = class_target(1)
    assert kind.adapt(score) == (score if adapted is None else adapted(score))
    for target in (lambda output, probe: output, EmbeddingNorm(), BoxScore(1), SegmentationScore(1)):
        assert kind.adapt(target) is target


@pytest.mark.parametrize("target", [class_target(1), SegmentationScore("label"), BoxScore(2)])
def test_a_frozen_class_target_keeps_its_type(target):
    frozen = target.freeze_to(torch.tensor([3, 4]))
    assert type(frozen) is type(target)
    score = getattr(frozen, "of", frozen)
    assert score.choose(torch.zeros(2, 5), PROBE).tolist() == [3, 4]
    assert getattr(frozen, "where", "label") == "label"
    assert score == freeze_classes(score.choose.classes)


def test_kind_follows_the_target():
    assert ClassificationOutput(5).for_target(TARGETS["cosine"]) == UnknownOutput()
    assert ClassificationOutput(5).for_target(TopK(2)) == ClassificationOutput(5)
    assert SegmentationOutput(5).for_target(TARGETS["label"]) == SegmentationOutput(5)
    assert SegmentationOutput(5).for_target(lambda output, probe: output) == SegmentationOutput(None)


def test_validate_raises_for_a_missing_class_or_returns_a_note():
    logits, probabilities = torch.tensor([[5.0, 1], [1, 5]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    kind = ClassificationOutput(2)
    assert kind.validate(class_target(1), logits, PROBE) == ""
    assert kind.validate(class_target(1), probabilities, PROBE) == PROBABILITIES_NOTE
    assert kind.validate(lambda output, probe: output, probabilities, PROBE) == ""
    pixels = torch.rand(2, 2, 8, 8)
    for strict, output in ((kind, logits), (SegmentationOutput(2), pixels)):
        with pytest.raises(ValueError, match="classes from 0 to 1"):
            strict.validate(class_target(2), output, PROBE)
    with pytest.raises(NotExplainableError, match="have length 1"):
        UnknownOutput().validate(EmbeddingNorm(), nn.functional.normalize(logits.clone()).mul(1.0), PROBE)


def test_changed_number_of_logits_raises():
    ClassificationOutput(5).check_output(torch.rand(2, 5))
    with pytest.raises(NotExplainableError, match="returned 5 logits per image when it was traced, and 4 now"):
        ClassificationOutput(5).check_output(torch.rand(2, 4))
    with pytest.raises(NotExplainableError, match="and none now"):
        ClassificationOutput(5).check_output(None)


def test_trace_score_includes_every_class():
    for kind, output in ((ClassificationOutput(5), torch.rand(2, 5)), (SegmentationOutput(5), torch.rand(2, 5, 4, 4))):
        output.requires_grad_()
        [gradient] = torch.autograd.grad(kind.trace_score(output, PROBE).sum(), [output])
        assert (gradient > 0).all()
        assert len(gradient.unique()) == 5  # weighted, as the plain sum of probabilities has no gradient
    assert DetectionOutput().trace_score(DETECTIONS, PROBE).tolist() == [1.25, 1.25]
    smallest, largest = (score(DETECTIONS, PROBE).tolist() for score in DetectionOutput.refining_scores)
    assert (smallest, largest) == ([0.5, 0.5], [0.75, 0.75])
    with pytest.raises(NotExplainableError, match="Expected logits"):
        UnknownOutput().trace_score([], PROBE)


def test_labels_are_read_as_the_kind_allows():
    classes, masks = torch.tensor([1, 0]), torch.zeros(2, 8, 8, dtype=torch.long)
    multilabel = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 0, 0, 0]])
    probes = [Probe(PROBE.images, labels=labels) for labels in (None, classes, multilabel, masks)]

    def labels_of(kind: OutputKind) -> list[bool]:
        return [bool(kind.has_labels(probe)) for probe in probes]

    assert labels_of(ClassificationOutput(5)) == [False, True, True, False]
    assert labels_of(ClassificationOutput(4)) == [False, True, False, False]
    assert labels_of(SegmentationOutput(5)) == [False, True, False, True]
    assert labels_of(DetectionOutput()) == [False, True, False, False]
    assert labels_of(UnknownOutput()) == [False] * 4
    assert [kind for kind in OUTPUT_KINDS if kind().reads_masks(probes[3])] == [SegmentationOutput]


def test_detection_crops_the_padding_of_its_model():
    model, probe = Spots(60), Probe(torch.rand(1, 1, 40, 72))  # 60x108 in a padded 64x128
    kind = DetectionOutput().for_model(model.eval(), probe)
    assert kind == DetectionOutput(image_fraction=(60 / 64, 108 / 128))
    assert kind.locate(torch.rand(1, 8, 16)).shape == (1, 8, 14)
    for other in (ClassificationOutput(5), SegmentationOutput(5), UnknownOutput()):
        evidence = torch.rand(1, 8, 16)
        assert other.for_model(model, probe) is other
        assert other.locate(evidence) is evidence


def test_layers_that_return_pixel_scores_are_marked():
    records = [LayerRecord(name, kind, (2, 5, 8, 8), (8, 8)) for name, kind in (("a", "ReLU"), ("b", "Conv2d"))]
    marked = SegmentationOutput(5).mark_outputs(records, torch.rand(2, 5, 8, 8), PROBE)
    assert [record.answers for record in marked] == [False, True]
    assert ClassificationOutput(5).mark_outputs(records, torch.rand(2, 5), PROBE) == tuple(records)
