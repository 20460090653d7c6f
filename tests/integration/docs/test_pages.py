"""The README and the docs say what the code and the measurements say."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from scipy import stats

from benchmarks import adversarial, gate
from lightning_gradcam import Explanation, GradCAMCallback
from lightning_gradcam.methods import METHODS
from tests.regimes.page import PAGE, generate_page

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "lightning_gradcam"
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}


def test_adversarial_page_matches_results():
    rows = json.loads(adversarial.RESULTS.read_text("utf-8"))
    assert {(row["training"], row["seed"]) for row in rows} == set(
        itertools.product(("natural", "PGD", "TRADES", "consistency"), range(10))
    )
    page = PAGES["adversarial"]
    remedy = "`python -m benchmarks.adversarial --report` writes it"
    assert adversarial.page(page, rows) == page, f"docs/adversarial.md is out of date: {remedy}"
    after, before = (adversarial.column(rows, name, "similarity") for name in ("consistency", "PGD"))
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert adversarial.paired_interval(after, before)[1:] == pytest.approx((expected.low, expected.high))


def test_regression_page_matches_results():
    results = json.loads(gate.RESULTS.read_text("utf-8"))
    for kinds in results["cells"].values():
        assert {len(cell["statuses"]) for cell in kinds.values()} == {100}
    page = PAGES["regression"]
    remedy = "`python -m benchmarks.gate --report` writes it"
    assert gate.written(page, results) == page, f"docs/regression.md is out of date: {remedy}"
    shortcut = gate.Cell(**results["cells"]["next-checkpoint"]["a shortcut in the data, eight epochs"]).row()
    assert shortcut[1:] == ("90 of 100", "82%–95%", "10", "100 of 100", "96%–100%")  # as the page says in words


def test_regimes_page_matches_the_tests():
    assert PAGE.read_text("utf-8") == generate_page(), "docs/regimes.md is out of date: `make regimes` writes it"


def test_methods_page_lists_every_method():
    assert re.findall(r"^\| `([\w+]+)` \|", PAGES["methods"], re.MULTILINE) == list(METHODS)


def test_readme_counts_every_method():
    assert f"| {len(METHODS)} methods: " in README


def test_reference_lists_exactly_the_arguments():
    signature = inspect.signature(GradCAMCallback).parameters
    table = PAGES["reference"].split("## GradCAMCallback")[1].split("\n```")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    assert list(rows) == list(signature)
    assert {name: default.strip("`") for name, default in rows.items()} == {
        name: '"' + p.default + '"' if isinstance(p.default, str) else repr(p.default) for name, p in signature.items()
    }


def list_messages():
    """Return all string literals of the package, with "…" for what f-strings fill in."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_error_index_quotes_messages_of_the_package():
    """Look for the words of each row in the source, and suggest the nearest message for a row that has none."""
    source = " ".join(p.read_text("utf-8") for p in PACKAGE.rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)
    section = PAGES["troubleshooting"].split("\n## Messages")[1].split("\n## ")[0]
    rows = [m for m in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) if m not in ("message", "---")]
    assert len(rows) > 10
    stale = {}
    for row in rows:
        words = [part.strip(" .:,()'") for part in re.split(r"`[^`]*`|…", row)]
        if any(part not in source for part in words):
            stale[row] = difflib.get_close_matches(row, {m[: 2 * len(row)] for m in list_messages()}, n=2, cutoff=0.3)
    hints = "\n".join(f"  {row}\n    nearest: {' | '.join(nearest)}" for row, nearest in stale.items())
    assert not stale, f"docs/troubleshooting.md quotes messages that the package no longer has:\n{hints}"


def test_glossary_lists_the_map_status_codes():
    table = PAGES["glossary"].split("## Reasons for a degenerate map")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d) \| `?(.*?)`? \|", table, re.MULTILINE)
    codes = torch.arange(len(rows))
    explanation = Explanation({}, torch.zeros(len(rows), 1), None, (1, 1), map_status={"layer": codes})
    assert [code for code, _ in rows] == [str(code) for code in codes.tolist()]
    assert [reason for _, reason in rows] == [str(reason) for reason in explanation.degenerate["layer"]]


def test_architecture_page_matches_import_contract():
    [contract, *_] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    levels = [level.split(" | ") for level in contract["layers"]]
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", PAGES["architecture"], re.MULTILINE)
    expected = [(str(len(levels) - i), package) for i, level in enumerate(levels) for package in level]
    assert rows == expected
    drawn = [re.findall(r"\w+", line) for line in re.findall(r"^ {8}(\w.*)$", PAGES["architecture"], re.MULTILINE)]
    assert drawn == levels


def test_pages_name_existing_files():
    packages = [path.name for path in PACKAGE.iterdir() if path.is_dir()]
    for text in (PAGES["architecture"], CONTRIBUTING):
        for name in re.findall(rf"`((?:{'|'.join(packages)})/\w+)(?:\.py)?`", text):
            assert (PACKAGE / f"{name}.py").exists(), name


def test_contributing_names_existing_make_targets():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make ([\w-]+)`", CONTRIBUTING)) <= set(targets)


def test_readme_states_oldest_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [f"python{project['requires-python']}", *project["dependencies"]]
    stated = re.findall(r"([\w-]+) (\d[\d.]*\d)", README.split("## Versions")[1].split("\n## ")[0])
    assert [f"{name.lower()}>={oldest}" for name, oldest in stated] == requirements


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in PAGES)])
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)  # code is not prose
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        target = (ROOT / page).parent.joinpath(link) if link else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), f"{link}#{anchor}"
