"""The command-line options. PyTorch is not imported here, so that ``--help`` responds immediately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from jsonargparse import ArgumentParser, Namespace

from lightning_gradcam.cli.import_spec import ImportSpec, create_spec, split_nested_arguments
from lightning_gradcam.cli.one_line_parser import HelpFormatter, OneLineParser

EXITS = (
    "exit codes: 0 pass, 1 regressed, 2 error in the call, model or data, 3 inconclusive, "
    "4 incompatible or unreadable baseline"
)

_DESCRIPTION = f"""Test the explanations of a vision model for regressions.

A baseline stores images and their explanations (Grad-CAM). Comparing a later model with it
shows whether the model still relies on the same evidence.

  lightning-gradcam baseline --model my.module.LitNet --ckpt_path a.ckpt --data my.module.Data --out b.safetensors
  lightning-gradcam compare b.safetensors --model my.module.LitNet --ckpt_path new.ckpt --report out.html
  lightning-gradcam report b.safetensors

{EXITS}"""

_BASELINE = """Explain images with a model and record the explanations in a file, by default with the images.

  lightning-gradcam baseline --model my.module.LitNet --ckpt_path a.ckpt --data my.module.Data --out b.safetensors
  lightning-gradcam baseline --model torchvision.models.resnet18 --model.weights IMAGENET1K_V1 --data photos/ \\
      --size 224 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --out b.safetensors

Pass arguments of the class or function as --model.NAME VALUE and --data.NAME VALUE (parsed by jsonargparse)."""

_COMPARE = f"""Compare a model, or another baseline, with a baseline.

  lightning-gradcam compare b.safetensors --model my.module.LitNet --ckpt_path new.ckpt --report out.html out.md
  lightning-gradcam compare b.safetensors candidate.safetensors --profile next-checkpoint --thresholds.mean 0.9
  lightning-gradcam compare b1.safetensors new.safetensors --profile retrain --beside b2.safetensors b3.safetensors ...

{EXITS}"""

_REPORT = """Show the contents of a baseline, or a comparison saved as JSON.

  lightning-gradcam report b.safetensors --out b.html
  lightning-gradcam report comparison.json --out comparison.md

JSON contains no figures: to get them for a comparison, write HTML with `compare --report`."""


@dataclass(frozen=True)
class ParsedArgs:
    """A parsed command line.

    Args:
        command: ``"baseline"``, ``"compare"`` or ``"report"``.
        options: Options by name.
        model: The class or function that creates the model.
        data: The class or function that creates the data, or a folder.
    """

    command: str
    options: Namespace
    model: ImportSpec | None = None
    data: ImportSpec | None = None


def parse(argv: Sequence[str]) -> ParsedArgs:
    """Parse the command line.

    Raises:
        SystemExit: Help was requested (0); the text was written.
        UsageError: An option is invalid, or there are arguments for a model or data without its path.
    """
    words, nested = split_nested_arguments(argv)
    parsed = _create_parser().parse_args(words)
    command = str(parsed.subcommand)
    options = parsed[command]
    specs = {option: create_spec(option, options.get(option), nested[option]) for option in nested}
    return ParsedArgs(command, options, **specs)


def _create_parser() -> ArgumentParser:
    parser = OneLineParser(
        prog="lightning-gradcam",
        description=_DESCRIPTION,
        formatter_class=HelpFormatter,
        version=version("lightning_gradcam"),
    )
    commands = parser.add_subcommands(required=True, metavar="{baseline,compare,report}", title="commands")
    commands.add_subcommand("baseline", _create_baseline_parser(), help="record explanations of images")
    commands.add_subcommand(
        "compare", _create_compare_parser(), help="compare a model, or another baseline, with a baseline"
    )
    commands.add_subcommand("report", _create_report_parser(), help="show a baseline, or a comparison saved as JSON")
    return parser


def _create_baseline_parser() -> ArgumentParser:
    parser = OneLineParser(
        description=_BASELINE,
        formatter_class=HelpFormatter,
        usage="lightning-gradcam baseline --out FILE --model NAME --data NAME [options]",
    )
    add = parser.add_argument
    add("--out", type=str, required=True, help="file to write, .safetensors")
    add("--overwrite", action="store_true", help="replace an existing file")
    _add_model_options(parser)
    _add_data_options(parser)
    add(
        "--images",
        type=int,
        default=128,
        help="number of images, at most; below 64, confidence intervals are too narrow",
    )
    add("--layers", type=str, nargs="+", default=["auto"], help="names of layers; auto selects one, stages several")
    add("--method", type=str, nargs="+", default=["gradcam"], help="gradcam, layercam, hirescam, ...")
    add(
        "--target",
        type=int | str,
        default="auto",
        help="label, predicted, or the index of a class; auto is label if there are labels, otherwise predicted",
    )
    add(
        "--output",
        type=str,
        default="auto",
        help="what the model's output is: classes, regression, embedding, segmentation, image, detection or other; "
        "auto infers it",
    )
    add(
        "--placement",
        type=str,
        default="receptive_field",
        help="where cells lie in the images: receptive_field, at the centers of their receptive fields, or stretch",
    )
    add(
        "--like",
        type=str,
        help="baseline to take layers, methods and classes from, and also images unless --data is given",
    )
    add(
        "--store",
        type=str,
        default="images",
        help="images, or hash to store only the hash of the images; then compare requires --data",
    )
    return _add_common_options(parser)


def _create_compare_parser() -> ArgumentParser:
    parser = OneLineParser(
        description=_COMPARE,
        formatter_class=HelpFormatter,
        usage="lightning-gradcam compare BASELINE [CANDIDATE] [--model NAME] [options]",
    )
    add = parser.add_argument
    add("baseline", type=str, help="the baseline file")
    add("candidate", type=str, nargs="?", help="another baseline file to compare, instead of --model")
    _add_model_options(parser)
    _add_data_options(parser)
    add(
        "--profile",
        type=str,
        default="same-weights",
        help="same-weights (export, refactoring, upgrades), next-checkpoint (a few more epochs), or retrain",
    )
    add(
        "--thresholds",
        type=dict[str, float],
        help="replace thresholds of the profile, e.g. --thresholds.mean 0.95 --thresholds.q10 0.8",
    )
    add(
        "--beside",
        type=str,
        nargs="+",
        default=[],
        help="for the profile retrain: baselines of at least four other training runs",
    )
    add("--report", type=str, nargs="+", default=[], help="files to write: .html (with figures), .md, .json or .txt")
    return _add_common_options(parser)


def _create_report_parser() -> ArgumentParser:
    parser = OneLineParser(
        description=_REPORT,
        formatter_class=HelpFormatter,
        usage="lightning-gradcam report FILE [--out FILE ...] [options]",
    )
    parser.add_argument("file", type=str, help="a baseline, or a comparison saved as .json")
    parser.add_argument("--out", type=str, nargs="+", default=[], help="files to write: .html, .md, .json or .txt")
    return _add_common_options(parser)


def _add_model_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", type=str | dict, help="class or function that creates an nn.Module, as package.module.Name")
    add("--ckpt_path", type=str, help="Lightning checkpoint, state dict or .safetensors; loaded without executing code")
    add("--prefix", type=str, default="", help="prefix to strip from the keys of the checkpoint, such as 'model.'")
    add("--device", type=str, default="auto", help="cpu, cuda, ...; auto is a GPU if there is one")


def _add_data_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=str | dict, help="path of a LightningDataModule, DataLoader or Dataset, or a folder of images")
    add("--size", type=int, nargs="+", help="for a folder: resize and center-crop images to N, or H W")
    add("--channels", type=int, default=3, help="for a folder: 3, or 1 for grayscale")
    add("--mean", type=float, nargs="+", help="mean of the normalization; by default that of the data's transforms")
    add("--std", type=float, nargs="+", help="standard deviation of the normalization")


def _add_common_options(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error in a model or data")
    return parser
