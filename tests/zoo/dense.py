"""Segmentation, detection, pose, depth and reconstruction; models of torchvision, smp, transformers and MONAI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo.classifiers import VIT, hugging_face
from tests.zoo.entry import Entry, tokens


def smp(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import segmentation_models_pytorch

        return getattr(segmentation_models_pytorch, name)(encoder_weights=None, **options)

    return make


def monai(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from monai.networks import nets

        return getattr(nets, name)(**options)

    return make


def torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision.models as models

        return models.get_model(name, weights=None, weights_backbone=None, **options)

    return make


def masks(count: int) -> torch.Tensor:
    return torch.arange(count * 64 * 64).reshape(count, 64, 64) % 4


SEGFORMER = {
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 1, 2, 2],
    "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 16,
}
UNET = r"decoder(\.blocks\.4(\..*)?)?"
DETR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
    "num_labels": 4,
}


def detr() -> nn.Module:
    import transformers

    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, use_pretrained_backbone=False, backbone=None, **DETR
    )
    return transformers.DetrForObjectDetection(config)


DENSE = {
    "smp unet": Entry(
        smp("Unet", encoder_name="resnet18", classes=4),
        UNET,
        (64, 64),
        kind="segmentation",
        labels=masks,
    ),
    "smp fpn": Entry(
        smp("FPN", encoder_name="resnet18", classes=4), r"decoder(\..*)?", (16, 16), kind="segmentation", labels=masks
    ),
    "smp deeplab": Entry(
        smp("DeepLabV3Plus", encoder_name="resnet18", classes=4),
        r"decoder(\..*)?",
        (16, 16),
        kind="segmentation",
        labels=masks,
    ),
    "smp unet, a head of classes": Entry(
        smp("Unet", encoder_name="resnet18", classes=4, aux_params={"classes": 3}),
        UNET,
        (64, 64),
        kind="segmentation",
        labels=masks,
    ),
    "transformers segformer": Entry(
        hugging_face("SegformerForSemanticSegmentation", "SegformerConfig", **SEGFORMER, num_labels=4),
        r"decode_head\..*|segformer\..*",
        (16, 16),
        kind="segmentation",
        labels=masks,
    ),
    "torchvision lraspp": Entry(
        torchvision("lraspp_mobilenet_v3_large", num_classes=4),
        r"classifier\.cbr",
        (4, 4),
        kind="segmentation",
        labels=masks,
        local=False,
    ),
    "monai unet of volumes": Entry(
        monai(
            "UNet", spatial_dims=3, in_channels=1, out_channels=3, channels=(4, 8, 16), strides=(2, 2), num_res_units=1
        ),
        r"model\.2(\.0)?(\..*)?|model\.1(\..*)?",
        (16, 16, 16),
        (1, 16, 16, 16),
        kind="segmentation",
        labels=lambda count: torch.arange(count * 16**3).reshape(count, 16, 16, 16) % 3,
    ),
    "monai densenet of volumes": Entry(
        monai(
            "DenseNet121",
            spatial_dims=3,
            in_channels=1,
            out_channels=3,
            init_features=8,
            growth_rate=4,
            block_config=(2, 2, 2, 2),
        ),
        r"features(\..*)?",
        (4, 4, 4),
        (1, 64, 64, 64),
        local=False,
    ),
    "transformers masked autoencoder": Entry(
        hugging_face(
            "ViTMAEForPreTraining",
            "ViTMAEConfig",
            **VIT,
            mask_ratio=0.0,
            decoder_hidden_size=32,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
        ),
        r"decoder\.decoder_(norm|layers\.0)|vit\..*",
        (4, 4),
        kind="",
        local=False,
        read=tokens(4, 4, before=1),
        score=lambda output: output.logits.flatten(1).logsumexp(1),
    ),
    "transformers depth": Entry(
        hugging_face(
            "GLPNForDepthEstimation",
            "GLPNConfig",
            **{k: v for k, v in SEGFORMER.items() if k != "decoder_hidden_size"},
            decoder_hidden_size=8,
        ),
        r"decoder(\..*)?|head\.head\.1",
        (64, 64),
        kind="",
    ),
    "transformers pose": Entry(
        hugging_face(
            "VitPoseForPoseEstimation",
            "VitPoseConfig",
            num_labels=5,
            use_simple_decoder=True,
            backbone_config={
                "model_type": "vitpose_backbone",
                "image_size": [64, 64],
                "patch_size": [16, 16],
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "out_features": ["stage2"],
                "out_indices": [2],
            },
        ),
        r"head\.upsampling",
        (16, 16),
        kind="",
    ),
    "transformers yolos": Entry(
        hugging_face(
            "YolosForObjectDetection",
            "YolosConfig",
            **{**VIT, "image_size": [64, 64]},
            num_detection_tokens=5,
            num_labels=4,
        ),
        r"vit\..*",
        (4, 4),
        kind="",
        read=tokens(4, 4, before=1),
        score=lambda output: output.logits.flatten(1).logsumexp(1),
    ),
    "transformers detr": Entry(
        detr,
        r"model\.(input_projection|encoder.*|backbone.*)",
        (4, 4),
        (3, 128, 128),
        kind="",
        read=tokens(4, 4),
        score=lambda output: output.logits.flatten(1).logsumexp(1),
    ),
}
