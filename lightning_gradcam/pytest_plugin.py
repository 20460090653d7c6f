"""The pytest fixture ``gradcam_regression``, which compares a model's explanations with a baseline file.

pytest imports this module at every start, so PyTorch and other large packages are imported by the first check only.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lightning_gradcam.baseline.pytest_check import BaselineCheck


_FOLDER_OPTIONS = {
    "baseline_dir": "folder of the baseline files; by default a folder next to each test module, with its name",
    "report": "folder for the reports of failed checks, with figures; by default pytest's temporary folder",
}
_ALLOW_INCONCLUSIVE_HELP = "let checks pass that have too few images to decide"
_NOTES = "gradcam_written"
"""Key of pytest's user properties for the baselines that were written."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options and the corresponding ini keys."""
    group = parser.getgroup("gradcam", "explanations of models (lightning_gradcam)")
    group.addoption("--gradcam-update", action="store_true", help="write the baselines instead of comparing with them")
    for name, description in _FOLDER_OPTIONS.items():
        group.addoption(f"--gradcam-{name.replace('_', '-')}", metavar="DIR", help=description)
        parser.addini(f"gradcam_{name}", description)
    group.addoption("--gradcam-allow-inconclusive", action="store_true", default=None, help=_ALLOW_INCONCLUSIVE_HELP)
    parser.addini("gradcam_allow_inconclusive", _ALLOW_INCONCLUSIVE_HELP, type="bool", default=False)


@pytest.fixture
def gradcam_regression(request: pytest.FixtureRequest) -> BaselineCheck:
    """Compare a model's explanations with a baseline file: ``gradcam_regression.check(model, probe)``."""
    from lightning_gradcam.baseline.golden_paths import GoldenPaths
    from lightning_gradcam.baseline.pytest_check import BaselineCheck

    config = request.config
    allow_inconclusive = config.getoption("--gradcam-allow-inconclusive")
    if allow_inconclusive is None:
        allow_inconclusive = config.getini("gradcam_allow_inconclusive")
    paths = GoldenPaths(
        module=Path(request.path),
        test=request.node.nodeid.partition("::")[2] or request.node.name,
        root=config.rootpath,
        baselines=_resolve_folder(config, "baseline_dir"),
        reports=_resolve_folder(config, "report"),
        make_temporary_folder=lambda: request.getfixturevalue("tmp_path_factory").mktemp("gradcam"),
    )
    return BaselineCheck(
        paths=paths,
        update=bool(config.getoption("--gradcam-update")),
        allow_inconclusive=bool(allow_inconclusive),
        notify=lambda note: request.node.user_properties.append((_NOTES, note)),
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shorten a failed check to its headline in pytest's summary, which shows whole messages in CI."""
    report = yield
    headline = getattr(call.excinfo and call.excinfo.value, "headline", None)
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(headline, str) and crash is not None:
        crash.message = headline
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the baselines that were written, because pytest hides the output of tests that pass."""
    notes = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _NOTES and getattr(report, "when", "") == "call"
    ]
    if notes:
        terminalreporter.section("baselines of explanations")
        for note in dict.fromkeys(notes):
            terminalreporter.line(note)
        terminalreporter.line("Review them (lightning-gradcam report FILE --out page.html), then commit them.")


def _resolve_folder(config: pytest.Config, name: str) -> Path | None:
    """Return a configured folder: an option is relative to the working directory, an ini value to the ini file."""
    folder = config.getoption(f"--gradcam-{name.replace('_', '-')}")
    if folder:
        return Path(config.invocation_params.dir, folder)
    folder = config.getini(f"gradcam_{name}")
    return Path((config.inipath or config.rootpath / "ini").parent, folder) if folder else None
