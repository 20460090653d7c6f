"""Each row of the matrix was seen red: the guard that it rests on is taken out, in a copy, and the row fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.mutants.breaks import BREAKS
from tests.regimes import REGIMES, TABLES
from tests.regimes.processes import CASES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_gradcam"


def test_every_row_has_a_break_and_every_break_a_row():
    assert len(REGIMES) == sum(map(len, TABLES.values()))  # no two of one name
    assert not REGIMES.keys() & CASES.keys()
    assert {row.breaks for row in (*REGIMES.values(), *CASES.values())} == set(BREAKS)


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_there_once(name):
    found = BREAKS[name]
    assert (PACKAGE / found.file).read_text("utf-8").count(found.old) == 1
    assert found.new != found.old


def outcomes(home: Path, rows: list[str]) -> dict[str, str]:
    """Run rows with the package that lies in ``home``; per row what failed, empty where nothing did."""
    report = home / "report.xml"
    alone = "regimes/test_training_unchanged.py::test_training_is_never_disturbed"
    together = "distributed/test_distributed.py::test_two_processes"
    ids = [f"{home / 'tests'}/{together if row in CASES else alone}[{row}]" for row in rows]
    options = ["-q", "-c", str(home / "pyproject.toml"), "-p", "no:cacheprovider", f"--junitxml={report}", *ids]
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=home, env=environment, capture_output=True, text=True
    )
    assert report.exists(), done.stdout + done.stderr
    cases = {case.get("name", "").split("[", 1)[-1][:-1]: case for case in ElementTree.parse(report).iter("testcase")}
    assert cases.keys() == set(rows), done.stdout
    failures = {row: case.find("failure") for row, case in cases.items()}
    return {row: "" if f is None else f.get("message", "") for row, f in failures.items()}


@pytest.mark.red
@pytest.mark.parametrize("name", BREAKS)
def test_rows_are_red_without_their_guard(tmp_path, name):
    found = BREAKS[name]
    rows = [row.name for row in REGIMES.values() if row.breaks == name and not row.skip]
    rows += [row for row, case in CASES.items() if case.breaks == name and not case.skip]
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    # The tests lie beside the copy: they put their own folder's parent in front of the path.
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    broken = tmp_path / PACKAGE.name / found.file
    broken.write_text(broken.read_text("utf-8").replace(found.old, found.new), "utf-8")
    said = outcomes(tmp_path, rows)
    for row, message in said.items():
        print(f"{name}: {row}: {message.splitlines()[0] if message else 'green'}")  # noqa: T201
    assert not [row for row, message in said.items() if not message]
