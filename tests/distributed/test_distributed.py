"""Distributed runs: the same weights as without the callback on every rank, no deadlock, equal monitored values."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import processes
from tests.helpers.recorder import flat
from tests.regimes.processes import CASES

TIMEOUT = 300
"""Seconds for all cases; on two idle cores they take a fifth of that."""


@pytest.fixture(scope="session")
def left(request, tmp_path_factory):
    """Run the selected cases in two processes, and return their results by case."""
    items = [item for item in request.session.items if getattr(item, "originalname", "") == "test_two_processes"]
    names = [name for item in items if not CASES[name := item.callspec.params["name"]].skip]
    root = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(processes.__file__)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"TORCHELASTIC_RUN_ID": "tests", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    started = []
    for rank in "01":
        with (root / f"{rank}.log").open("w") as log:
            environment = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
            command = [sys.executable, str(script), str(root), rank, *names]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(TIMEOUT) for process in started]
    except subprocess.TimeoutExpired:
        codes = ["hangs"]
    finally:
        for process in started:
            process.kill()
    logs = "\n".join((root / f"{rank}.log").read_text()[-3000:] for rank in "01")
    return {path.stem: torch.load(path, weights_only=False) for path in root.glob("*.pt")}, codes, logs


def params():
    for name, case in CASES.items():
        yield pytest.param(name, marks=[pytest.mark.skip(reason=case.skip)] if case.skip else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(params()))
def test_two_processes(left, name):
    case = CASES[name]
    found, codes, logs = left
    assert {f"{name}.0", f"{name}.1"} <= found.keys(), f"{codes}: {logs}"
    ranks = [found[f"{name}.{rank}"] for rank in "01"]
    for rank in ranks:
        assert flat(rank[True]["seen"]) == flat(rank[False]["seen"])  # with and without the callback
    first, second = (rank[True] for rank in ranks)
    assert first["files"]
    assert [said for said in second["said"] if "in process 1" not in said] == []
    assert len(second["said"]) == ("memory" in name)
    words = case.fails or case.warns
    assert [re.search(words, said) is not None for said in first["said"]] == [True] * bool(words)
    if case.monitors:
        assert torch.isfinite(first["metrics"]["gradcam/drift"])
        assert flat(first["metrics"]) == flat(second["metrics"])
    if not case.fails:
        assert first["looks"] == second["looks"] >= 2
        assert torch.equal(first["images"], second["images"])
        assert torch.equal(first["evidence"], second["evidence"])
        tolerance = 0.02 if "precision" in case.trainer else 1e-5  # the oracle has float32
        largest = first["oracle"].abs().max()
        assert largest > 0
        assert torch.allclose(first["evidence"], first["oracle"], atol=tolerance * largest)
