"""Options, configuration files and help."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from lightning_gradcam.cli import main
from lightning_gradcam.cli.parser import parse


def test_yaml_file_sets_options(recorded, call):
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


def test_parse_separates_arguments_of_the_model():
    words = "compare b --model.init_args.width 3 --model=a.B --data.x=1 --data c.D --model.act torch.nn.ReLU"
    asked = parse(words.split())
    assert (asked.model.path, asked.model.words) == ("a.B", ["--width=3", "--act=torch.nn.ReLU"])
    assert (asked.data.path, asked.data.words) == ("c.D", ["--x=1"])
    asked = parse(["compare", "b", "--model.class_path", "a.B"])
    assert asked.model.path == "a.B"


def test_missing_jsonargparse_is_explained(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(["--help"]) == 2
    assert capsys.readouterr().err == (
        "lightning-gradcam: the command line requires jsonargparse: pip install 'lightning_gradcam[cli]'\n"
    )


@pytest.mark.parametrize("command", ["", "baseline", "compare", "report"])
def test_help_describes_every_option(call, command):
    code, text, _ = call(*filter(None, [command]), "--help")
    assert code == 0
    assert "lightning-gradcam" in text
    assert not re.findall(r"^ +--\w+ [A-Z_]+(?: \[.*\])? *\n +(?:--|\n|-h)", text, re.MULTILINE)  # each has its words
    if command in ("", "compare"):
        assert "0 pass, 1 regressed, 2 error in the call, model or data, 3 inconclusive, 4 incompatible" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "nan"), "Expected --size to be a whole number, but got nan"),
        (("--size", "2.5"), "Expected --size to be a whole number, but got 2.5"),
        (("--images", "1e9"), "Expected --images to be a whole number, but got 1000000000.0"),
        (("--mean", "red"), "Expected --mean to be a number, but got red"),
        (("--channels", "\x1b[31m3"), "Expected --channels to be a whole number, but got ?[31m3"),
        (("--no_such_option", "3"), "unrecognized arguments: --no_such_option 3"),
        (("--config", "none.yaml"), "none.yaml"),
    ],
)
def test_invalid_option_is_one_line(words, message, capsys):
    assert main(["baseline", "--out", "b.safetensors", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.endswith("(see `lightning-gradcam baseline --help`)\n")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["baseline", "compare", "report"])
def test_usage_begins_with_command_and_what_it_needs(command, capsys):
    assert main([command, "--help"]) == 0
    usage = capsys.readouterr().out.split("\n\n")[0].split()
    assert usage[:3] == ["usage:", "lightning-gradcam", command]
    assert usage[3] in ("--out", "BASELINE", "FILE")
