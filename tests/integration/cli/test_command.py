"""The command line: called in this process, and a few times as a process of its own."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from lightning_gradcam import Baseline, Normalization
from lightning_gradcam.cli import main
from lightning_gradcam.cli.parser import parse

MODULE = '''
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from tests.helpers.lit import Bars


def body(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


class Net(nn.Module):
    def __init__(self, width: int = 4, act: type = nn.ReLU):
        super().__init__()
        self.features = body(width)
        self.head = nn.Linear(width * 64, 3)

    def forward(self, images):
        return self.head(self.features(images).flatten(1))


class LitNet(LightningModule):
    """Calls its child: it has no forward of its own."""

    def __init__(self, width: int, note="plain", wild=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width)


class LitOpen(LitNet):
    """Takes whatever it is given, but not what is LightningCLI's."""

    def __init__(self, **options):
        assert not any(name.startswith("_") for name in options)
        super().__init__(**options)


def net(width: int = 4):
    return Net(width)


def no_model():
    return 3


class Broken(Net):
    def forward(self, images):
        raise KeyError("a key\\nthat is missing")


class Data(LightningDataModule):
    """Sets up for "fit" only, and shuffles."""

    def __init__(self, mean: float = 0.4, shuffle: bool = True, count: int = 80):
        super().__init__()
        self.mean, self.shuffle, self.count = mean, shuffle, count

    def setup(self, stage):
        if stage == "fit":
            self.bars = Bars(self.count, seed=3, by_class=True)
            self.bars.transform.mean = [self.mean] * 3

    def train_dataloader(self):
        return DataLoader(self.bars, 8)

    def val_dataloader(self):
        return DataLoader(self.bars, 8, shuffle=self.shuffle)


class Pictures(Bars):
    def __init__(self, count: int = 70):
        super().__init__(count)


class Words:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to stand in, with a module of models and data, and checkpoints of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != ""])
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    sys.path.insert(0, "")
    import mine

    sys.path.remove("")
    torch.save(mine.Net(4).state_dict(), "one.pt")
    torch.manual_seed(9)
    torch.save(mine.Net(4).state_dict(), "other.pt")
    lit = mine.LitNet(6)
    hyper = {"width": 6, "note": "saved", "_class_path": "mine.LitNet"}
    torch.save({"state_dict": lit.state_dict(), "hyper_parameters": hyper, "epoch": 3}, "lit.ckpt")
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def call(capsys):
    """Calls the command; returns its exit code, what it wrote, and what it complained of, in one line."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        written = capsys.readouterr()
        assert "Traceback" not in written.err + written.out
        return code, written.out, written.err

    return run


NET = ("--model", "mine.Net")
RECORD = ("baseline", *NET, "--ckpt_path", "one.pt", "--data", "mine.Data", "--images", 80)


@pytest.fixture
def recorded(here, call):
    code, _, error = call(*RECORD, "--out", "b.safetensors")
    assert (code, error) == (0, "")
    return here / "b.safetensors"


def test_record_then_the_same_passes_and_another_regresses_with_reports(recorded, call):
    code, text, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "one.pt")
    assert (code, error) == (0, "")
    assert text.startswith("✓ pass (same-weights): features.1")
    files = [f"out/r.{kind}" for kind in ("html", "md", "json", "txt")]
    code, text, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "other.pt", "--report", *files)
    assert (code, error) == (1, "")
    assert "mean spearman" in text
    for file in files:
        assert f"wrote {file}" in text
        assert "regressed" in Path(file).read_text("utf-8")
    assert Path("out/r.html").read_text("utf-8").count("data:image/png;base64,") == 5
    assert json.loads(Path("out/r.json").read_text())["status"] == "regressed"


def test_a_baseline_beside_another(recorded, call):
    code, _, _ = call(*RECORD[:4], "other.pt", *RECORD[5:], "--out", "c.safetensors")
    assert code == 0
    assert call("compare", "b.safetensors", "b.safetensors")[0] == 0
    assert call("compare", "b.safetensors", "c.safetensors")[0] == 1


def test_thresholds_one_by_one_and_profiles(recorded, call):
    other = ("compare", "b.safetensors", *NET, "--ckpt_path", "other.pt")
    mean = float(re.search(r"mean spearman +([-\d.]+)", call(*other)[1])[1])
    assert call(*other, "--thresholds.mean", mean - 0.5)[0] == 0
    assert call(*other, "--thresholds", json.dumps({"mean": mean}))[0] == 3
    assert call(*other, "--thresholds.mean", mean - 0.5, "--thresholds.q50", 2)[0] == 1
    assert call(*other, "--profile", "next-checkpoint")[0] == 1
    code, text, _ = call(*other, "--profile", "retrain")
    assert code == 4
    assert "at least 5 training runs" in text
    code, _, error = call(*other, "--thresholds.nix", 1)
    assert (code, error.count("\n")) == (2, 1)
    assert "Expected `thresholds` named mean" in error
    assert call(*other, "--thresholds.mean", "much")[0] == 2
    code, _, error = call(*other, "--profile", "retrian")
    assert code == 2
    assert "Did you mean 'retrain'" in error


def test_retrain_beside_five(here, call):
    import mine

    call(*RECORD, "--out", "0.safetensors")
    names = []
    for seed in range(1, 6):
        torch.manual_seed(seed)
        torch.save(mine.Net(4).state_dict(), f"{seed}.pt")
        names.append(f"{seed}.safetensors")
        words = ("baseline", *NET, "--ckpt_path", f"{seed}.pt", "--like", "0.safetensors", "--out", names[-1])
        assert call(*words)[0] == 0
    retrain = ("compare", "0.safetensors", names[4], "--profile", "retrain", "--beside", *names[:4])
    code, text, _ = call(*retrain)
    assert code in (0, 1, 3)
    assert "below the other training runs" in text
    assert call(*retrain, "--thresholds.mean", 1.0)[0] == 0


def test_lightnings_checkpoint_says_its_own_hyperparameters_and_a_child_is_called(here, call):
    lit = ("--model", "mine.LitNet", "--ckpt_path", "lit.ckpt")
    assert call("baseline", *lit, "--data", "mine.Data", "--out", "l.safetensors")[0] == 0
    found = Baseline.load("l.safetensors")
    assert len(found) == 80
    assert found.metadata.layers == ("net.features.1",)
    assert call("compare", "l.safetensors", *lit)[0] == 0
    assert call("compare", "l.safetensors", "--model", "mine.LitOpen", *lit[2:])[0] == 0
    code, _, error = call("compare", "l.safetensors", *lit, "--model.width", 5)
    assert code == 2
    assert "size mismatch" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", [{"class_path": "os.system", "init_args": {"command": "touch ran"}}, {3: (object,)}])
def test_hyperparameters_are_plain_values_and_never_looked_up(here, call, value, monkeypatch):
    import mine

    kept = {"state_dict": mine.LitNet(6).state_dict(), "hyper_parameters": {"width": 6, "wild": value}}
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: kept)
    lit = ("baseline", "--model", "mine.LitNet", "--ckpt_path", "lit.ckpt", "--data", "mine.Data", "--out", "x")
    code, _, error = call(*lit)
    assert code == 2
    assert "'wild' is not a plain value. Pass it as --model.wild VALUE" in error
    assert not Path("ran").exists()
    assert call(*lit, "--model.wild", "1")[0] == 0


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "No such file"),
        (lambda p: p.mkdir(), "Is a directory"),
        (lambda p: p.write_bytes(b""), "not a checkpoint|damaged"),
        (lambda p: p.write_bytes(b"nonsense" * 30), "damaged"),
        (lambda p: p.write_bytes(pickle.dumps(Hostile())), "can execute code, so it is not loaded"),
        (lambda p: torch.save({"state_dict": {}, "more": Hostile()}, p), "can execute code, so it is not loaded"),
        (lambda p: torch.save([1, 2], p), "but got list"),
        (lambda p: torch.save({"epoch": 3}, p), "to contain a state dict, but got epoch"),
        (lambda p: torch.save({"features.0.weight": torch.zeros(3)}, p), "missing 'features.0.bias'"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_says_why(recorded, call, make, said):
    make(recorded.parent / "bad.ckpt")
    code, _, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "bad.ckpt")
    assert code == 2
    assert re.search(said, error)
    assert error.count("\n") == 1
    assert not Path("ran").exists()


def test_names_that_begin_otherwise_are_told_and_can_be_cut(recorded, call):
    weights = torch.load("one.pt", weights_only=True)
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}, "in.ckpt")
    code, _, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "in.ckpt")
    assert code == 2
    assert "The checkpoint's keys begin with 'model.'. Pass --prefix model." in error
    assert call("compare", "b.safetensors", *NET, "--ckpt_path", "in.ckpt", "--prefix", "model.")[0] == 0
    code, _, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "in.ckpt", "--prefix", "net.")
    assert code == 2
    assert "Expected keys in 'in.ckpt' that begin with --prefix net., but got 'model." in error
    code, _, error = call(
        "compare", "b.safetensors", "--model", "mine.LitNet", "--model.width", 4, "--ckpt_path", "one.pt"
    )
    assert code == 2
    assert (
        "The model's keys begin with 'net.', but the checkpoint's do not. Pass the submodule 'net' as --model." in error
    )
    save_file(weights, "one.safetensors")
    assert call("compare", "b.safetensors", *NET, "--ckpt_path", "one.safetensors")[0] == 0


def test_data_in_a_fixed_order_and_its_normalisation_found(recorded, call):
    assert call(*RECORD, "--data.shuffle", "false", "--out", "c.safetensors")[0] == 0
    one, other = Baseline.load("b.safetensors"), Baseline.load("c.safetensors")
    assert torch.equal(one.images, other.images)
    assert one.metadata.normalization == Normalization((0.4,) * 3, (0.25,) * 3)
    assert call(*RECORD[:-1], 8, "--out", "d.safetensors")[0] == 0
    assert set(Baseline.load("d.safetensors").labels.tolist()) == {0, 1, 2}  # though they come class by class


def test_a_wrong_normalisation_is_a_regression_and_other_images_are_incompatible(recorded, call):
    same = ("compare", "b.safetensors", *NET, "--ckpt_path", "one.pt")
    code, text, _ = call(*same, "--data", "mine.Data", "--data.mean", 0.9)
    assert code == 1
    assert "normalization" in text
    std = ("--std", 0.25, 0.25, 0.25)
    assert call(*same, "--mean", 0.9, 0.9, 0.9, *std)[0] == 1
    assert call(*same, "--mean", 0.4, 0.4, 0.4, *std)[0] == 0
    code, text, _ = call(*same, "--data", "mine.Pictures", "--data.count", 80)
    assert code == 4
    assert "different images" in text


def test_a_hash_needs_the_data_again(here, call):
    assert call(*RECORD, "--store", "hash", "--out", "h.safetensors")[0] == 0
    same = ("compare", "h.safetensors", *NET, "--ckpt_path", "one.pt")
    code, _, error = call(*same)
    assert code == 2
    assert "Pass the same images with --data" in error
    assert call(*same, "--data", "mine.Data")[0] == 0
    assert call(*same, "--data", "mine.Data", "--data.count", 79)[0] == 4


@pytest.fixture
def photos(here):
    for i in range(12):
        folder = here / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (torch.rand(20 + i % 3, 18, 3) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (here / "photos" / "cat" / "notes.txt").write_text("no image")
    return here / "photos"


FOLDER = ("baseline", "--model", "mine.net", "--data", "photos/", "--size", 16)


def test_a_folder_of_images_and_a_function_that_makes_a_plain_module(photos, call):
    norm = ("--mean", 0.5, 0.5, 0.5, "--std", 0.2, 0.2, 0.2)
    assert call(*FOLDER, *norm, "--images", 10, "--out", "f.safetensors")[0] == 0
    found = Baseline.load("f.safetensors")
    assert found.labels.tolist() == [0, 1] * 5
    assert found.images.shape == (10, 3, 16, 16)
    assert found.metadata.normalization == Normalization((0.5,) * 3, (0.2,) * 3)
    assert 0 <= found.images.min() < found.images.max() <= 1.0001
    assert call("compare", "f.safetensors", "--model", "mine.net", "--device", "cpu")[0] == 0
    assert call(*FOLDER[:4], "photos/dog", *FOLDER[5:-1], 16, 16, "--out", "g.safetensors")[0] == 0
    assert Baseline.load("g.safetensors").labels is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*FOLDER[:-2],), "but got 20×18, 21×18, 22×18. Pass --size"),
        ((*FOLDER, "--channels", 2), "--channels to be 1 or 3"),
        ((*FOLDER, "--channels", 1), "failed on images of shape (2, 1, 16, 16)"),
        ((*FOLDER, 1, 2), "--size N or --size H W"),
        ((*FOLDER, "--mean", 0.5), "--mean and --std must be passed together"),
        ((*FOLDER, "--mean", 0.5, "--std", 0), "over 0"),
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
def test_a_wrong_call_ends_with_2_and_a_line(photos, call, words, said):
    code, _, error = call(*words, "--out", "new.safetensors")
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not Path("new.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
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
def test_a_wrong_call_of_the_others_ends_with_2(recorded, call, words, said):
    code, _, error = call(*words)
    assert code == 2
    assert said in error


BAD = {
    "missing": (lambda p: None, "No such file"),
    "folder": (lambda p: p.mkdir(), "a folder"),
    "empty": (lambda p: p.write_bytes(b""), "it is empty"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(Hostile())), "not a safetensors file"),
    "zip": (lambda p: torch.save({"a": Hostile()}, p), "not a safetensors file"),
    "truncated": (lambda p: p.write_bytes((p.parent / "b.safetensors").read_bytes()[:-9]), "damaged"),
    "weights": (lambda p: save_file({"a": torch.zeros(2)}, p), "not a baseline of lightning_gradcam"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_baseline_ends_with_4_and_a_line(recorded, call, kind):
    make, said = BAD[kind]
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
        assert said in error
        assert error.count("\n") == 1
        assert "\x1b" not in error
    assert not Path("ran").exists()


def test_a_model_that_the_baseline_does_not_fit_is_incompatible(recorded, call):
    for other in ("torch.nn.Identity", "mine.Broken"):
        code, out, error = call("compare", recorded, "--model", other)
        assert code == 4
        assert "! incompatible (same-weights): The candidate cannot be explained like the baseline:" in out
        assert "Traceback" not in out + error


def test_what_the_users_code_raises_never_ends_with_1(recorded, call, monkeypatch):
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


def test_a_traceback_is_shown_where_it_is_asked_for(recorded, capsys):
    Path("fails.py").write_text("from torch import nn\n\ndef net():\n    raise RuntimeError('no idea')\n")
    sys.modules.pop("fails", None)
    assert main(["compare", str(recorded), "--model", "fails.net", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_reports_of_a_baseline_and_of_a_comparison(recorded, call):
    code, text, _ = call("report", recorded)
    assert code == 0
    assert "80 of 3×16×16" in text
    assert "warning" not in text
    assert (
        call(*RECORD[:-1], 20, "--out", "few.safetensors")[1]
        .splitlines()[-1]
        .startswith("warning: only 20 of 20 maps at")
    )
    assert call("report", recorded, "--out", "b.html", "b.json", "b.md")[0] == 0
    assert Path("b.html").read_text("utf-8").count("data:image/png;base64,") == 16
    assert json.loads(Path("b.json").read_text())["method"] == "gradcam of the label"
    call("compare", recorded, *NET, "--ckpt_path", "other.pt", "--report", "r.json", "r.md", "r.txt", "r.html")
    assert call("report", "r.json", "--out", "s.json", "s.md", "s.txt", "s.html")[0] == 0
    for kind in ("json", "md", "txt"):
        assert Path(f"s.{kind}").read_bytes() == Path(f"r.{kind}").read_bytes()
    assert "<h1>" in Path("s.html").read_text("utf-8")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"status": "pass"}', b"[" * 100_000, b"\xff", b'{"status": ["x"]}']
)
def test_a_json_that_is_no_comparison_ends_with_4(here, call, content):
    Path("r.json").write_bytes(content)
    code, out, error = call("report", "r.json")
    assert (code, out, error.count("\n")) == (4, "", 1)


def test_a_json_with_one_fact_changed_ends_with_4_or_is_shown(recorded, call):
    call("compare", recorded, *NET, "--ckpt_path", "other.pt", "--report", "r.json")
    facts = json.loads(Path("r.json").read_text())
    for name in facts:
        for value in (None, [], {}, "x\x1b[31m", 1e400, [[]], {"a": 1}, True):
            Path("s.json").write_text(json.dumps({**facts, name: value}))
            code, text, error = call("report", "s.json")
            assert code in (0, 4)
            assert "\x1b" not in text + error


def test_a_yaml_file_says_the_same(recorded, call):
    options = {
        "model": {"class_path": "mine.Net", "init_args": {"width": 4}},
        "ckpt_path": "other.pt",
        "thresholds": {"mean": -1.0},
    }
    Path("gate.yaml").write_text(yaml.safe_dump(options))
    assert call("compare", recorded, "--config", "gate.yaml")[0] == 0
    assert call("compare", recorded, "--config", "gate.yaml", "--thresholds.mean", 1)[0] == 1
    Path("gate.yaml").write_text(yaml.safe_dump({**options, "model": {"class": "mine.Net"}}))
    assert call("compare", recorded, "--config", "gate.yaml")[0] == 2


def test_words_for_the_model_are_told_from_our_own():
    words = "compare b --model.init_args.width 3 --model=a.B --data.x=1 --data c.D --model.act torch.nn.ReLU"
    asked = parse(words.split())
    assert (asked.model.path, asked.model.words) == ("a.B", ["--width=3", "--act=torch.nn.ReLU"])
    assert (asked.data.path, asked.data.words) == ("c.D", ["--x=1"])
    asked = parse(["compare", "b", "--model.class_path", "a.B"])
    assert asked.model.path == "a.B"


def test_without_jsonargparse_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(["--help"]) == 2
    assert capsys.readouterr().err == (
        "lightning-gradcam: the command line requires jsonargparse: pip install 'lightning_gradcam[cli]'\n"
    )


@pytest.mark.parametrize("command", ["", "baseline", "compare", "report"])
def test_help_is_one_a_stranger_can_use(call, command):
    code, text, _ = call(*filter(None, [command]), "--help")
    assert code == 0
    assert "lightning-gradcam" in text
    assert not re.findall(r"^ +--\w+ [A-Z_]+(?: \[.*\])? *\n +(?:--|\n|-h)", text, re.MULTILINE)  # each has its words
    if command in ("", "compare"):
        assert "0 pass, 1 regressed, 2 error in the call, model or data, 3 inconclusive, 4 incompatible" in text


def test_the_path_of_modules_is_as_it_was(recorded, call):
    before = list(sys.path)
    call("compare", recorded, "--model", "no.Net")
    assert sys.path == before


def as_process(*words, **environment):
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-m", "lightning_gradcam.cli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        check=False,
    )


def test_as_a_process_it_passes_regresses_and_fails_with_its_codes(here):
    assert as_process(*RECORD, "--out", "b.safetensors").returncode == 0
    ran = as_process("compare", "b.safetensors", *NET, "--ckpt_path", "other.pt", PYTHONIOENCODING="ascii")
    assert ran.returncode == 1
    assert ran.stdout.startswith(b"? regressed")
    assert ran.stderr == b""
    Path("b.safetensors").write_bytes(b"\x80\x04")
    ran = as_process("compare", "b.safetensors", *NET)
    assert (ran.returncode, ran.stderr.count(b"\n"), ran.stdout) == (4, 1, b"")
