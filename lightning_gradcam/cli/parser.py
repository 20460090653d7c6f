"""What the command can be told. PyTorch is not loaded here: help should be there at once."""

from __future__ import annotations

import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from lightning_gradcam.cli.errors import WrongCallError

EXITS = "exit codes: 0 pass, 1 regressed, 2 wrong call, 3 inconclusive, 4 incompatible or unreadable baseline"

_ABOUT = f"""Pin what a vision model looks at, as its accuracy is pinned, and see it fail when it moved.

  lightning-gradcam baseline --model my.module.LitNet --ckpt_path a.ckpt --data my.module.Data --out b.safetensors
  lightning-gradcam compare b.safetensors --model my.module.LitNet --ckpt_path new.ckpt --report out.html
  lightning-gradcam report b.safetensors

{EXITS}"""

_BASELINE = """Explain images and keep what was found, and by default the images, in one file.

  lightning-gradcam baseline --model my.module.LitNet --ckpt_path a.ckpt --data my.module.Data --out b.safetensors
  lightning-gradcam baseline --model torchvision.models.resnet18 --model.weights IMAGENET1K_V1 --data photos/ \\
      --size 224 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --out b.safetensors

Arguments of the class or function: --model.NAME VALUE, --data.NAME VALUE, as jsonargparse reads them."""

_COMPARE = f"""Explain the baseline's images with another model, or take another baseline, and judge.

  lightning-gradcam compare b.safetensors --model my.module.LitNet --ckpt_path new.ckpt --report out.html out.md
  lightning-gradcam compare b.safetensors candidate.safetensors --profile next-checkpoint --thresholds.mean 0.9
  lightning-gradcam compare b1.safetensors new.safetensors --profile retrain --beside b2.safetensors b3.safetensors ...

{EXITS}"""

_REPORT = """Show what a baseline holds, or a comparison that was saved as JSON.

  lightning-gradcam report b.safetensors --out b.html
  lightning-gradcam report comparison.json --out comparison.md

A comparison's pictures are in the HTML page that `compare --report` writes, not in its JSON."""


@dataclass(frozen=True)
class ImportSpec:
    """A class or function by its path, with what it is to be called with.

    Args:
        path: ``package.module.Name``.
        arguments: As a configuration file gives them.
        words: As the command line gives them, ``--name=value``.
    """

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[str] = ()


@dataclass(frozen=True)
class ParsedArgs:
    """A call of the command.

    Args:
        command: ``"baseline"``, ``"compare"`` or ``"report"``.
        options: What it was told, by name.
        model: What makes the model.
        data: What makes the data, or a folder.
    """

    command: str
    options: Namespace
    model: ImportSpec | None = None
    data: ImportSpec | None = None


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of examples."""


def parse(argv: Sequence[str]) -> ParsedArgs:
    """Read the words of a call.

    Raises:
        SystemExit: Help was asked for (0), or there is no such option (2); both were written.
        WrongCallError: A model or data without its path.
    """
    own, inside = _apart(argv)
    found = _parser().parse_args(own)
    command = str(found.subcommand)
    options = found[command]
    named = {what: _named(what, options.get(what), inside[what]) for what in inside}
    return ParsedArgs(command, options, **named)


def _apart(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The command's own words, and those for what makes the model and the data, as ``--name=value``."""
    own: list[str] = []
    inside: dict[str, list[str]] = {"model": [], "data": []}
    words = iter(argv)
    for word in words:
        found = re.fullmatch(r"--(model|data)\.(?:init_args\.)?([^=]+)(=.*)?", word, re.DOTALL)
        if found is None:
            own.append(word)
            continue
        what, name, value = found[1], found[2], found[3] or f"={next(words, '')}"
        if name == "class_path":
            own += [f"--{what}", value[1:]]
        else:
            inside[what].append(f"--{name}{value}")
    return own, inside


def _named(what: str, given: Any, words: Sequence[str]) -> ImportSpec | None:
    if given is None:
        if words:
            raise WrongCallError(f"{words[0].split('=')[0].replace('--', f'--{what}.')} needs --{what}")
        return None
    if isinstance(given, str):
        return ImportSpec(given, {}, words)
    if set(given) - {"class_path", "init_args"} or not isinstance(given.get("class_path"), str):
        raise WrongCallError(f"expected --{what} to be a path, or class_path and init_args, but got {given!r}")
    return ImportSpec(given["class_path"], given.get("init_args") or {}, words)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="lightning-gradcam", description=_ABOUT, formatter_class=_Help, version=version("lightning_gradcam")
    )
    commands = parser.add_subcommands(required=True, metavar="{baseline,compare,report}", title="commands")
    commands.add_subcommand("baseline", _baseline(), help="explain images and keep what was found")
    commands.add_subcommand("compare", _compare(), help="whether a model's explanations are still those")
    commands.add_subcommand("report", _report(), help="show a baseline, or a comparison saved as JSON")
    return parser


def _baseline() -> ArgumentParser:
    parser = ArgumentParser(description=_BASELINE, formatter_class=_Help)
    add = parser.add_argument
    add("--out", type=str, required=True, help="the file to write, .safetensors")
    add("--overwrite", action="store_true", help="also where there is one already")
    _add_model(parser)
    _add_data(parser)
    add("--images", type=int, default=128, help="how many images at most; fewer than 64 make intervals too narrow")
    add("--layers", type=str, nargs="+", default=["auto"], help="names of layers; auto is one, stages several")
    add("--method", type=str, nargs="+", default=["gradcam"], help="gradcam, layercam, hirescam, ...")
    add("--target", type=int | str, default="auto", help="auto (label, else predicted), label, predicted, or a class")
    add("--like", type=str, help="take layers, methods, classes, and images without --data, from this baseline")
    add("--store", type=str, default="images", help="images, or hash: then comparing needs --data again")
    return _with_common(parser)


def _compare() -> ArgumentParser:
    parser = ArgumentParser(description=_COMPARE, formatter_class=_Help)
    add = parser.add_argument
    add("baseline", type=str, help="the file that was recorded")
    add("candidate", type=str, nargs="?", help="another baseline file, instead of --model")
    _add_model(parser)
    _add_data(parser)
    add(
        "--profile",
        type=str,
        default="same-weights",
        help="same-weights (export, refactoring, upgrades), next-checkpoint (more epochs), or retrain",
    )
    add(
        "--thresholds", type=dict[str, float], help="other ones, one by one: --thresholds.mean 0.95 --thresholds.q10 .8"
    )
    add("--beside", type=str, nargs="+", default=[], help="for retrain: baselines of at least four other trainings")
    add("--report", type=str, nargs="+", default=[], help="files to write: .html (with pictures), .md, .json or .txt")
    return _with_common(parser)


def _report() -> ArgumentParser:
    parser = ArgumentParser(description=_REPORT, formatter_class=_Help)
    parser.add_argument("file", type=str, help="a baseline, or a comparison saved as .json")
    parser.add_argument("--out", type=str, nargs="+", default=[], help="files to write: .html, .md, .json or .txt")
    return _with_common(parser)


def _add_model(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", type=str | dict, help="path of a class or function, package.module.Name, that makes an nn.Module")
    add("--ckpt_path", type=str, help="Lightning's checkpoint, a state_dict, or .safetensors; holds no code")
    add("--prefix", type=str, default="", help="what the names in the checkpoint begin with, and the model's do not")
    add("--device", type=str, default="auto", help="cpu, cuda, ...; auto is a GPU where there is one")


def _add_data(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=str | dict, help="path of a LightningDataModule, DataLoader or Dataset; or a folder of images")
    add("--size", type=int, nargs="+", help="of a folder's images: N, or H W; the middle is cut out")
    add("--channels", type=int, default=3, help="of a folder's images: 3, or 1 for grey ones")
    add("--mean", type=float, nargs="+", help="the normalisation's; by default found in the data")
    add("--std", type=float, nargs="+", help="the normalisation's")


def _with_common(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_argument("--traceback", action="store_true", help="show where a model or data failed")
    return parser
