"""Exit codes and one-line messages of errors."""

from __future__ import annotations

import errno
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_gradcam.cli import main
from tests.integration.cli.conftest import FOLDER, NET, RECORD, HostilePickle


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*FOLDER[:-2],), "but got 20×18, 21×18, 22×18. Pass --size"),
        ((*FOLDER, "--channels", 2), "--channels to be 1 or 3"),
        ((*FOLDER, "--channels", 1), "failed on images of shape (2, 1, 16, 16)"),
        ((*FOLDER, 1, 2), "--size N or --size H W"),
        ((*FOLDER, "--mean", 0.5), "--mean and --std must be passed together"),
        ((*FOLDER, "--mean", 0.5, "--std", 0), "above 0"),
        ((*FOLDER, "--mean", 0.5, 0.5, "--std", 1, 1), "Expected --mean and --std to have 3 numbers"),
        ((*FOLDER, "--images", 0), "--images to be at least 1"),
        ((*FOLDER, "--layers", "features.9"), "Expected the name of a layer"),
        ((*FOLDER, "--method", "gradcan"), "Did you mean 'gradcam'"),
        ((*FOLDER, "--target", 7), "Expected classes from 0 to 2"),
        ((*FOLDER, "--store", "nix"), "--store to be images or hash"),
        ((*FOLDER, "--device", "nix"), "--device nix"),
        ((*FOLDER[:3], "--data", "mine.py", "--size", 16), "mine.py"),
        ((*FOLDER[:3], "--data", "none/"), "to be an existing folder, or a path such as"),
        ((*FOLDER[:3], "--data", "none"), "to be an existing folder, or a path such as"),
        ((*FOLDER[:3], "--data", "mine.Words"), "without any"),
        ((*FOLDER[:3], "--data", "mine.Net"), "to create a LightningDataModule, a DataLoader or a Dataset"),
        ((*FOLDER[:3],), "needs --model and --data"),
        (("baseline", "--data", "photos"), "needs --model and --data"),
        (("baseline", "--model", "mine.no_model", "--data", "photos"), "to create an nn.Module, but got int"),
        (("baseline", "--model", "mine.MODULE", "--data", "photos"), "no attribute 'MODULE'"),
        (("baseline", "--model", "Net", "--data", "photos"), "such as package.module.Name"),
        (("baseline", "--model", "no.such.Net", "--data", "photos"), "No module named 'no'"),
        (("baseline", "--model", "mine.Net", "--model.widht", 4, "--data", "photos"), "widht"),
        (("baseline", "--model", "mine.Net", "--model.width", "x", "--data", "photos"), "Got value: x"),
        (("baseline", "--model", "mine.LitNet", "--data", "photos"), "missing a required argument: 'width'"),
        (("baseline", "--model.width", 3, "--data", "photos"), "--model.width requires --model"),
        (("baseline", "--model", "mine.Broken", *FOLDER[3:]), "KeyError: 'a key"),
    ],
)
def test_usage_error_of_baseline_exits_with_2(photos, call, words, message):
    code, _, error = call(*words, "--out", "new.safetensors")
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not Path("new.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected"),
        (("nix",), "nix"),
        (("compare",), "baseline"),
        (("compare", "b.safetensors"), "either --model (and --ckpt_path), or a second baseline"),
        (("compare", "b.safetensors", "b.safetensors", *NET), "either --model (and --ckpt_path), or a second baseline"),
        (("compare", "b.safetensors", *NET, "--modell", "x"), "--modell"),
        (("compare", "b.safetensors", *NET, "--report", "r.pdf"), "that ends in .html, .md, .json, .txt"),
        (("compare", "b.safetensors", *NET, "--report", "mine.py/r.md"), "could not be written"),
        (("report", "b.safetensors", "--out", "r"), "that ends in .html"),
        ((*RECORD, "--out", "b.safetensors"), "Pass --overwrite to replace it"),
        ((*RECORD, "--out", "."), "already exists"),
        ((*RECORD, "--out", "mine.py/b.safetensors"), "mine.py"),
    ],
)
def test_usage_error_of_other_commands_exits_with_2(recorded, call, words, message):
    code, _, error = call(*words)
    assert code == 2
    assert message in error


BAD = {
    "missing": (lambda p: None, "No such file"),
    "folder": (lambda p: p.mkdir(), "a folder"),
    "empty": (lambda p: p.write_bytes(b""), "it is empty"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(HostilePickle())), "not a safetensors file"),
    "zip": (lambda p: torch.save({"a": HostilePickle()}, p), "not a safetensors file"),
    "truncated": (lambda p: p.write_bytes((p.parent / "b.safetensors").read_bytes()[:-9]), "damaged"),
    "weights": (lambda p: save_file({"a": torch.zeros(2)}, p), "not a baseline of lightning_gradcam"),
}


@pytest.mark.parametrize("kind", BAD)
def test_unreadable_baseline_exits_with_4(recorded, call, kind):
    make, message = BAD[kind]
    bad = recorded.parent / "bad\x1b[31m.safetensors"
    make(bad)
    for words in (
        ("compare", bad, *NET),
        ("compare", recorded, bad),
        ("compare", recorded, *NET, "--beside", bad),
        ("report", bad),
    ):
        code, out, error = call(*words)
        assert (code, out) == (4, "")
        assert message in error
        assert error.count("\n") == 1
        assert "\x1b" not in error
    assert not Path("ran").exists()


def test_errors_of_user_code_never_exit_with_1(recorded, call, monkeypatch):
    Path("exits.py").write_text("import sys\nsys.exit(0)\n")
    Path("fails.py").write_text(
        "import sys\n\ndef net():\n    raise RuntimeError('no\\n\\x1b[31midea')\n\ndef leaves():\n    sys.exit(0)\n"
    )
    assert call("compare", recorded, "--model", "fails.leaves")[0] == 2
    code, _, error = call("compare", recorded, "--model", "exits.net")
    assert code == 2
    assert "could not be imported: SystemExit: 0" in error
    code, _, error = call("compare", recorded, "--model", "fails.net")
    assert (code, error) == (2, "lightning-gradcam: RuntimeError: no ?[31midea (use --traceback for details)\n")


def test_traceback_is_shown_on_request(recorded, capsys):
    Path("fails.py").write_text("from torch import nn\n\ndef net():\n    raise RuntimeError('no idea')\n")
    sys.modules.pop("fails", None)
    assert main(["compare", str(recorded), "--model", "fails.net", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"status": "pass"}', b"[" * 100_000, b"\xff", b'{"status": ["x"]}']
)
def test_invalid_json_exits_with_4(here, call, content):
    Path("r.json").write_bytes(content)
    code, out, error = call("report", "r.json")
    assert (code, out, error.count("\n")) == (4, "", 1)


def test_modified_json_exits_with_4_or_is_shown(recorded, call):
    call("compare", recorded, *NET, "--ckpt_path", "other.pt", "--report", "r.json")
    facts = json.loads(Path("r.json").read_text())
    for name in facts:
        for value in (None, [], {}, "x\x1b[31m", 1e400, [[]], {"a": 1}, True):
            Path("s.json").write_text(json.dumps({**facts, name: value}))
            code, text, error = call("report", "s.json")
            assert code in (0, 4)
            assert "\x1b" not in text + error


def test_module_path_is_restored(recorded, call):
    before = list(sys.path)
    call("compare", recorded, "--model", "no.Net")
    assert sys.path == before


def test_checkpoint_with_integer_names_is_one_line(here, call):
    torch.save({0: torch.zeros(3), 1: torch.zeros(3)}, "numbers.pt")
    for prefix in ((), ("--prefix", "model.")):
        code, _, error = call(*RECORD[:3], "--ckpt_path", "numbers.pt", *RECORD[5:], *prefix, "--out", "b.safetensors")
        assert code == 2
        assert "Expected the names of tensors in 'numbers.pt' to be text, but got 0, a int" in error
        assert error.count("\n") == 1


def test_full_disk_is_one_line_and_leaves_no_draft(recorded, call, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(os.listdir())
    monkeypatch.setattr(os, "fsync", fail)
    for words in ((*RECORD, "--out", "new.safetensors"), ("report", recorded, "--out", "a.html")):
        code, _, error = call(*words)
        assert code == 2
        assert f"{words[-1]!r} could not be written: No space left on device." in error
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_device_is_written_and_not_replaced(here, call, monkeypatch):
    replace = os.replace

    def replace_files_only(draft, target):
        assert not str(target).startswith("/dev"), "a device would be replaced"
        replace(draft, target)

    monkeypatch.setattr(os, "replace", replace_files_only)  # not even by a faulty version
    Path("full.html").symlink_to("/dev/full")
    Path("null.safetensors").symlink_to(os.devnull)
    assert call(*RECORD, "--out", "null.safetensors")[0] == 0
    assert call(*RECORD, "--out", "b.safetensors")[0] == 0
    code, _, error = call("report", "b.safetensors", "--out", "full.html")
    assert (code, "No space left" in error) == (2, True)
    assert Path("full.html").is_symlink()
    assert Path("null.safetensors").is_symlink()
