"""File names of a test's baselines, also on disks that ignore the case of letters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from lightning_gradcam.baseline.golden_paths import GoldenPaths, make_file_name

TEXT = st.text("abXY1-", max_size=3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["test_x", "test_X"]), TEXT, st.sampled_from(["", "a", "A", "None"])), unique=True
    )
)
def test_names_differ_on_disks_that_ignore_case(checks):
    checks = [(f"{function}[{value}]" if value else function, name) for function, value, name in checks]
    names = {make_file_name(test, name).lower() for test, name in checks}
    assert len(names) == len(set(checks))


@pytest.mark.parametrize(
    ("test", "name", "expected"),
    [
        ("test_x", "", "test_x"),
        ("test_x[resnet-18]", "early", "test_x-resnet-18@early"),
        ("TestIt::test_x", "", "TestIt.test_x"),
    ],
)
def test_lower_case_names_stay_readable(test, name, expected):
    assert make_file_name(test, name) == expected


def test_earlier_file_of_upper_case_parameter_is_kept(tmp_path):
    def resolve(test):
        paths = GoldenPaths(tmp_path / "test_m.py", test, tmp_path, None, None, lambda: tmp_path)
        return paths.resolve_baseline("").name

    (tmp_path / "test_m").mkdir()
    new = resolve("test_x[X]")
    assert new.startswith("test_x-X-")
    (tmp_path / "test_m" / "test_x-x.safetensors").touch()
    assert resolve("test_x[X]") == new
    (tmp_path / "test_m" / "test_x-X.safetensors").touch()
    assert resolve("test_x[X]") == "test_x-X.safetensors"
    (tmp_path / "test_m" / new).touch()
    assert resolve("test_x[X]") == new
    assert Path(resolve("test_x[x]")).stem == "test_x-x"
