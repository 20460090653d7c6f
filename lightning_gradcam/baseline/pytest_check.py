"""The checks of the pytest fixture: models compared with the baselines of a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest

from lightning_gradcam.baseline.golden_paths import GoldenPaths
from lightning_gradcam.utils.sanitize import escape_terminal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lightning_gradcam.baseline.baseline import Baseline
    from lightning_gradcam.baseline.report import Report
    from lightning_gradcam.explainer.pipeline import Targets
    from lightning_gradcam.layers import Layers
    from lightning_gradcam.methods.resolve import Methods
    from lightning_gradcam.probe.probe import Probe
    from lightning_gradcam.probe.types import Forward


class CheckFailedError(pytest.fail.Exception):  # type: ignore[name-defined,misc]  # pytest offers the class as a value
    """A failed check, with a message of several lines whose first line suffices for a summary."""

    @property
    def headline(self) -> str:
        """The first line of the message."""
        return str(self.msg).partition("\n")[0]


@dataclass
class BaselineCheck:
    """Compares the explanations of models with baseline files of a test.

    Args:
        paths: Paths of the test's files.
        update: Whether to write baselines instead of comparing with them.
        allow_inconclusive: Whether inconclusive checks pass.
        notify: Called with a line of text for each baseline that is written.
    """

    paths: GoldenPaths
    update: bool
    allow_inconclusive: bool
    notify: Callable[[str], object]
    _names: set[str] = field(default_factory=set)

    def check(
        self,
        model: nn.Module,
        probe: Probe | tuple[Tensor, Tensor] | Tensor,
        profile: str = "same-weights",
        name: str | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        layers: Layers = "auto",
        method: Methods = "gradcam",
        target: Targets = "auto",
        store: Literal["images", "hash"] = "images",
        forward: Forward | None = None,
        beside: Sequence[Baseline | str | os.PathLike[str]] = (),
        allow_inconclusive: bool | None = None,
    ) -> Report | None:
        """Fail the test if the model's explanations differ from those of its baseline.

        A missing baseline fails the test as well; ``pytest --gradcam-update`` writes it, and does not touch baselines
        that have not changed.

        Args:
            model: Any module; it is left unchanged.
            probe: The preprocessed images, ``(images, labels)``, or a `Probe`. Pass a `Probe` with ``pixels`` if the
                images are normalized, so that a changed normalization can be told from changed images.
            profile: ``"same-weights"``, ``"next-checkpoint"`` or ``"retrain"``.
            name: Name of the check; by default, several checks of a test are numbered.
            thresholds: As for `Baseline.compare`.
            layers: As for `Baseline.record`; ``"auto"`` are those of the baseline.
            method: As for `Baseline.record`.
            target: As for `Baseline.record`; ``"auto"`` are the classes that the baseline explains.
            store: As for `Baseline.record`.
            forward: As for `explain`.
            beside: Baselines of at least four other training runs, or their files, for ``"retrain"``.
            allow_inconclusive: Whether the check passes if there are too few images to decide; by default the value of
                the option ``--gradcam-allow-inconclusive``.

        Returns:
            The report; None if the baseline was written.

        Raises:
            ValueError: ``profile``, ``thresholds``, ``layers`` or ``method`` is invalid.
        """
        from lightning_gradcam.baseline.baseline import Baseline
        from lightning_gradcam.baseline.profiles import PROFILES
        from lightning_gradcam.baseline.report import MARKS
        from lightning_gradcam.errors import NotExplainableError

        PROFILES.resolve(profile).with_thresholds(thresholds)
        path = self.paths.resolve_baseline(self._register_name(name))
        if self.update:
            baseline = Baseline.record(
                model, probe, layers=layers, method=method, target=target, store=store, forward=forward
            )
            self._write_baseline(path, baseline)
            return None
        try:
            baseline = _load_baseline(path)
            _check_arguments(baseline, layers, method, target)
            other_runs = [run if isinstance(run, Baseline) else Baseline.load(run) for run in beside]
            report = baseline.compare(
                model, profile=profile, thresholds=thresholds, probe=probe, beside=other_runs, forward=forward
            )
        except (ValueError, NotExplainableError) as error:  # includes IncompatibleError and UnreadableError
            report, problem = None, str(error)
        if report is None:  # outside of the handler, so that pytest does not show the error twice
            self._fail(f"{MARKS['incompatible']}: {escape_terminal(problem)}", path, [])
        if allow_inconclusive is None:
            allow_inconclusive = self.allow_inconclusive
        if not (report.passed or (allow_inconclusive and report.status == "inconclusive")):
            try:
                files, problem = self._write_report(report, path.stem), report.text()
            except OSError as error:
                files, problem = [], f"{report.text()}\nwarning: the report could not be written ({error})"
            self._fail(problem, path, files)
        return report

    def _register_name(self, name: str | None) -> str:
        """Return the name of a check, by default its number, and fail the test if the name is taken."""
        if name is None:
            name = f"{len(self._names) + 1}" if self._names else ""
        if name in self._names:
            pytest.fail(
                f"Two checks of this test are named {name!r} and would share a baseline. Pass another `name`.",
                pytrace=False,
            )
        self._names.add(name)
        return name

    def _write_baseline(self, path: Path, baseline: Baseline) -> None:
        """Write a baseline, unless the file already holds the same one."""
        from lightning_gradcam.baseline.baseline import Baseline
        from lightning_gradcam.baseline.data import are_equal
        from lightning_gradcam.baseline.summary import BaselineSummary
        from lightning_gradcam.errors import UnreadableError

        with suppress(UnreadableError):
            if are_equal(Baseline.load(path), baseline):
                self.notify(f"unchanged {self.paths.display(path)}")
                return
        try:
            baseline.save(path)
        except OSError as error:
            pytest.fail(f"The baseline {self.paths.display(path)} could not be written: {error}.", pytrace=False)
        warnings = "".join(f" ({warning})" for warning in BaselineSummary.from_baseline(baseline).warnings)
        self.notify(f"wrote {self.paths.display(path)}{warnings}")

    def _write_report(self, report: Report, stem: str) -> list[Path]:
        """Write a report as HTML, Markdown and figures, and return their paths."""
        from lightning_gradcam.baseline.html import encode_png
        from lightning_gradcam.utils.files import write_atomic

        folder = self.paths.resolve_report_folder()
        files = {folder / f"{stem}.html": report.html().encode(), folder / f"{stem}.md": report.markdown().encode()}
        for index, figure in report.pictures.items():
            files[folder / f"{stem}-image-{index}.png"] = encode_png(figure)
        for path, content in files.items():
            write_atomic(path, content)
        return list(files)

    def _fail(self, problem: str, path: Path, files: Sequence[Path]) -> NoReturn:
        test = f"{self.paths.display(self.paths.module)}::{self.paths.test}"
        if path.exists():
            state, remedy = (
                "baseline",
                "If the change is intended, review the report, then update and commit the baseline",
            )
        else:
            state, remedy = (
                "no baseline yet:",
                "To record the baseline, run this command, then review and commit the file",
            )
        lines = [
            problem,
            "",
            f"{state} {self.paths.display(path)}",
            *(f"report {self.paths.display(file)}" for file in files),
            f'{remedy}: pytest "{test}" --gradcam-update',
        ]
        raise CheckFailedError("\n".join(lines), pytrace=False)


def _load_baseline(path: Path) -> Baseline:
    from lightning_gradcam.baseline.baseline import Baseline
    from lightning_gradcam.errors import IncompatibleError

    if not path.exists():
        raise IncompatibleError("The baseline does not exist.")
    return Baseline.load(path)


def _check_arguments(baseline: Baseline, layers: Layers, method: Methods, target: Targets) -> None:
    """Raise an IncompatibleError if the arguments of a check differ from those its baseline was recorded with."""
    from lightning_gradcam.errors import IncompatibleError

    for argument, value, recorded in list(_find_mismatches(baseline, layers, method, target)):
        raise IncompatibleError(f"Expected `{argument}` to match the baseline ({recorded}), but got {value}.")


def _find_mismatches(
    baseline: Baseline, layers: Layers, method: Methods, target: Targets
) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the value and the recorded value of arguments that differ from those of the baseline."""
    import torch

    from lightning_gradcam.methods.resolve import coerce_methods
    from lightning_gradcam.targets import coerce_target, target_name

    layer_names = _list_layer_names(layers)
    recorded_layers = list(dict.fromkeys(layer.name for layer in baseline.explanation.layers.values()))
    if layer_names and set(layer_names) != set(recorded_layers):
        yield "layers", ", ".join(layer_names), ", ".join(recorded_layers)
    methods = tuple(coerce_methods(method))
    if methods != baseline.metadata.methods:
        yield "method", ", ".join(methods), ", ".join(baseline.metadata.methods)
    if isinstance(target, str) and target == "auto":
        return
    name, recorded_name = target_name(coerce_target(target)), baseline.metadata.target
    recorded_classes = baseline.explanation.classes
    if name != recorded_name:
        yield "target", name, recorded_name
    elif not isinstance(target, str) and not callable(target) and recorded_classes is not None:
        classes = torch.as_tensor(target).cpu().reshape(-1)
        if not torch.equal(classes.expand(len(recorded_classes)), recorded_classes):
            yield "target", "other classes", recorded_name


def _list_layer_names(layers: Layers) -> list[str]:
    """Return the names in ``layers``; empty if not all layers are named."""
    entries = [layers] if isinstance(layers, str) else layers if isinstance(layers, (list, tuple)) else []
    names = [entry for entry in entries if isinstance(entry, str) and entry not in ("auto", "stages")]
    return names if len(names) == len(entries) else []
