"""What the command does: records, compares, shows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from lightning_gradcam.baseline.baseline import Baseline
from lightning_gradcam.baseline.profiles import PROFILES
from lightning_gradcam.baseline.report_json import read_report
from lightning_gradcam.baseline.summary import BaselineSummary
from lightning_gradcam.capture.forward import default_forward, find_forward
from lightning_gradcam.cli.data import load_images, parse_normalization
from lightning_gradcam.cli.errors import WrongCallError
from lightning_gradcam.cli.model import load_model
from lightning_gradcam.cli.parser import ParsedArgs
from lightning_gradcam.cli.progress import CountedForward, Progress
from lightning_gradcam.errors import IncompatibleError, NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.utils.files import write_atomic

PASSES = 3
"""A recording of its own explains its images in so many ways of cutting them into batches; another one, once."""


class Printable(Protocol):
    """What can be written in four ways."""

    def text(self) -> str:
        """For a terminal."""

    def markdown(self) -> str:
        """For a pull request."""

    def json(self) -> str:
        """For machines."""

    def html(self) -> str:
        """A page."""


_KINDS: Mapping[str, Callable[[Printable], str]] = {
    ".html": lambda shown: shown.html(),
    ".md": lambda shown: shown.markdown(),
    ".json": lambda shown: shown.json(),
    ".txt": lambda shown: shown.text() + "\n",
}


def baseline(asked: ParsedArgs) -> int:
    """``lightning-gradcam baseline``."""
    options, out = asked.options, Path(asked.options.out)
    if asked.model is None or (asked.data is None and options.like is None):
        raise WrongCallError("a baseline needs --model and --data")
    if options.store not in ("images", "hash"):
        raise WrongCallError(f"expected --store to be images or hash, but got {options.store!r}")
    if out.is_dir() or (out.exists() and not options.overwrite):
        raise WrongCallError(f"{str(out)!r} is there already: --overwrite replaces it")
    like = None if options.like is None else Baseline.load(options.like)
    model = load_model(asked.model, options.ckpt_path, options.prefix, options.device)
    probe = load_images(asked, options.images) if like is None else _images_of(like, asked)
    layers = options.layers[0] if options.layers in (["auto"], ["stages"]) else options.layers
    with Progress("explaining", (PASSES if like is None else 1) * len(probe)) as progress:
        try:
            recorded = Baseline.record(
                model,
                probe,
                layers=layers,
                method=options.method,
                target=options.target,
                store=options.store,
                forward=CountedForward(_forward(model), progress),
                like=like,
            )
        except (ValueError, NotExplainableError) as error:
            raise WrongCallError(str(error)) from error
    recorded.save(out)
    _print(f"wrote {out}\n{BaselineSummary.of(recorded).text()}")
    return 0


def compare(asked: ParsedArgs) -> int:
    """``lightning-gradcam compare``."""
    options = asked.options
    try:
        PROFILES.resolve(options.profile).with_thresholds(options.thresholds)
    except ValueError as error:
        raise WrongCallError(str(error)) from error
    _check_kinds(options.report)
    if (asked.model is None) == (options.candidate is None):
        raise WrongCallError("give what is to be compared: either --model (and --ckpt_path), or a second baseline file")
    pinned = Baseline.load(options.baseline)
    beside = [Baseline.load(path) for path in options.beside]
    if asked.model is None:
        report = pinned.compare(
            Baseline.load(options.candidate), profile=options.profile, thresholds=options.thresholds, beside=beside
        )
    else:
        model = load_model(asked.model, options.ckpt_path, options.prefix, options.device)
        probe = _images_of(pinned, asked)
        with Progress("explaining", len(probe)) as progress:
            try:
                report = pinned.compare(
                    model,
                    profile=options.profile,
                    thresholds=options.thresholds,
                    probe=probe,
                    beside=beside,
                    forward=CountedForward(_forward(model), progress),
                )
            except IncompatibleError:
                raise
            except (ValueError, NotExplainableError) as error:
                raise IncompatibleError(f"the model cannot be explained as the baseline was: {error}") from error
    _print(report.text())
    _write(report, options.report)
    return report.exit_code


def report(asked: ParsedArgs) -> int:
    """``lightning-gradcam report``: of a comparison, what it found is no matter of this command's exit code."""
    _check_kinds(asked.options.out)
    path = asked.options.file
    shown: Printable = read_report(path) if path.endswith(".json") else BaselineSummary.of(Baseline.load(path))
    if not asked.options.out:
        _print(shown.text())
    _write(shown, asked.options.out)
    return 0


WORK: Mapping[str, Callable[[ParsedArgs], int]] = {"baseline": baseline, "compare": compare, "report": report}


def _images_of(pinned: Baseline, asked: ParsedArgs) -> Probe:
    """The images that a candidate explains: those that are kept, or the data's, in the normalisation that is asked."""
    if asked.data is not None:
        return load_images(asked, len(pinned))
    if pinned.images is None:
        raise WrongCallError("the baseline holds the hash of its images only: give them again with --data")
    pixels = parse_normalization(asked)
    if pixels is None:
        return pinned.probe
    return Probe(pixels.normalize(pinned.images), labels=pinned.labels, pixels=pixels)


def _forward(model: nn.Module) -> Callable[[nn.Module, Probe], object]:
    return find_forward(model) or default_forward(model)


def _check_kinds(paths: Sequence[str]) -> None:
    for path in paths:
        if Path(path).suffix not in _KINDS:
            raise WrongCallError(f"expected a report's name to end in {', '.join(_KINDS)}, but got {path!r}")


def _write(shown: Printable, paths: Sequence[str]) -> None:
    for path in paths:
        try:
            write_atomic(path, _KINDS[Path(path).suffix](shown).encode())
        except OSError as error:
            raise WrongCallError(f"{path!r} could not be written: {error.strerror or error}") from error
        _print(f"wrote {path}")


def _print(words: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(words.encode(encoding, "replace").decode(encoding) + "\n")
