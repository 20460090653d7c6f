"""`layers="auto"` in models of timm and transformers: a map on the grid of ``forward_features``."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_gradcam import explain
from tests.parity.architectures import randomize, skip_initialization

pytestmark = pytest.mark.zoo

TIMM = {  # model and the layer that `auto` chooses
    "vit_tiny_patch16_224": "blocks.11.norm1",
    "deit_tiny_distilled_patch16_224": "blocks.11.norm1",
    "vit_tiny_r_s16_p8_224": "blocks.11.norm1",
    "beit_base_patch16_224": "blocks.11",
    "eva02_tiny_patch14_224": "blocks.11",
    "cait_xxs24_224": "blocks",
    "xcit_nano_12_p16_224": "cls_attn_blocks.1.norm1",
    "mixer_s32_224": "norm",
    "resmlp_12_224": "norm",
    "gmlp_ti16_224": "norm",
    "pit_ti_224": "transformers.2.blocks.3.norm1",
    "convit_tiny": "blocks.11.norm1",
    "levit_128s": "stages",
    "swin_tiny_patch4_window7_224": "norm",
    "twins_pcpvt_small": "norm",
    "visformer_tiny": "norm",
    "poolformer_s12": "stages",
    "mobilevit_xs": "final_conv",
    "efficientformer_l1": "norm",
    "coatnet_nano_rw_224": "norm",
    "maxvit_rmlp_pico_rw_256": "norm",
    "resnet10t": None,
    "convnext_atto": None,
    "efficientnet_lite0": None,
    "mobilenetv4_conv_small": None,
    "regnetx_002": None,
    "repvgg_a0": None,
    "ghostnet_050": None,
    "hrnet_w18_small": None,
    "edgenext_xx_small": None,
}


@pytest.mark.filterwarnings("ignore")  # from the libraries
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    import timm

    with skip_initialization():
        model = timm.create_model(name).eval()
    randomize(model)
    images = torch.rand(2, 3, *model.default_cfg["input_size"][1:])
    explanation = explain(model, images)
    with torch.inference_mode():
        features = model.forward_features(images)
    [(layer, evidence)] = explanation.evidence.items()
    grid = tuple(evidence.shape[1:])
    if TIMM[name]:
        assert layer == TIMM[name]
    if features.ndim == 3:  # tokens; PiT returns only those that are not patches
        assert features.shape[1] - math.prod(grid) in range(3) or features.shape[1] <= 2
    else:
        last = getattr(model, "output_fmt", None) == "NHWC"
        assert grid == tuple(features.shape[1:3] if last else features.shape[2:])
    assert not {"not finite", "no gradient"} & set(explanation.degenerate[layer])


TRANSFORMERS = {
    "ViT": {"image_size": (64, 96), "patch_size": 16},
    "Swin": {"image_size": 64, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
    "ConvNext": {"image_size": 64, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "Dinov2": {"image_size": 64, "patch_size": 16},
    "Beit": {"image_size": 64, "patch_size": 16},
}
GRIDS = {"ViT": (4, 6), "Swin": (8, 8), "ConvNext": (4, 4), "Dinov2": (4, 4), "Beit": (4, 4)}


@pytest.mark.filterwarnings("ignore")  # from the libraries
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    settings = {**({} if name in ("Swin", "ConvNext") else small), **TRANSFORMERS[name]}
    config = getattr(transformers, f"{name}Config")(**settings, num_labels=5)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    randomize(model)
    size = TRANSFORMERS[name]["image_size"]
    # ConvNeXt takes images of any size; 128 pixels give 16 cells.
    shape = size if isinstance(size, tuple) else (128, 128) if name == "ConvNext" else (size, size)
    explanation = explain(model, torch.rand(2, 3, *shape))
    [(layer, evidence)] = explanation.evidence.items()
    assert tuple(evidence.shape[1:]) == GRIDS[name]
    assert not any(part in layer for part in ("query", "key", "value", "q_proj", "k_proj", "v_proj"))
    assert not {"not finite", "no gradient"} & set(explanation.degenerate[layer])
