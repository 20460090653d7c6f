"""Figures, numbers and text to any Lightning logger.

Lightning loggers share no method for images, so each logger class has a writer here, found by the class names in its
MRO: subclasses use the writer of their parent, and no logging library is imported unless the user has it.
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

ImageWriter: TypeAlias = Callable[[Any, str, Tensor, int], None]
"""``(logger, tag, figure (3, h, w) uint8 on the CPU, step) -> None``."""

WRITERS = Registry[ImageWriter]("logger class")
"""Image writers by logger class name; ``@WRITERS.register("TensorBoardLogger")`` adds one."""

JPEG_QUALITY = 75
"""TensorBoard computes a checksum byte by byte in Python, so smaller files are written faster."""


def sanitize_name(name: str) -> str:
    """Convert a name from a model or data to a path component that cannot leave its folder.

    >>> sanitize_name("../layer 4.<b>"), sanitize_name("layer4.1")
    ('_layer_4._b_', 'layer4.1')
    """
    return re.sub(r"[^\w.=\-\[\]]+", "_", name).lstrip(".")[:100] or "_"


def sanitize_tag(tag: str) -> str:
    """Sanitize each part of a tag, between slashes.

    >>> sanitize_tag("drift/net.<b>x")
    'drift/net._b_x'
    """
    return "/".join(map(sanitize_name, tag.split("/")))


def to_image(figure: Tensor) -> Image.Image:
    """Convert ``(3, h, w)`` uint8 on the CPU to a Pillow image. (torchvision's encoders are deprecated.)"""
    # Pillow interleaves channels ten times as fast as NumPy.
    return Image.merge("RGB", [Image.fromarray(channel) for channel in figure.numpy()])


def find_writer(logger: Any) -> ImageWriter | None:
    """Return the writer of the logger's class, or of its nearest parent class that has one."""
    return next((WRITERS[cls.__name__] for cls in type(logger).__mro__ if cls.__name__ in WRITERS), None)


def write_png(folder: str | Path, tag: str, figure: Tensor, step: int) -> Path:
    """Write ``folder/tag/step=000042.png``, with the parts of the tag as folders."""
    path = Path(folder, *(sanitize_name(part) for part in tag.split("/")), f"step={step:06d}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(figure).save(path, "PNG", compress_level=3)
    return path


@WRITERS.register("TensorBoardLogger")
def write_tensorboard(logger: Any, tag: str, figure: Tensor, step: int) -> None:
    """Write a JPEG: `add_image` would encode a PNG in the calling thread, fifty times as slow."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    _, height, width = figure.shape
    encoded = BytesIO()
    to_image(figure).save(encoded, "JPEG", quality=JPEG_QUALITY)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


@WRITERS.register("CSVLogger")
def write_csv(logger: Any, tag: str, figure: Tensor, step: int) -> None:
    """Write a PNG file to the folder of the CSV file."""
    write_png(logger.log_dir, tag, figure, step)


@WRITERS.register("WandbLogger")
def write_wandb(logger: Any, tag: str, figure: Tensor, step: int) -> None:
    """Log an image under the Trainer's global step, as the logger does with metrics."""
    import wandb as library

    image = library.Image(to_image(figure))
    logger.experiment.log({tag: image, "trainer/global_step": step})


@WRITERS.register("MLFlowLogger")
def write_mlflow(logger: Any, tag: str, figure: Tensor, step: int) -> None:
    """Log an image artifact with key and step."""
    logger.experiment.log_image(logger.run_id, figure.permute(1, 2, 0).numpy(), key=tag, step=step)


@WRITERS.register("CometLogger")
def write_comet(logger: Any, tag: str, figure: Tensor, step: int) -> None:
    """Log an image of the experiment."""
    logger.experiment.log_image(figure.permute(1, 2, 0).numpy(), name=tag, step=step)


@WRITERS.register("DummyLogger")
def skip_dummy(logger: Any, tag: str, figure: Tensor, step: int) -> None:
    """Write nothing: `fast_dev_run` replaces the user's loggers by this one."""


def log_image(loggers: Sequence[Any], tag: str, figure: Tensor, step: int) -> list[str]:
    """Pass a figure to every logger.

    Args:
        loggers: The Trainer's loggers.
        tag: Its parts, between slashes, are sanitized.
        figure: ``(3, h, w)`` uint8.
        step: The step of the logger.

    Returns:
        A warning for each logger that failed; the others have the figure.
    """
    safe_tag, cpu_figure, warnings = sanitize_tag(tag), figure.cpu(), []
    for logger in loggers:
        writer, destination = find_writer(logger), get_destination(logger)
        if writer is None:
            warnings.append(
                f"{destination} has no image writer, so figures are not logged; numbers are. Register a writer with "
                "`@lightning_gradcam.loggers.WRITERS.register(...)`, or add a TensorBoardLogger."
            )
            continue
        warnings += _try_write(destination, "A figure", partial(writer, logger, safe_tag, cpu_figure, step))
    return warnings


def log_numbers(loggers: Sequence[Any], values: Mapping[str, float], step: int) -> list[str]:
    """Log numbers in hooks that do not allow Lightning's own `log`; returns warnings as `log_image` does."""
    warnings = []
    for logger in loggers:
        warnings += _try_write(get_destination(logger), "Numbers", partial(logger.log_metrics, dict(values), step))
    return warnings


def log_text(loggers: Sequence[Any], tag: str, facts: Mapping[str, str], step: int) -> list[str]:
    """Log facts as a TensorBoard text; with other loggers they are only in the console.

    Returns:
        Warnings as `log_image`.
    """
    rows = "\n".join(
        f"| {escape_markdown(name)} | {escape_markdown(' '.join(text.split()))} |" for name, text in facts.items()
    )
    table = f"| what | choice and reason |\n| --- | --- |\n{rows}"
    warnings = []
    for logger in loggers:
        if any(cls.__name__ == "TensorBoardLogger" for cls in type(logger).__mro__):
            warnings += _try_write(get_destination(logger), "A text", partial(_add_text, logger, tag, table, step))
    return warnings


def get_destination(logger: Any) -> str:
    """Return what warnings call a logger: its class, or the ``destination`` that the class gives."""
    return str(getattr(type(logger), "destination", type(logger).__name__))


def _try_write(destination: str, content: str, write: Callable[[], None]) -> list[str]:
    """Call a writer, and return a warning if it fails."""
    try:
        write()
    except Exception as error:  # an error of a logger, such as a full disk, must not stop the explanations
        return [f"{content} could not be written to {destination} ({type(error).__name__}: {error})."]
    return []


def _add_text(logger: Any, tag: str, text: str, step: int) -> None:
    logger.experiment.add_text(tag, text, step)
