"""Classification models of torchvision, and the table of their chosen layers in docs/layers.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from lightning_gradcam import Probe
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.targets import TARGETS

tv = torchvision.models
NAMES = tv.list_models(module=tv)
SIZES = (32, 64, 96, 128, 224)

FAMILIES = {
    "alexnet": ("AlexNet", "features.11"),
    "convnext_tiny": ("ConvNeXt", "features"),
    "densenet121": ("DenseNet", "features"),
    "efficientnet_b0": ("EfficientNet", "features"),
    "efficientnet_v2_s": ("EfficientNet V2", "features"),
    "googlenet": ("GoogLeNet", "inception5b"),
    "inception_v3": ("Inception V3", "Mixed_7c"),
    "maxvit_t": ("MaxViT", "blocks.3"),
    "mnasnet0_5": ("MNASNet", "layers"),
    "mobilenet_v2": ("MobileNet V2", "features"),
    "mobilenet_v3_small": ("MobileNet V3", "features"),
    "regnet_x_400mf": ("RegNet X", "trunk_output"),
    "regnet_y_400mf": ("RegNet Y, with squeeze and excitation", "trunk_output"),
    "resnet18": ("ResNet", "layer4"),
    "resnext50_32x4d": ("ResNeXt", "layer4"),
    "shufflenet_v2_x0_5": ("ShuffleNet V2", "conv5"),
    "squeezenet1_1": ("SqueezeNet", "features"),
    "swin_t": ("Swin", "norm"),
    "swin_v2_t": ("Swin V2", "norm"),
    "vgg11": ("VGG", "features.19"),
    "vit_b_32": ("Vision Transformer", "encoder"),
    "wide_resnet50_2": ("Wide ResNet", "layer4"),
}
"""The smallest member of each family: the family's name, and the module that returns its last features."""

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"
START, END = "<!-- table: make layers -->\n", "<!-- end of table -->\n"


@contextmanager
def skip_initialization() -> Iterator[None]:
    """Skip the initialization of parameters, which dominates the time to build a large model."""
    initializers = {name: function for name, function in vars(nn.init).items() if name.endswith("_") and name[0] != "_"}
    try:
        for name in initializers:
            setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield
    finally:
        for name, function in initializers.items():
            setattr(nn.init, name, function)


@torch.no_grad()
def build_model(name: str) -> nn.Module:
    """Build a torchvision model with random parameters, also in heads that are initialized with zeros."""
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with skip_initialization():
        model = tv.get_model(name, weights=None, **arguments)
    randomize(model)
    return model.eval()


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Draw every parameter: weights whose spread preserves the scale of a ReLU's input, and norm scales around 1."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            spread = (6 / parameter[0].numel()) ** 0.5
            parameter.uniform_(-spread, spread)
        else:
            parameter.uniform_(-0.1, 0.1)
            if name.endswith("weight"):
                parameter += 1


def find_smallest_size(model: nn.Module) -> int:
    """Return the first of `SIZES` that the model accepts."""
    for size in SIZES[:-1]:
        try:
            with torch.inference_mode():
                model(torch.rand(2, 3, size, size))
        except (RuntimeError, AssertionError):  # too small for a pooling, or not the only size that the model takes
            continue
        return size
    return SIZES[-1]


def find_last_grid(model: nn.Module, images: Tensor, module: str) -> tuple[int, ...]:
    """Return the grid of a module's output, or of the patches in a Vision Transformer's encoder."""
    outputs: list[Tensor] = []
    handle = model.get_submodule(module).register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.inference_mode():
        model(images)
    handle.remove()
    shape = outputs[-1].shape
    if len(shape) == 3:
        side = round((shape[1] - 1) ** 0.5)
        return side, side
    return tuple(shape[1:3] if shape[1] == shape[2] != shape[3] else shape[2:])


def format_row(name: str, plan: Explainer) -> str:
    """Return the table's row for the smallest member of a family."""
    family, last = FAMILIES[name]
    [layer] = plan.layers
    record = next(s for s in plan.records if s.name == layer.name)
    cells = f"`{layer.name}` | {record.kind} | {'×'.join(map(str, record.grid or ()))}"
    return f"| {family} | `{name}` | {cells} | {COMMON.get(name, f'`{last}`')} |\n"


def format_table() -> str:
    """Return the table of the layers that `auto` chooses for images of 224x224, by family."""
    head = "| family | model | chosen | module type | grid | commonly named |\n| --- | --- | --- | --- | --- | --- |\n"
    probe = Probe(torch.rand(2, 3, 224, 224))
    return head + "".join(
        format_row(name, prepare(build_model(name), probe, target=TARGETS["predicted"])) for name in FAMILIES
    )


COMMON = {
    "alexnet": "`features[-1]`, the pooling after it",
    "convnext_tiny": "`features[-1]`",
    "densenet121": "`features[-1]`",
    "efficientnet_b0": "`features[-1]`",
    "mnasnet0_5": "`layers[-1]`",
    "mobilenet_v2": "`features[-1]`",
    "mobilenet_v3_small": "`features[-1]`",
    "resnet18": "`layer4[-1]`",
    "resnext50_32x4d": "`layer4[-1]`",
    "swin_t": "`features[-1][-1].norm1`, inside the last block",
    "swin_v2_t": "`features[-1][-1].norm1`, inside the last block",
    "vgg11": "`features[-1]`, the pooling after it",
    "vit_b_32": "`encoder.layers[-1].ln_1`",
}
"""The commonly recommended layer, where it has another name or is another layer."""


if __name__ == "__main__":
    head, tail = PAGE.read_text("utf-8").split(START)
    PAGE.write_text(head + START + format_table() + END + tail.split(END)[1], "utf-8")
