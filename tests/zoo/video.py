"""Clips and spectrograms: models of torchvision and transformers."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.zoo.classifiers import SMALL, hugging_face
from tests.zoo.entry import Entry, channels_last, tokens


def torchvision_video(name: str, **options) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision.models.video as models

        return getattr(models, name)(num_classes=7, **options)

    return make


def swin3d() -> nn.Module:
    from torchvision.models.video import SwinTransformer3d

    return SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=[4, 4, 4],
        num_classes=7,
    )


VIDEO = {
    "torchvision r3d": Entry(torchvision_video("r3d_18"), "layer4|layer3", (2, 4, 4), (3, 16, 64, 64)),
    "torchvision swin3d": Entry(swin3d, r"features(\.6)?|norm", (4, 4, 4), (3, 8, 128, 128), read=channels_last),
    "transformers videomae": Entry(
        hugging_face(
            "VideoMAEForVideoClassification",
            "VideoMAEConfig",
            **SMALL,
            image_size=32,
            patch_size=8,
            num_frames=4,
            tubelet_size=2,
            num_labels=7,
        ),
        r"videomae(\..*)?",
        (2, 4, 4),
        (4, 3, 32, 32),
        read=tokens(2, 4, 4),
    ),
    "transformers timesformer": Entry(
        hugging_face(
            "TimesformerForVideoClassification",
            "TimesformerConfig",
            **SMALL,
            image_size=32,
            patch_size=8,
            num_frames=4,
            num_labels=7,
        ),
        # The norm before the last attention within frames, which are rows of the batch, each with a class token first.
        r"timesformer\.encoder\.layer\.1\.layernorm_before",
        (4, 4, 4),
        (4, 3, 32, 32),
        local=False,  # attention over time mixes the frames
        read=lambda output: output[:, 1:].mT.unflatten(2, (4, 4)).unflatten(0, (-1, 4)).movedim(1, 2),
    ),
    "transformers audio spectrogram": Entry(
        hugging_face(
            "ASTForAudioClassification",
            "ASTConfig",
            **SMALL,
            patch_size=16,
            frequency_stride=16,
            time_stride=16,
            max_length=128,
            num_mel_bins=64,
            num_labels=7,
        ),
        # The spectrogram is (time, frequency) and turned inside the model: tokens are rows of frequency.
        r"audio_spectrogram_transformer(\..*)?",
        (8, 4),
        (128, 64),
        read=lambda output: output[:, 2:].transpose(1, 2).unflatten(2, (4, 8)).transpose(2, 3),
    ),
}
