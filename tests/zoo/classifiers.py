"""Classifiers of timm, vit-pytorch and transformers; embeddings and regressions made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Entry, channels_last, tokens


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, **{"num_classes": 7, **options})

    return make


def part_of_timm(module: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    """Create a class whose sizes the named models of timm fix."""

    def make() -> nn.Module:
        import importlib

        return getattr(importlib.import_module(f"timm.models.{module}"), name)(**{"num_classes": 7, **options})

    return make


def small_vit(name: str = "vit_tiny_patch16_224", **options: Any) -> Callable[[], nn.Module]:
    return timm(name, **{"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3, **options})


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**SMALL, "image_size": 64, "patch_size": 16}


def hugging_face(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**options))

    return make


def vit_pytorch(module: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import importlib

        return getattr(importlib.import_module(f"vit_pytorch.{module}"), name)(**options)

    return make


class Standardized(nn.Module):
    """An age as a standardized number, from a timm backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm("resnet18", num_classes=0)()
        self.age = nn.Linear(512, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.age(self.backbone(images))


class Unit(nn.Module):
    """An embedding of unit length, from a timm backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm("resnet18", num_classes=0)()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.backbone(images), dim=1)


class Members(nn.Module):
    """An ensemble as torch-uncertainty packs it: each image once for every member, ``(M n, K)``."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(timm("resnet18")() for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(images) for member in self.members]).mean(0)


BLOCK = r"blocks(\.2(\.norm2)?)?|norm"
LAST_NORM = r"blocks\.2\.norm1"
"""Where the head reads a class token, the patches' last tensor that the score depends on."""

CLASSIFIERS = {
    "timm resnet18": Entry(timm("resnet18"), "layer3", (4, 4)),
    "timm resnet18, 4:3": Entry(timm("resnet18"), "layer4", (4, 6), (3, 128, 192)),
    "timm convnext": Entry(
        timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
        r"stages(\.3)?|head\.norm",
        (4, 4),
        (3, 128, 128),
    ),
    "timm efficientnet": Entry(timm("efficientnet_b0"), r"(bn2|blocks\.6|conv_head).*", (4, 4), (3, 128, 128)),
    "timm vit": Entry(small_vit(), LAST_NORM, (4, 4), read=tokens(4, 4, before=1)),
    "timm vit, registers": Entry(
        small_vit("vit_small_patch14_reg4_dinov2", patch_size=16), LAST_NORM, (4, 4), read=tokens(4, 4, before=5)
    ),
    "timm vit, mean of patches": Entry(
        small_vit(class_token=False, global_pool="avg", fc_norm=False), BLOCK, (4, 4), read=tokens(4, 4)
    ),
    "timm vit, not square": Entry(
        small_vit(img_size=(64, 96)), LAST_NORM, (4, 6), (3, 64, 96), read=tokens(4, 6, before=1)
    ),
    "timm deit, two tokens": Entry(
        small_vit("deit_tiny_distilled_patch16_224"), LAST_NORM, (4, 4), read=tokens(4, 4, before=2)
    ),
    "timm cait": Entry(small_vit("cait_xxs24_224", num_heads=3), r"blocks(\.2)?", (4, 4), read=tokens(4, 4)),
    "timm xcit": Entry(
        small_vit("xcit_nano_12_p16_224", num_heads=3),
        r"blocks\.2",
        (4, 4),
        read=tokens(4, 4),
        known={
            "layer": "a block of class attention is taken for the last map of patches",
            "map": "a block of class attention is taken for the last map of patches",
        },
    ),
    "timm volo": Entry(
        part_of_timm(
            "volo", "VOLO", layers=[1, 1, 1, 1], img_size=64, embed_dims=[16, 32, 32, 32], num_heads=[2, 2, 2, 2]
        ),
        r"network\.\d(\.\d)?|norm",
        (4, 4),
        read=tokens(4, 4, before=1),
    ),
    "timm swin": Entry(
        timm("swin_tiny_patch4_window7_224", img_size=128, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
        r"layers(\.3)?|norm",
        (4, 4),
        (3, 128, 128),
        read=channels_last,
    ),
    "timm hiera": Entry(
        timm("hiera_tiny_224", img_size=128, embed_dim=16, stages=(1, 1, 1, 1), num_heads=1),
        r"blocks\.3|blocks",
        (4, 4),
        (3, 128, 128),
        read=tokens(4, 4),
    ),
    "timm mobilevit": Entry(timm("mobilevit_xxs"), r"final_conv|stages\.4(\.\d)?|stages", (4, 4), (3, 128, 128)),
    "timm naflexvit": Entry(
        timm("naflexvit_base_patch16_gap", embed_dim=48, depth=3, num_heads=3),
        BLOCK,
        (4, 4),
        read=tokens(4, 4, before=4),
        known={
            "layer": "tokens with registers, on a grid of 16 patches, are passed over for the patch embedding",
            "map": "tokens with registers, on a grid of 16 patches, are passed over for the patch embedding",
        },
    ),
    "timm mixer": Entry(
        part_of_timm("mlp_mixer", "MlpMixer", img_size=64, embed_dim=48, num_blocks=2),
        r"(blocks(\.1)?|norm)",
        (4, 4),
        read=tokens(4, 4),
    ),
    "timm poolformer": Entry(
        part_of_timm("metaformer", "MetaFormer", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
        r"stages(\.3)?|head\.norm",
        (4, 4),
        (3, 128, 128),
    ),
    "timm coatnet": Entry(
        timm("coatnet_0_224", img_size=128, embed_dim=(32, 32, 32, 32), depths=(1, 1, 1, 1), stem_width=16),
        r"stages(\.3)?(\..*)?|norm",
        (4, 4),
        (3, 128, 128),
    ),
    "timm inception": Entry(timm("inception_v4"), r"features(\.21)?", (5, 5), (3, 224, 224), local=False),
    "timm beit": Entry(small_vit("beit_base_patch16_224"), BLOCK, (4, 4), read=tokens(4, 4, before=1)),
    "timm eva02": Entry(small_vit("eva02_tiny_patch14_224", patch_size=16), BLOCK, (4, 4), read=tokens(4, 4, before=1)),
    "vit-pytorch vit": Entry(
        vit_pytorch("vit", "ViT", image_size=64, patch_size=16, num_classes=7, dim=48, depth=2, heads=2, mlp_dim=64),
        r"transformer(\..*)?",
        (4, 4),
        read=tokens(4, 4, before=1),
    ),
    "vit-pytorch simple": Entry(
        vit_pytorch(
            "simple_vit", "SimpleViT", image_size=64, patch_size=16, num_classes=7, dim=48, depth=2, heads=2, mlp_dim=64
        ),
        r"transformer(\..*)?",
        (4, 4),
        read=tokens(4, 4),
    ),
    "vit-pytorch registers behind the patches": Entry(
        vit_pytorch(
            "simple_vit_with_register_tokens",
            "SimpleViT",
            image_size=64,
            patch_size=16,
            num_classes=7,
            dim=48,
            depth=2,
            heads=2,
            mlp_dim=64,
        ),
        r"transformer(\..*)?",
        (4, 4),
        read=tokens(4, 4),
        known={
            "layer": "tokens with registers, on a grid of 16 patches, are passed over for the patch embedding",
            "map": "tokens with registers, on a grid of 16 patches, are passed over for the patch embedding",
        },
    ),
    "vit-pytorch cct": Entry(
        vit_pytorch(
            "cct",
            "CCT",
            img_size=64,
            embedding_dim=48,
            n_conv_layers=2,
            kernel_size=7,
            stride=2,
            padding=3,
            pooling_kernel_size=3,
            pooling_stride=2,
            pooling_padding=1,
            num_layers=2,
            num_heads=2,
            mlp_ratio=2,
            num_classes=7,
            positional_embedding="learnable",
        ),
        r"classifier\.(blocks\.1(\..*)?|norm)",
        (4, 4),
        read=tokens(4, 4),
    ),
    "transformers vit": Entry(
        hugging_face("ViTForImageClassification", "ViTConfig", **VIT, num_labels=7),
        r"vit(\.encoder|\.layernorm|\.layers?|\.encoder\.layer)?(\.1)?(\..*)?",
        (4, 4),
        read=tokens(4, 4, before=1),
    ),
    "transformers dinov2 with registers": Entry(
        hugging_face(
            "Dinov2WithRegistersForImageClassification",
            "Dinov2WithRegistersConfig",
            image_size=64,
            patch_size=16,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_labels=7,
            num_register_tokens=4,
        ),
        r"dinov2_with_registers\..*",
        (4, 4),
        read=tokens(4, 4, before=5),
    ),
    "transformers swin": Entry(
        hugging_face(
            "SwinForImageClassification",
            "SwinConfig",
            image_size=64,
            embed_dim=16,
            depths=[1, 1],
            num_heads=[1, 2],
            window_size=4,
            num_labels=7,
        ),
        r"swin\..*",
        (8, 8),
        read=tokens(8, 8),
    ),
    "transformers convnext": Entry(
        hugging_face(
            "ConvNextForImageClassification",
            "ConvNextConfig",
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 1, 1],
            num_labels=7,
        ),
        r"convnext\.encoder.*",
        (4, 4),
        (3, 128, 128),
    ),
    "ensemble": Entry(Members, r"members\.1\.layer4", (4, 4), (3, 128, 128)),
    "embedding of timm": Entry(timm("resnet18", num_classes=0), "layer4", (4, 4), (3, 128, 128), kind="embedding"),
    "embedding of unit length": Entry(Unit, r"backbone\.layer4", (4, 4), (3, 128, 128), kind="embedding"),
    "embedding of transformers": Entry(
        hugging_face("ViTModel", "ViTConfig", **VIT),
        r"(encoder|layernorm|layers?|encoder\.layer)?(\.1)?(\..*)?",
        (4, 4),
        kind="embedding",
        read=tokens(4, 4, before=1),
    ),
    "age": Entry(
        Standardized,
        r"backbone\.layer4",
        (4, 4),
        (3, 128, 128),
        kind="regression",
        labels=partial(torch.linspace, -1.0, 2.0),
    ),
}
