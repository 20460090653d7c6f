"""Pictures and words to any Lightning logger. Numbers need no help: `log` carries them.

No protocol for pictures exists among loggers, so each class has a function here, found by name along the logger's MRO:
a subclass is served by its parent's, and no logging library is imported that the user has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from torch import Tensor

from lightning_gradcam.utils.registry import Registry
from lightning_gradcam.utils.sanitize import escape_markdown

PictureWriter: TypeAlias = Callable[[Any, str, Tensor, int], None]
"""``(logger, tag, picture (3, h, w) uint8 on the CPU, step) -> None``."""

WRITERS = Registry[PictureWriter]("logger class")
"""By class name; ``@WRITERS.register("TensorBoardLogger")`` adds one."""

JPEG_QUALITY = 75
"""TensorBoard's writer sums every byte up in Python, so a smaller picture is written faster."""


def sanitize_name(name: str) -> str:
    """A name from a model or data, as a part of a path that stays where it is put.

    >>> sanitize_name("../layer 4.<b>"), sanitize_name("layer4.1")
    ('_layer_4._b_', 'layer4.1')
    """
    return re.sub(r"[^\w.=\-\[\]]+", "_", name).lstrip(".")[:100] or "_"


def sanitize_tag(tag: str) -> str:
    """A tag whose parts, between slashes, are safe names.

    >>> sanitize_tag("drift/net.<b>x")
    'drift/net._b_x'
    """
    return "/".join(map(sanitize_name, tag.split("/")))


def to_image(picture: Tensor) -> Image.Image:
    """``(3, h, w)`` uint8 on the CPU as a Pillow image. (torchvision's own encoders are deprecated.)"""
    # Pillow puts the channels beside one another ten times as fast as NumPy does.
    return Image.merge("RGB", [Image.fromarray(channel) for channel in picture.numpy()])


def find_writer(logger: Any) -> PictureWriter | None:
    """The function for the logger's class or the nearest of its parents that has one."""
    return next((WRITERS[c.__name__] for c in type(logger).__mro__ if c.__name__ in WRITERS), None)


def write_png(folder: str | Path, tag: str, picture: Tensor, step: int) -> Path:
    """Write ``folder/tag/step=000042.png``, the tag's parts as folders."""
    target = Path(folder, *(sanitize_name(part) for part in tag.split("/")), f"step={step:06d}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    to_image(picture).save(target, "PNG", compress_level=3)
    return target


@WRITERS.register("TensorBoardLogger")
def write_tensorboard(logger: Any, tag: str, picture: Tensor, step: int) -> None:
    """As encoded bytes: `add_image` would encode PNG in the calling thread, for fifty times as long."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    _, height, width = picture.shape
    encoded = BytesIO()
    to_image(picture).save(encoded, "JPEG", quality=JPEG_QUALITY)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


@WRITERS.register("CSVLogger")
def write_csv(logger: Any, tag: str, picture: Tensor, step: int) -> None:
    """PNG files beside the CSV."""
    write_png(logger.log_dir, tag, picture, step)


@WRITERS.register("WandbLogger")
def write_wandb(logger: Any, tag: str, picture: Tensor, step: int) -> None:
    """Under the Trainer's step, as the logger's own metrics are."""
    import wandb as library

    image = library.Image(to_image(picture))
    logger.experiment.log({tag: image, "trainer/global_step": step})


@WRITERS.register("MLFlowLogger")
def write_mlflow(logger: Any, tag: str, picture: Tensor, step: int) -> None:
    """As an image artifact with key and step."""
    logger.experiment.log_image(logger.run_id, picture.permute(1, 2, 0).numpy(), key=tag, step=step)


@WRITERS.register("CometLogger")
def write_comet(logger: Any, tag: str, picture: Tensor, step: int) -> None:
    """As an image of the experiment."""
    logger.experiment.log_image(picture.permute(1, 2, 0).numpy(), name=tag, step=step)


@WRITERS.register("DummyLogger")
def ignore_dummy(logger: Any, tag: str, picture: Tensor, step: int) -> None:
    """Nothing: `fast_dev_run` puts this one in the place of the user's."""


def log_image(loggers: Sequence[Any], folder: str | Path, tag: str, picture: Tensor, step: int) -> list[str]:
    """Hand a picture to every logger; without any, write it into ``folder``.

    Args:
        loggers: The Trainer's.
        folder: Where files go where there is no logger.
        tag: Its parts, between slashes, are made safe.
        picture: ``(3, h, w)`` uint8.
        step: Of the logger.

    Returns:
        A sentence for every logger that could not take it; the others did.
    """
    name, on_host, complaints = sanitize_tag(tag), picture.cpu(), []
    for logger in loggers or [None]:
        writer = make_file_writer(folder) if logger is None else find_writer(logger)
        kind = "the folder of files" if logger is None else type(logger).__name__
        if writer is None:
            complaints.append(
                f"{kind} is not known, so pictures are left out; numbers are logged. Add it with "
                "`@lightning_gradcam.loggers.WRITERS.register(...)`, or use a TensorBoardLogger beside it."
            )
            continue
        complaints += _tried(kind, "A picture", partial(writer, logger, name, on_host, step))
    return complaints


def _tried(kind: str, what: str, write: Callable[[], None]) -> list[str]:
    try:
        write()
    except Exception as error:  # a logger's fault, a full disk say, is none of the explanations'
        return [f"{what} could not be written to {kind} ({type(error).__name__}: {error})."]
    return []


def log_numbers(loggers: Sequence[Any], values: Mapping[str, float], step: int) -> list[str]:
    """Numbers where Lightning's own `log` is not allowed; returns as `log_image`."""
    complaints = []
    for logger in loggers:
        complaints += _tried(type(logger).__name__, "Numbers", partial(logger.log_metrics, dict(values), step))
    return complaints


def make_file_writer(folder: str | Path) -> PictureWriter:
    """A writer of PNG files, for runs without a logger."""

    def write(_logger: Any, tag: str, picture: Tensor, step: int) -> None:
        write_png(folder, tag, picture, step)

    return write


def log_text(loggers: Sequence[Any], tag: str, facts: Mapping[str, str], step: int) -> list[str]:
    """Words as a TensorBoard text; other loggers have the console. Returns as `log_image`."""
    rows = "\n".join(
        f"| {escape_markdown(name)} | {escape_markdown(' '.join(text.split()))} |" for name, text in facts.items()
    )
    table = f"| what | choice and reason |\n| --- | --- |\n{rows}"
    complaints = []
    for logger in loggers:
        if any(c.__name__ == "TensorBoardLogger" for c in type(logger).__mro__):
            complaints += _tried(type(logger).__name__, "A text", partial(_add_text, logger, tag, table, step))
    return complaints


def _add_text(logger: Any, tag: str, text: str, step: int) -> None:
    logger.experiment.add_text(tag, text, step)
