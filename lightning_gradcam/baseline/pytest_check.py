"""Checks of a test against its baselines, beside it: what the pytest fixture does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
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
    """Fails a test with a message of many lines, of which the first is enough for a summary."""

    @property
    def headline(self) -> str:
        """The first line."""
        return str(self.msg).partition("\n")[0]


@dataclass
class BaselineCheck:
    """Compares what models look at with baselines beside the test.

    Args:
        place: Where its files are.
        update: Whether baselines are written anew.
        allow_inconclusive: Whether a check passes that cannot tell.
        written: Is told, in words, of each baseline that was written.
    """

    place: GoldenPaths
    update: bool
    allow_inconclusive: bool
    written: Callable[[str], object]
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
        """Fail the test where the model's explanations are no longer those of its baseline.

        A missing baseline fails as well; ``pytest --gradcam-update`` writes it, and leaves alone what has not changed.

        Args:
            model: Any module; it is left as it was.
            probe: Images as the model takes them, ``(images, labels)``, or a `Probe`; with ``pixels`` where they are
                normalised, so that a changed normalisation is told from changed images.
            profile: ``"same-weights"``, ``"next-checkpoint"`` or ``"retrain"``.
            name: Of this check, where a test makes several; by default they are counted.
            thresholds: As for `Baseline.compare`.
            layers: As for `Baseline.record`; ``"auto"`` are those that the baseline holds.
            method: As for `Baseline.record`.
            target: As for `Baseline.record`; ``"auto"`` are the classes that the baseline explains.
            store: As for `Baseline.record`.
            forward: As for `explain`.
            beside: For ``"retrain"``: baselines of at least four other trainings, or their files.
            allow_inconclusive: Whether to pass where too few images tell; by default what the option says: no.

        Returns:
            What was found; None where the baseline was written.

        Raises:
            ValueError: There is no such profile, threshold, layer or method.
        """
        from lightning_gradcam.baseline.baseline import Baseline
        from lightning_gradcam.baseline.profiles import PROFILES
        from lightning_gradcam.baseline.report import MARKS
        from lightning_gradcam.errors import NotExplainableError

        PROFILES.resolve(profile).with_thresholds(thresholds)
        path = self.place.baseline(self._own(name))
        if self.update:
            self._write(
                path,
                Baseline.record(
                    model, probe, layers=layers, method=method, target=target, store=store, forward=forward
                ),
            )
            return None
        try:
            pinned = _there(path)
            _check_choices(pinned, layers, method, target)
            others = [each if isinstance(each, Baseline) else Baseline.load(each) for each in beside]
            report = pinned.compare(
                model, profile=profile, thresholds=thresholds, probe=probe, beside=others, forward=forward
            )
        except (ValueError, NotExplainableError) as error:  # also what is incompatible or unreadable
            report, problem = None, str(error)
        if report is None:  # outside of the handler, so that pytest does not show the error once more
            self._fail(f"{MARKS['incompatible']}: {escape_terminal(problem)}", path, [])
        lenient = self.allow_inconclusive if allow_inconclusive is None else allow_inconclusive
        if not (report.passed or (lenient and report.status == "inconclusive")):
            self._fail(report.text(), path, self._shown(report, path.stem))
        return report

    def _own(self, name: str | None) -> str:
        """The name of a check, each a different one."""
        name = (f"{len(self._names) + 1}" if self._names else "") if name is None else name
        if name in self._names:
            pytest.fail(f"Two checks of this test are named {name!r}: they would share a baseline.", pytrace=False)
        self._names.add(name)
        return name

    def _write(self, path: Path, recorded: Baseline) -> None:
        from lightning_gradcam.baseline.baseline import Baseline
        from lightning_gradcam.baseline.summary import BaselineSummary
        from lightning_gradcam.errors import UnreadableError

        with suppress(UnreadableError):
            if are_same(Baseline.load(path), recorded):
                self.written(f"unchanged {self.place.display(path)}")
                return
        recorded.save(path)
        self.written(
            f"wrote {self.place.display(path)}"
            + "".join(f" ({each})" for each in BaselineSummary.of(recorded).warnings)
        )

    def _shown(self, report: Report, stem: str) -> list[Path]:
        """Write a page, its words, and its pictures one by one."""
        from lightning_gradcam.baseline.html import encode_png
        from lightning_gradcam.utils.files import write_atomic

        folder = self.place.report()
        files = {folder / f"{stem}.html": report.html().encode(), folder / f"{stem}.md": report.markdown().encode()}
        for index, picture in report.pictures.items():
            files[folder / f"{stem}-image-{index}.png"] = encode_png(picture)
        for path, content in files.items():
            write_atomic(path, content)
        return list(files)

    def _fail(self, problem: str, path: Path, files: Sequence[Path]) -> NoReturn:
        there = "baseline" if path.exists() else "no baseline yet:"
        lines = [
            problem,
            "",
            f"{there} {self.place.display(path)}",
            *(f"report {self.place.display(f)}" for f in files),
        ]
        test = f"{self.place.display(self.place.module)}::{self.place.test}"
        lines.append(
            f'If this is meant, or new, look at it and commit what this writes: pytest "{test}" --gradcam-update'
        )
        raise CheckFailedError("\n".join(lines), pytrace=False)


def are_same(one: Baseline, other: Baseline) -> bool:
    """Whether two baselines differ in nothing but when they were recorded."""
    from lightning_gradcam.baseline.data import serialize

    (tensors, about), (others, others_about) = map(serialize, (one, other))
    facts = [json.loads(json.dumps({**each, "recorded": ""})) for each in (about, others_about)]
    if facts[0] != facts[1]:
        return False
    return tensors.keys() == others.keys() and all(
        t.dtype == others[n].dtype and t.numpy().tobytes() == others[n].numpy().tobytes() for n, t in tensors.items()
    )


def _there(path: Path) -> Baseline:
    from lightning_gradcam.baseline.baseline import Baseline
    from lightning_gradcam.errors import IncompatibleError

    if not path.exists():
        raise IncompatibleError("there is no baseline to compare with.")
    return Baseline.load(path)


def _check_choices(pinned: Baseline, layers: Layers, method: Methods, target: Targets) -> None:
    """Raise an IncompatibleError where a test asks for something else than its baseline holds."""
    import torch

    from lightning_gradcam.errors import IncompatibleError
    from lightning_gradcam.methods.resolve import coerce_methods
    from lightning_gradcam.targets import coerce_target, target_name

    differing: list[tuple[str, object, object]] = []
    listed = [layers] if isinstance(layers, str) else layers if isinstance(layers, (list, tuple)) else []
    names = [name for name in listed if isinstance(name, str) and name not in ("auto", "stages")]
    held = list(dict.fromkeys(layer.name for layer in pinned.explanation.layers.values()))
    if names and len(names) == len(listed) and set(names) != set(held):
        differing.append(("layers", names, held))
    methods = list(coerce_methods(method))
    if methods != list(pinned.about.methods):
        differing.append(("methods", methods, list(pinned.about.methods)))
    if not (isinstance(target, str) and target == "auto"):
        wanted = target_name(coerce_target(target))
        classes = pinned.explanation.classes
        if wanted != pinned.about.target:
            differing.append(("target", wanted, pinned.about.target))
        elif not isinstance(target, str) and not callable(target) and classes is not None:
            given = torch.as_tensor(target).cpu().reshape(-1)
            if not torch.equal(given.expand(len(classes)), classes):
                differing.append(("target", "these classes", "others"))
    for what, asked, there in differing:
        raise IncompatibleError(f"the test asks for the {what} {asked}, but its baseline holds {there}.")
