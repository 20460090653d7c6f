"""Pixel methods with few samples, and models for their tests."""

from __future__ import annotations

from lightning_gradcam import explain
from lightning_gradcam.methods import METHODS, IntegratedGradients, KernelShap, Lime, Occlusion, SmoothGrad
from tests.helpers.models import TinyResNet, TinyVGG
from tests.helpers.pixel_replicas import NOISE, REPLICAS, SAMPLES, SEGMENTS, STEPS, STRIDE, WINDOW

SMALL = {
    "integrated_gradients": IntegratedGradients(STEPS),
    "smoothgrad": SmoothGrad(SAMPLES, NOISE),
    "occlusion": Occlusion(WINDOW, STRIDE),
    "lime": Lime(SAMPLES, SEGMENTS),
    "kernel_shap": KernelShap(100, SEGMENTS),
}

NAMES = list(REPLICAS)

MODELS = {"in place": (lambda: TinyVGG(), "features.3"), "reused": (lambda: TinyResNet(), "layer2")}

SIGNED = {"integrated_gradients", "occlusion", "lime", "kernel_shap"}

SEEDED = {"smoothgrad", "lime", "kernel_shap"}


def create_method(name):
    """Return the method of that name, with few samples."""
    return SMALL.get(name, METHODS[name])


def compute_evidence(model, images, name, **kwargs):
    """Return the evidence of a pixel method at its only key."""
    [evidence] = explain(model, images, method=create_method(name), **kwargs).evidence.values()
    return evidence
