"""Models and checkpoints."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_gradcam import Baseline
from tests.integration.cli.conftest import NET, HostilePickle


def test_lightning_checkpoint_provides_hyperparameters(here, call):
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
def test_hyperparameters_are_plain_values_and_never_imported(here, call, value, monkeypatch):
    import mine

    kept = {"state_dict": mine.LitNet(6).state_dict(), "hyper_parameters": {"width": 6, "wild": value}}
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: kept)
    lit = ("baseline", "--model", "mine.LitNet", "--ckpt_path", "lit.ckpt", "--data", "mine.Data", "--out", "x")
    code, _, error = call(*lit)
    assert code == 2
    assert "'wild' is not a plain value. Pass it as --model.wild VALUE" in error
    assert not Path("ran").exists()
    assert call(*lit, "--model.wild", "1")[0] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "No such file"),
        (lambda p: p.mkdir(), "Is a directory"),
        (lambda p: p.write_bytes(b""), "not a checkpoint|damaged"),
        (lambda p: p.write_bytes(b"nonsense" * 30), "damaged"),
        (lambda p: p.write_bytes(pickle.dumps(HostilePickle())), "can execute code, so it is not loaded"),
        (lambda p: torch.save({"state_dict": {}, "more": HostilePickle()}, p), "can execute code, so it is not loaded"),
        (lambda p: torch.save([1, 2], p), "but got list"),
        (lambda p: torch.save({"epoch": 3}, p), "to contain a state dict, but got the keys epoch"),
        (lambda p: torch.save({"features.0.weight": torch.zeros(3)}, p), "missing 'features.0.bias'"),
    ],
)
def test_unusable_checkpoint_is_explained(recorded, call, make, message):
    make(recorded.parent / "bad.ckpt")
    code, _, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "bad.ckpt")
    assert code == 2
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not Path("ran").exists()


def test_prefix_of_keys_is_suggested_and_stripped(recorded, call):
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
