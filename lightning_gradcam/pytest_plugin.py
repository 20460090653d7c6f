"""pytest's fixture ``gradcam_regression``: what a model looks at, pinned beside the test.

pytest imports this file when it starts, with or without such a test, so nothing heavy is imported before a check.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lightning_gradcam.baseline.pytest_check import BaselineCheck


_OPTIONS = {
    "baseline_dir": (
        "DIR",
        "where baselines are kept; by default in a folder beside each test module, of the module's name",
    ),
    "report": ("DIR", "where each failed check leaves a page with pictures; by default in pytest's temporary folder"),
}
_WRITTEN = "gradcam_written"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, and what mirrors them in an ini file."""
    group = parser.getgroup("gradcam", "what models look at (lightning_gradcam)")
    group.addoption("--gradcam-update", action="store_true", help="write baselines anew instead of comparing with them")
    for name, (metavar, told) in _OPTIONS.items():
        group.addoption(f"--gradcam-{name.replace('_', '-')}", metavar=metavar, help=told)
        parser.addini(f"gradcam_{name}", told)
    told = "let checks pass that cannot tell whether explanations moved"
    group.addoption("--gradcam-allow-inconclusive", action="store_true", default=None, help=told)
    parser.addini("gradcam_allow_inconclusive", told, type="bool", default=False)


@pytest.fixture
def gradcam_regression(request: pytest.FixtureRequest) -> BaselineCheck:
    """Compare what a model looks at with a baseline file: ``gradcam_regression.check(model, probe)``."""
    from lightning_gradcam.baseline.golden_paths import GoldenPaths
    from lightning_gradcam.baseline.pytest_check import BaselineCheck

    config = request.config
    option = config.getoption("--gradcam-allow-inconclusive")
    chosen = GoldenPaths(
        module=Path(request.path),
        test=request.node.nodeid.partition("::")[2] or request.node.name,
        root=config.rootpath,
        baselines=_folder(config, "baseline_dir"),
        reports=_folder(config, "report"),
        temporary=lambda: request.getfixturevalue("tmp_path_factory").mktemp("gradcam"),
    )
    return BaselineCheck(
        place=chosen,
        update=bool(config.getoption("--gradcam-update")),
        allow_inconclusive=bool(config.getini("gradcam_allow_inconclusive") if option is None else option),
        written=lambda words: request.node.user_properties.append((_WRITTEN, words)),
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a failed check, pytest's summary shows the headline only: in CI it would show the whole message once more."""
    report = yield
    headline = getattr(call.excinfo and call.excinfo.value, "headline", None)
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(headline, str) and crash is not None:
        crash.message = headline
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which baselines were written; what a test says itself is not shown where it passes."""
    found = {
        path: None
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, path in getattr(report, "user_properties", ())
        if name == _WRITTEN and getattr(report, "when", "") == "call"
    }
    if found:
        terminalreporter.section("baselines of explanations")
        for path in found:
            terminalreporter.line(path)
        terminalreporter.line("Look at them (lightning-gradcam report FILE --out page.html) and commit them.")


def _folder(config: pytest.Config, name: str) -> Path | None:
    """A folder that was chosen: on the command line seen from where one stands, in an ini file from there."""
    given = config.getoption(f"--gradcam-{name.replace('_', '-')}")
    if given:
        return Path(config.invocation_params.dir, given)
    given = config.getini(f"gradcam_{name}")
    return Path((config.inipath or config.rootpath / "ini").parent, given) if given else None
