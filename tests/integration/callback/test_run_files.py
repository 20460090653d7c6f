"""Runs without a logger: each has a folder of its own, with figures and numbers."""

from __future__ import annotations

import csv
import warnings

import pytest
from pytorch_lightning.loggers import CSVLogger

from lightning_gradcam import GradCAMCallback
from lightning_gradcam.callback.run_files import RunFiles
from tests.helpers.lit import fit


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_second_run_leaves_files_of_the_first(tmp_path):
    fit(tmp_path, [GradCAMCallback()], logger=False, max_epochs=3)
    first = files_in(tmp_path / "gradcam")
    fit(tmp_path, [GradCAMCallback()], logger=False, max_epochs=1)
    assert first.items() <= files_in(tmp_path / "gradcam").items()
    versions = [sorted(p.name for p in (tmp_path / "gradcam" / f"version_{i}" / "features").iterdir()) for i in (0, 1)]
    assert versions == [[f"step={step:06d}.png" for step in (0, 3, 7, 11)], [f"step={step:06d}.png" for step in (0, 3)]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gradcam"]


def test_numbers_on_disk_equal_those_of_a_logger(tmp_path):
    """Compare with Lightning's CSVLogger; without a logger there is nothing else that keeps the curves."""
    trainer = fit(
        tmp_path / "logger", [GradCAMCallback(curves="all")], logger=CSVLogger(tmp_path / "logger"), max_epochs=3
    )
    fit(tmp_path / "none", [GradCAMCallback()], logger=False, max_epochs=3)
    expected = {}
    for row in read_table(next((tmp_path / "logger").rglob("metrics.csv"))):
        values = {name: float(text) for name, text in row.items() if name.startswith("gradcam/") and text}
        values.pop("gradcam/overhead", None)  # of the clock
        if values:
            expected[int(row["step"])] = values
    rows = read_table(tmp_path / "none" / "gradcam" / "version_0" / "metrics.csv")
    found = {
        int(row["step"]): {
            name: float(text) for name, text in row.items() if name not in ("step", "gradcam/overhead") and text
        }
        for row in rows
    }
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, abs=1e-6)
    assert trainer.loggers


def test_callbacks_with_two_tags_have_two_folders(tmp_path):
    fit(tmp_path, [GradCAMCallback(), GradCAMCallback(tag="a/b", layers="features.2")], logger=False)
    assert (tmp_path / "gradcam" / "version_0" / "features").is_dir()
    assert (tmp_path / "a" / "b" / "version_0" / "features.2").is_dir()
    assert (tmp_path / "a" / "b" / "version_0" / "metrics.csv").is_file()


def test_fast_dev_run_leaves_no_files(tmp_path):
    fit(tmp_path, [GradCAMCallback(probe=4)], fast_dev_run=True, logger=False)
    assert not files_in(tmp_path)


def test_columns_grow_and_rows_are_by_step(tmp_path):
    files = RunFiles(tmp_path, "gradcam")
    files.log_metrics({"a": 1.0}, 0)
    files.log_metrics({}, 1)
    files.log_metrics({"b": 2.0}, 2)
    files.log_metrics({"a": 3.0}, 2)
    assert read_table(files.folder / "metrics.csv") == [
        {"step": "0", "a": "1.0", "b": ""},
        {"step": "2", "a": "3.0", "b": "2.0"},
    ]


def test_runs_that_start_together_do_not_share_a_folder(tmp_path):
    folders = [RunFiles(tmp_path, "gradcam").folder for _ in range(3)]
    assert [folder.name for folder in folders] == ["version_0", "version_1", "version_2"]


def test_folder_that_cannot_be_written_warns_and_training_ends(tmp_path):
    (tmp_path / "gradcam").write_text("a file where the folder would be")
    with pytest.warns(UserWarning, match="could not be written to the folder of files"):
        trainer = fit(tmp_path, [GradCAMCallback()], logger=False)
    assert trainer.state.finished


def test_run_without_logger_does_not_warn_of_it(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, [GradCAMCallback()], logger=False)
    assert not [warning for warning in caught if "logger" in str(warning.message)]
