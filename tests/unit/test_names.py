"""Names in the package: no function, parameter or local is called by a word that names nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lightning_gradcam

PACKAGE = Path(lightning_gradcam.__file__).parent
VAGUE = {
    *("found", "said", "known", "given", "made", "kept", "told", "asked", "chosen", "seen", "taken", "shown", "noted"),
    *("wanted", "held", "named", "put", "got", "moved", "there", "each", "own", "others", "other", "about", "what"),
    *("where", "beside", "around", "behind", "before", "after", "rest", "again", "how", "one", "both", "whole"),
    *("thing", "things", "stuff", "foo", "tmp"),
}
"""Words that say nothing of the value: `evidence_by_key` instead of `found`, `message` instead of `said`."""

PUBLIC = {
    "baseline/report.py": {"before", "after", "others"},  # keys of the report's JSON
    "baseline/report_json.py": {"before", "after", "others"},
    "baseline/baseline.py": {"beside"},  # an argument of `Baseline.compare` and of the command line
    "baseline/pytest_check.py": {"beside"},
    "cli/commands.py": {"beside"},
    "targets/segmentation.py": {"where"},  # an argument of `SegmentationScore`
}
"""Names that users pass or read, which stay."""


def vague_names(tree: ast.AST) -> list[str]:
    """List vague names that are assigned, and those of functions and parameters, with their lines."""
    names = [(node.id, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Name) and not is_load(node)]
    names += [(node.arg, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [(node.name, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [f"line {line}: {name}" for name, line in names if name.lstrip("_") in VAGUE]


def is_load(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_say_what_they_name(path):
    public = PUBLIC.get(str(path.relative_to(PACKAGE).as_posix()), set())
    names = vague_names(ast.parse(path.read_text("utf-8")))
    assert not [name for name in names if name.split()[-1] not in public]


@pytest.mark.parametrize("code", ["found = 1", "for each in []: pass", "def f(given): pass", "def _held(): pass"])
def test_vague_names_are_found_wherever_they_are_bound(code):
    assert len(vague_names(ast.parse(code))) == 1
