"""Writers of figures, numbers and text, by logger class."""

from __future__ import annotations

import torch
from PIL import Image

from lightning_gradcam.loggers import WRITERS, find_writer, log_image, log_numbers, log_text, skip_dummy, write_csv

FIGURE = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)


class CSVLogger:
    """Named as Lightning's, since writers are found by name."""

    def __init__(self, log_dir):
        self.log_dir = log_dir


class Child(CSVLogger):
    pass


class DummyLogger:
    pass


class Unknown:
    def log_metrics(self, values, step):
        raise OSError("no space")


def test_find_writer_follows_the_class_hierarchy():
    assert find_writer(Child("x")) is write_csv
    assert find_writer(DummyLogger()) is skip_dummy
    assert find_writer(Unknown()) is None


def test_log_image_writes_png_files(tmp_path):
    assert log_image([Child(tmp_path)], "gradcam/../a <b>", FIGURE, 42) == []
    [path] = tmp_path.rglob("*.png")
    assert path.relative_to(tmp_path).parts == ("gradcam", "_", "a_b_", "step=000042.png")
    with Image.open(path) as image:
        assert image.size == (7, 5)


def test_log_image_warns_of_a_logger_without_writer(tmp_path):
    [warning] = log_image([Unknown(), CSVLogger(tmp_path)], "a", FIGURE, 0)
    assert warning.startswith("Unknown has no image writer, so figures are not logged; numbers are.")
    assert "WRITERS.register" in warning
    assert len(list(tmp_path.rglob("*.png"))) == 1  # the other logger has it


def test_errors_of_loggers_become_warnings(tmp_path, monkeypatch):
    monkeypatch.setitem(WRITERS, "Unknown", lambda *_: 1 / 0)
    [warning] = log_image([Unknown()], "a", FIGURE, 0)
    assert warning == "A figure could not be written to Unknown (ZeroDivisionError: division by zero)."
    [warning] = log_numbers([Unknown()], {"a": 1.0}, 0)
    assert warning == "Numbers could not be written to Unknown (OSError: no space)."


def test_log_text_skips_other_loggers_than_tensorboard():
    assert log_text([Unknown()], "a", {"b": "c"}, 0) == []
