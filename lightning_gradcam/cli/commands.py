"""The commands: record a baseline, compare with it, and show reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lightning_gradcam.baseline.baseline import Baseline
from lightning_gradcam.baseline.profiles import PROFILES
from lightning_gradcam.baseline.report import Report
from lightning_gradcam.baseline.report_json import read_report
from lightning_gradcam.baseline.summary import BaselineSummary
from lightning_gradcam.cli.data import load_images, parse_normalization
from lightning_gradcam.cli.errors import UsageError
from lightning_gradcam.cli.import_spec import ImportSpec
from lightning_gradcam.cli.model import load_model
from lightning_gradcam.cli.output import Printable, check_suffixes, print_text, raise_write_errors, write_files
from lightning_gradcam.cli.parser import ParsedArgs
from lightning_gradcam.cli.progress import show_forward_progress
from lightning_gradcam.errors import IncompatibleError, NotExplainableError
from lightning_gradcam.probe.probe import Probe

PASSES = 3
"""Number of batch sizes in which a recording explains its images; with ``--like`` it is one."""


def record_baseline(args: ParsedArgs) -> int:
    """Run ``lightning-gradcam baseline`` and return its exit code."""
    options, out = args.options, Path(args.options.out)
    if args.model is None or (args.data is None and options.like is None):
        raise UsageError("A baseline needs --model and --data (or --like, for the images of another baseline).")
    if options.store not in ("images", "hash"):
        raise UsageError(f"Expected --store to be images or hash, but got {options.store!r}.")
    if out.is_dir() or (out.is_file() and not options.overwrite):  # a device or a pipe is not replaced
        raise UsageError(f"{str(out)!r} already exists. Pass --overwrite to replace it.")
    like = None if options.like is None else Baseline.load(options.like)
    model = load_model(args.model, options.ckpt_path, options.prefix, options.device)
    probe = load_images(args, options.images) if like is None else _load_candidate_images(like, args)
    with show_forward_progress(model, (PASSES if like is None else 1) * len(probe)) as forward:
        try:
            baseline = Baseline.record(
                model,
                probe,
                layers=options.layers[0] if options.layers in (["auto"], ["stages"]) else options.layers,
                method=options.method,
                target=options.target,
                store=options.store,
                forward=forward,
                like=like,
                output=options.output,
                placement=options.placement,
            )
        except (ValueError, NotExplainableError) as error:
            raise UsageError(str(error)) from error
    with raise_write_errors(str(out)):
        baseline.save(out)
    print_text(f"wrote {out}\n{BaselineSummary.from_baseline(baseline).text()}")
    return 0


def compare_candidate(args: ParsedArgs) -> int:
    """Run ``lightning-gradcam compare`` and return its exit code."""
    options = args.options
    try:
        PROFILES.resolve(options.profile).with_thresholds(options.thresholds)
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_suffixes(options.report)
    if (args.model is None) == (options.candidate is None):
        count = "neither" if args.model is None else "both"
        raise UsageError(f"Expected either --model (and --ckpt_path), or a second baseline file, but got {count}.")
    baseline = Baseline.load(options.baseline)
    beside = [Baseline.load(path) for path in options.beside]
    if args.model is None:
        candidate = Baseline.load(options.candidate)
        report = baseline.compare(candidate, profile=options.profile, thresholds=options.thresholds, beside=beside)
    else:
        report = _compare_model(baseline, args, args.model, beside)
    print_text(report.text())
    write_files(report, options.report)
    return report.exit_code


def show_report(args: ParsedArgs) -> int:
    """Run ``lightning-gradcam report``; its exit code is 0, whatever the status of the report."""
    path, out = args.options.file, args.options.out
    check_suffixes(out)
    is_comparison = path.endswith(".json")
    printable: Printable = read_report(path) if is_comparison else BaselineSummary.from_baseline(Baseline.load(path))
    if not out:
        print_text(printable.text())
    write_files(printable, out)
    return 0


COMMANDS: Mapping[str, Callable[[ParsedArgs], int]] = {
    "baseline": record_baseline,
    "compare": compare_candidate,
    "report": show_report,
}


def _compare_model(baseline: Baseline, args: ParsedArgs, spec: ImportSpec, beside: list[Baseline]) -> Report:
    options = args.options
    model = load_model(spec, options.ckpt_path, options.prefix, options.device)
    probe = _load_candidate_images(baseline, args)
    with show_forward_progress(model, len(probe)) as forward:
        try:
            return baseline.compare(
                model,
                profile=options.profile,
                thresholds=options.thresholds,
                probe=probe,
                beside=beside,
                forward=forward,
            )
        except IncompatibleError:
            raise
        except (ValueError, NotExplainableError) as error:
            raise IncompatibleError(f"The model cannot be explained like the baseline: {error}") from error


def _load_candidate_images(baseline: Baseline, args: ParsedArgs) -> Probe:
    """Return the images of ``--data``, or the stored ones, which ``--mean`` and ``--std`` normalize if given."""
    if args.data is not None:
        return load_images(args, len(baseline))
    if baseline.images is None:
        raise UsageError("The baseline stores only the hash of its images. Pass the same images with --data.")
    normalization = parse_normalization(args)
    if normalization is None:
        return baseline.probe
    return Probe(normalization.normalize(baseline.images), labels=baseline.labels, pixels=normalization)
