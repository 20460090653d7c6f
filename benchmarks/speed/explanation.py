"""Explanations compared with a plain forward pass and with peers, over architectures and precisions."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, median
from typing import Any

import torch

from benchmarks.speed.cases import Case, prepared
from benchmarks.speed.contestants import FORWARD, OURS, PEERS, TRACED, bound, explainers, installed_peers, traced
from benchmarks.speed.estimates import compared
from benchmarks.speed.memory import kept_for_backward, peak
from benchmarks.speed.rounds import Options, take_turns
from benchmarks.tables import table

MODELS = ("resnet18", "resnet50", "vgg16", "mobilenet_v3_large", "densenet121", "vit_b_32")
IMAGES, SECONDS = 8, 60
MEAN_GOAL, WORST_GOAL, PEER_GOAL, KEPT_GOAL = 1.05, 1.15, 3.0, 1000
NOT = "treats tokens as channels"

HOW = """*ours* is what the callback computes in each snapshot, with a layer chosen in advance; *with tracing* is the
function `explain()`, which traces the model on two images and chooses the layer in every call. The peers return
different things: captum returns signed evidence at the resolution of the layer, as we do; torchcam returns normalized
maps; pytorch-grad-cam also scales maps to the images. captum and torchcam treat the tokens of a Vision Transformer as
channels, so what they return for it is not a map. *Saved* is what autograd saves for backward
(`torch.autograd.graph.saved_tensors_hooks`), each storage once, without the parameters and buffers of the model.
*Peak* is the most that PyTorch allocates at once beyond what it held before (on a CPU measured with its profiler: it
includes a clone of the activation, but not what NumPy and oneDNN allocate themselves)."""


def measure(options: Options) -> dict[str, Any]:
    """Measure every architecture in float32, and a small one in bfloat16."""
    models = ("resnet18", "vit_b_32") if options.quick else MODELS
    found = {name: _one(name, options, torch.float32) for name in models}
    return {"images": IMAGES, "float32": found, "bfloat16": {"resnet18": _one("resnet18", options, torch.bfloat16)}}


def _one(name: str, options: Options, dtype: torch.dtype) -> dict[str, Any]:
    print(f"  {name}, {dtype}", flush=True)
    with prepared(name, IMAGES, device=options.device, dtype=dtype) as case:
        runs = bound(case, dict(explainers(case, installed_peers())))
        failed = {}
        for each in list(runs):
            try:
                runs[each]()
            except (TypeError, RuntimeError) as error:  # a peer that cannot do this is listed as failing
                if each in (FORWARD, OURS):
                    raise
                failed[each] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                del runs[each]
        memory = {each: _memory(case, each, runs, options) for each in runs}
        if dtype == torch.float32:
            runs |= bound(case, {TRACED: traced})
        turns = take_turns(runs, FORWARD, options, SECONDS)
        tokens, layer = case.tokens, case.layer.name
    return {"layer": layer, "tokens": tokens, **turns, "failed": failed, "memory": memory}


def _memory(case: Case, name: str, runs: Mapping[str, Any], options: Options) -> dict[str, int]:
    return {"kept": kept_for_backward(runs[name], case.model), "peak": peak(runs[name], options.device)}


def page(found: Mapping[str, Any]) -> str:
    """Return the section."""
    parts = [f"{found['images']} images of 224x224 pixels, float32.", _times(found["float32"], (OURS, *PEERS, TRACED))]
    parts += ["In milliseconds:", _milliseconds(found["float32"])]
    parts += [_memory_table(found["float32"]), "In bfloat16, model and images:"]
    parts += [_times(found["bfloat16"], (OURS, *PEERS)), _failures(found["bfloat16"]), *_verdicts(found), HOW]
    return "\n\n".join(part for part in parts if part)


def _times(models: Mapping[str, Any], shown: tuple[str, ...]) -> str:
    rows = []
    for name, one in models.items():
        times = one["milliseconds"]
        cells = [str(compared(one, each, FORWARD)) if each in times else _why_not(one, each) for each in shown]
        rows.append((f"{name}, `{one['layer']}`", str(len(times[FORWARD])), *cells))
    return table(("times a plain forward pass", "rounds", *shown), rows)


def _why_not(one: Mapping[str, Any], name: str) -> str:
    return "fails" if name in one["failed"] else NOT if one["tokens"] and name in PEERS else "–"


def _failures(models: Mapping[str, Any]) -> str:
    said = [f"{peer} fails ({why})" for one in models.values() for peer, why in one["failed"].items()]
    return "; ".join(said) + "." if said else ""


def _milliseconds(models: Mapping[str, Any]) -> str:
    shown = (FORWARD, OURS, *PEERS, TRACED)
    rows = [
        (name, *(f"{median(one['milliseconds'][each]):.0f}" if each in one["milliseconds"] else "–" for each in shown))
        for name, one in models.items()
    ]
    return table(("", *shown), rows)


def _memory_table(models: Mapping[str, Any]) -> str:
    shown = (OURS, *PEERS)
    rows = []
    for name, one in models.items():
        memory = one["memory"]
        kept = [_mebibytes(memory[each]["kept"]) if each in memory else "–" for each in shown]
        most = [_mebibytes(memory[each]["peak"]) if each in memory else "–" for each in (FORWARD, *shown)]
        rows.append((name, *kept, *most))
    return table(("MiB", *(f"saved: {n}" for n in shown), *(f"peak: {n}" for n in (FORWARD, *shown))), rows)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.2f}" if count < 10 * 2**20 else f"{count / 2**20:.0f}"


def _verdicts(found: Mapping[str, Any]) -> list[str]:
    own = {name: compared(one, OURS, FORWARD) for name, one in found["float32"].items()}
    average, worst = mean(each.value for each in own.values()), max(own, key=lambda name: own[name].value)
    said = [
        f"- On average over the architectures, ours takes {average:.2f} times as long as a forward pass (goal: at most "
        f"{MEAN_GOAL}), and at most {own[worst].value:.2f} times ({worst}; goal: at most {WORST_GOAL})."
    ]
    faster = {
        name: compared(one, "pytorch-grad-cam", OURS)
        for name, one in found["float32"].items()
        if "pytorch-grad-cam" in one["milliseconds"]
    }
    if faster:
        least = min(faster, key=lambda name: faster[name].value)
        said.append(
            f"- pytorch-grad-cam takes at least {faster[least]} times as long as ours ({least}; goal: {PEER_GOAL:g})."
        )
    said += [_compare_with_peer(found, peer) for peer in ("torchcam", "captum")]
    said.append(_compare_saved(found))
    return ["\n".join(each for each in said if each)]


def _compare_with_peer(found: Mapping[str, Any], peer: str) -> str:
    """Return our time divided by that of a peer, on average and for the worst architecture."""
    ratios = {name: compared(one, OURS, peer) for name, one in found["float32"].items() if peer in one["milliseconds"]}
    if not ratios:
        return ""
    most, middle = max(ratios, key=lambda name: ratios[name].value), mean(each.value for each in ratios.values())
    return f"- Compared with {peer}, ours takes {middle:.2f} times as long on average, at most {ratios[most]} ({most})."


def _compare_saved(found: Mapping[str, Any]) -> str:
    memory = found["float32"].get("resnet50", {}).get("memory", {})
    least = min((memory[peer]["kept"] for peer in PEERS if peer in memory), default=0)
    if not least:
        return ""
    fraction = f"1/{least / memory[OURS]['kept']:.0f}"
    return f"- Saved for backward on ResNet-50: {fraction} of what the peers save (goal: 1/{KEPT_GOAL})."


def losses(found: Mapping[str, Any]) -> list[str]:
    """List missed goals and faster peers."""
    said, own = [], {}
    for name, one in found["float32"].items():
        own[name] = compared(one, OURS, FORWARD).value
        if own[name] > WORST_GOAL:
            said.append(f"{name}: an explanation takes {own[name]:.2f} times a forward pass; the goal is {WORST_GOAL}")
        for peer in PEERS:
            if peer in one["milliseconds"]:
                beside = compared(one, peer, OURS)
                if peer == "pytorch-grad-cam" and beside.value < PEER_GOAL:
                    said.append(f"{name}: pytorch-grad-cam takes {beside} times as long; the goal is {PEER_GOAL:g}")
                if beside.high < 1:
                    said.append(f"{name}: {peer} is faster, it takes {beside} of our time")
    if mean(own.values()) > MEAN_GOAL:
        average = mean(own.values())
        said.append(f"on average an explanation takes {average:.2f} times a forward pass; the goal is {MEAN_GOAL}")
    memory = found["float32"].get("resnet50", {}).get("memory", {})
    for peer in PEERS:
        if peer in memory and memory[peer]["kept"] < KEPT_GOAL * memory[OURS]["kept"]:
            said.append(f"resnet50: ours saves more than 1/{KEPT_GOAL} of what {peer} saves for backward")
    return said
