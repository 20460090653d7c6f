"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from lightning_gradcam import Baseline
from lightning_gradcam.baseline.golden_paths import LONGEST, make_file_name

PLUGIN = ("-p", "lightning_gradcam.pytest_plugin", "-p", "no:cacheprovider")
MODEL = """
import pytest
import torch
from torch import nn

torch.set_num_threads(1)

def probe(count=80):
    torch.manual_seed(1)
    return torch.rand(count, 1, 8, 8)

def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
"""
TEST = "\ndef test_it(gradcam_regression):\n    gradcam_regression.check(net({seed}), probe())\n"


@pytest.fixture
def run(pytester):
    """Runs tests in this process; returns how it ended and what it printed."""

    def call(body, *arguments, name="test_model"):
        pytester.makepyfile(**{name: MODEL + body})
        # pytest 8.3 warns that the run around this one has imported the plugin already.
        return pytester.runpytest_inprocess(*PLUGIN, "-Werror", "-Wignore:Module already imported", *arguments)

    return call


def test_update_warns_of_few_comparable_maps(run):
    few = run("\ndef test_it(gradcam_regression):\n    gradcam_regression.check(net(), probe(8))\n", "--gradcam-update")
    few.stdout.fnmatch_lines(["wrote *(Only 6 of 8 maps at 1 can be compared. *; 128 are recommended.*"])


def test_record_change_fail_update_pass(run, pytester):
    missing = run(TEST.format(seed=0))
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(
        ["*incompatible: The baseline does not exist.", "no baseline yet: test_model/test_it.safetensors"]
    )
    assert missing.stdout.str().count("The baseline does not exist.") == 2  # in the failure and in pytest's summary
    missing.stdout.no_fnmatch_line("*During handling of*")
    missing.stdout.fnmatch_lines(['*pytest "test_model.py::test_it" --gradcam-update'])
    file = pytester.path / "test_model" / "test_it.safetensors"
    assert not file.exists()

    written = run(TEST.format(seed=0), "--gradcam-update")
    written.assert_outcomes(passed=1)
    written.stdout.fnmatch_lines(["*baselines of explanations*", "wrote test_model/test_it.safetensors"])
    assert len(Baseline.load(file)) == 80

    run(TEST.format(seed=0)).assert_outcomes(passed=1)
    changed = run(TEST.format(seed=5), "--gradcam-report", "out")
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(
        [
            "*regressed (same-weights)*",
            "*mean spearman*",
            "*degenerate maps*",
            "*differences (baseline -> candidate)*",
            "report out/*.html",
        ]
    )
    assert "Traceback" not in changed.stdout.str()
    assert "pinned.py" not in changed.stdout.str()
    # pytest's summary shows the whole message once more where the variable CI is set.
    shown = set(re.findall(r"^report (out/test_model/test_it\S+)$", changed.stdout.str(), re.MULTILINE))
    assert sorted(name.rsplit(".")[-1] for name in shown) == ["html", "md", *["png"] * 5]
    assert all((pytester.path / name).stat().st_size > 100 for name in shown)

    run(TEST.format(seed=5), "--gradcam-update").assert_outcomes(passed=1)
    run(TEST.format(seed=5)).assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_summary_shows_the_headline_only(run, pytester, workers, monkeypatch):
    run(TEST.format(seed=0), "--gradcam-update")
    pytester.makepyfile(test_model=MODEL + TEST.format(seed=5))
    monkeypatch.setenv("CI", "true")
    failed = pytester.runpytest_subprocess(*PLUGIN, *workers, "--junitxml=junit.xml")
    shown = failed.stdout.str()
    assert shown.count("regressed (same-weights)") == 2
    assert shown.count("mean spearman") == 1
    assert "mean spearman" not in shown.partition("short test summary info")[2]
    assert "mean spearman" in (pytester.path / "junit.xml").read_text("utf-8")


def test_names_in_a_baseline_are_escaped(run, pytester):
    run(TEST.format(seed=0), "--gradcam-update")
    file = pytester.path / "test_model" / "test_it.safetensors"
    hostile = Baseline.load(file)
    replace(hostile, metadata=replace(hostile.metadata, target="class\n\x1b[31m2")).save(file)
    failed = run("\ndef test_it(gradcam_regression):\n    gradcam_regression.check(net(), probe(), target=2)\n")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*Expected `target` to match the baseline (class??[[]31m2), but got class 2."])
    assert "\x1b[31m2" not in failed.stdout.str()


def test_reports_are_written_to_the_temporary_folder_by_default(run, pytester):
    run(TEST.format(seed=0), "--gradcam-update")
    changed = run(TEST.format(seed=5), f"--basetemp={pytester.path / 'temporary'}")
    changed.stdout.fnmatch_lines(["report temporary/gradcam0/test_model/test_it.html"])
    assert (pytester.path / "temporary/gradcam0/test_model/test_it.html").exists()


def test_update_leaves_unchanged_baselines_alone(run, pytester):
    run(TEST.format(seed=0), "--gradcam-update")
    file = pytester.path / "test_model" / "test_it.safetensors"
    before = file.read_bytes(), file.stat().st_mtime_ns
    again = run(TEST.format(seed=0), "--gradcam-update")
    again.stdout.fnmatch_lines(["unchanged test_model/test_it.safetensors"])
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    file.write_bytes(b"damaged")
    run(TEST.format(seed=0), "--gradcam-update").stdout.fnmatch_lines(["wrote *"])


CHECKS = """
@pytest.mark.parametrize("value", ["a/b", "../../up", "é", "x" * 300, "1.5", "CON", ""])
def test_names(gradcam_regression, value):
    gradcam_regression.check(net(), probe(8), allow_inconclusive=True)

class TestIt:
    def test_several(self, gradcam_regression):
        gradcam_regression.check(net(), probe(8), allow_inconclusive=True)
        gradcam_regression.check(net(), probe(8), allow_inconclusive=True)
        gradcam_regression.check(net(), probe(8), name="early/../one", layers="0", allow_inconclusive=True)
"""


def test_each_check_has_its_own_file(run, pytester):
    run(CHECKS, "--gradcam-update").assert_outcomes(passed=8)
    files = [p.relative_to(pytester.path) for p in pytester.path.rglob("*.safetensors")]
    assert len(files) == 10
    assert all(file.parent.name == "test_model" for file in files)
    assert {"TestIt.test_several.safetensors", "TestIt.test_several@2.safetensors"} <= {f.name for f in files}
    run(CHECKS).assert_outcomes(passed=8)


def test_two_checks_with_one_name_fail(run):
    body = "\ndef test_it(gradcam_regression):\n" + 2 * "    gradcam_regression.check(net(), probe(8), name='a')\n"
    run(body, "--gradcam-update").stdout.fnmatch_lines(["Two checks of this test are named 'a'*"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.text(max_size=120), st.text(max_size=20)), min_size=2, max_size=2, unique=True))
def test_file_names_are_unique_and_safe(pairs):
    names = [make_file_name(f"test_x[{value}]", name) for value, name in pairs]
    assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"[\w@-][\w.@-]*", name, re.ASCII)
        assert len(name) <= LONGEST


FEW = """
def test_it(gradcam_regression):
    model = net()
    with torch.no_grad():
        model[3].weight.add_(torch.randn_like(model[3].weight) * {noise})
    gradcam_regression.check(model, probe(6), thresholds={{"mean": {mean}}}{more})
"""


@pytest.mark.parametrize(
    ("arguments", "more", "ini", "outcome"),
    [
        ((), "", "", "failed"),
        (("--gradcam-allow-inconclusive",), "", "", "passed"),
        ((), ", allow_inconclusive=True", "", "passed"),
        ((), "", "gradcam_allow_inconclusive = true", "passed"),
        (("--gradcam-allow-inconclusive",), ", allow_inconclusive=False", "", "failed"),
    ],
)
def test_inconclusive_fails_unless_allowed(run, pytester, arguments, more, ini, outcome):
    pytester.makeini(f"[pytest]\n{ini}\n")
    run(FEW.format(noise=0, mean=0.9, more=more), "--gradcam-update")
    result = run(FEW.format(noise=0.05, mean=0.12, more=more), *arguments)
    result.assert_outcomes(**{outcome: 1})
    if outcome == "failed":
        result.stdout.fnmatch_lines(["*inconclusive*use more images to decide*"])


def test_folders_are_set_by_option_or_ini(run, pytester):
    pytester.makeini("[pytest]\ngradcam_baseline_dir = golden\ngradcam_report = pages\n")
    run(TEST.format(seed=0), "--gradcam-update").stdout.fnmatch_lines(["wrote golden/test_model/test_it.safetensors"])
    run(TEST.format(seed=5)).stdout.fnmatch_lines(["report pages/test_model/test_it.html"])
    elsewhere = run(TEST.format(seed=0), "--gradcam-update", "--gradcam-baseline-dir", "other")
    elsewhere.stdout.fnmatch_lines(["wrote other/test_model/test_it.safetensors"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("net(), probe(), layers='0'", "*Expected `layers` to match the baseline (1), but got 0."),
        ("net(), probe(), method='layercam'", "*Expected `method` to match the baseline (gradcam), but got layercam."),
        ("net(), probe(), target=2", "*Expected `target` to match the baseline (predicted class), but got class 2."),
        ("net(), probe(70)", "*"),
        ("net(), probe() + 0.1", "*explain different images*"),
        ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), probe()", "*Expected a layer with a spatial output*"),
        ("net(), probe(), profile='retrain'", "*at least 5 training runs*got 1*"),
    ],
)
def test_incompatible_baseline_fails_with_the_reason(run, call, message):
    run(TEST.format(seed=0), "--gradcam-update")
    result = run(f"\ndef test_it(gradcam_regression):\n    gradcam_regression.check({call})\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*incompatible*", "*--gradcam-update"])
    result.stdout.fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize("call", ["net(), probe(), profile='nix'", "net(), probe(), thresholds={'nix': 1}"])
def test_invalid_arguments_raise(run, call):
    result = run(f"\ndef test_it(gradcam_regression):\n    gradcam_regression.check({call})\n", "--gradcam-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*ValueError: Expected*"])


def test_damaged_baseline_fails_with_the_reason(run, pytester):
    pytester.mkdir("test_model").joinpath("test_it.safetensors").write_bytes(b"PK\x03\x04 a pickle, say")
    result = run(TEST.format(seed=0))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*is not a safetensors file.", "baseline test_model/test_it.safetensors"])


def test_retrain_with_other_training_runs(run):
    body = """
from lightning_gradcam import Baseline
def test_it(gradcam_regression, tmp_path):
    first = Baseline.record(net(), probe())
    others = [Baseline.record(net(seed), probe(), like=first) for seed in range(1, 5)]
    others[0].save(tmp_path / "1.safetensors")
    gradcam_regression.check(net(), probe(), "retrain", beside=[tmp_path / "1.safetensors", *others[1:]])
"""
    run(body, "--gradcam-update").assert_outcomes(passed=1)
    run(body).assert_outcomes(passed=1)


def test_heavy_packages_are_imported_by_the_first_check(pytester):
    pytester.makepyfile(
        test_light="""
import sys
def heavy():
    return sorted({name.split(".")[0] for name in sys.modules} & {"torch", "numpy", "PIL", "pytorch_lightning"})
def test_none():
    assert not heavy()
def test_with_the_fixture(gradcam_regression):
    assert not heavy()
"""
    )
    # Other plugins that are installed (hypothesis) load NumPy where they find it.
    options = ("-p", "no:hypothesispytest", "-p", "no:jaxtyping", "-q")
    result = pytester.runpytest_subprocess(*PLUGIN, *options)
    result.assert_outcomes(passed=2)


def test_xdist_workers_write_complete_files(pytester):
    pytester.makepyfile(
        test_model=MODEL
        + """
@pytest.mark.parametrize("turn", range(6))
def test_it(gradcam_regression, turn, request):
    path = request.config.rootpath / "same.safetensors"
    gradcam_regression.paths.__class__.resolve_baseline = lambda self, name: path
    gradcam_regression.check(net(turn), probe(8), allow_inconclusive=True)
"""
    )
    written = pytester.runpytest_subprocess(*PLUGIN, "-n", "2", "--gradcam-update")
    written.assert_outcomes(passed=6)
    written.stdout.fnmatch_lines(["wrote same.safetensors*"])
    assert len(Baseline.load(pytester.path / "same.safetensors")) == 8
    assert [p.name for p in pytester.path.iterdir() if "draft" in p.name] == []


def test_xdist_shows_reports_of_failures(pytester):
    pytester.makepyfile(test_model=MODEL + TEST.format(seed=0))
    pytester.runpytest_inprocess(*PLUGIN, "--gradcam-update").assert_outcomes(passed=1)
    pytester.makepyfile(test_model=MODEL + TEST.format(seed=5))
    failed = pytester.runpytest_subprocess(*PLUGIN, "-n", "1", "--gradcam-report=out")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*regressed (same-weights)*", "report out/test_model/test_it.html"])


def test_help_describes_the_options(pytester):
    result = pytester.runpytest_inprocess(*PLUGIN, "--help")
    result.stdout.fnmatch_lines(["*--gradcam-update*", "*--gradcam-baseline-dir=DIR*", "*gradcam_report (string)*"])


def test_check_leaves_the_model_unchanged(run):
    run(
        """
def test_it(gradcam_regression):
    model, images = net().train(), probe(8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    gradcam_regression.check(model, images, allow_inconclusive=True)
    assert model.training and torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
""",
        "--gradcam-update",
    ).assert_outcomes(passed=1)
