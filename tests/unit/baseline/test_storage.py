"""Baseline files that cannot be trusted: damaged, hostile, from the future, half written."""

from __future__ import annotations

import errno
import html
import json
import multiprocessing
import os
import pickle
import re
import resource
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load as load_tensors, save as save_tensors
from torch import nn

from lightning_gradcam import Baseline
from lightning_gradcam.baseline import storage
from lightning_gradcam.baseline.data import serialize
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.errors import UnreadableError
from lightning_gradcam.explainer.map_status import MapStatus

EXAMPLES = 1000


def small(seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    return Baseline.record(model, (torch.rand(3, 1, 4, 4), torch.arange(3)), **options)


def content_of(baseline, folder):
    baseline.save(folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


def as_file(tensors, about, version="1", checksum=True):
    """A baseline file of these parts, with a checksum that fits or none."""
    text = about if isinstance(about, str) else json.dumps(about)
    metadata = {"kind": storage.KIND, "version": version, "about": text}
    if checksum:
        metadata["sha256"] = storage._compute_checksum(tensors, int(version) if len(version) < 9 else 1, text)
    return save_tensors(tensors, metadata)


def with_header(content, change):
    """The same file with its header changed and the header's length put right."""
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def ends_well(path, content, original):
    """The file is read as what it was, or is unreadable in one line; nothing else may come out."""
    path.write_bytes(content)
    try:
        found = Baseline.load(path)
    except UnreadableError as error:
        assert "\n" not in str(error)
        return "unreadable"
    tensors, about = serialize(found)
    others, others_about = serialize(original)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    assert json.dumps(about, sort_keys=True) == json.dumps(others_about, sort_keys=True)
    return "read"


BYTES = st.binary(min_size=1, max_size=12)
AT = st.integers(0, 1 << 30)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), AT, st.integers(1, 255)),
        st.tuples(st.just("cut"), AT, st.integers(1, 4000)),
        st.tuples(st.just("insert"), AT, BYTES),
        st.tuples(st.just("end"), AT, st.just(0)),
        st.tuples(st.just("header"), AT, BYTES),
        st.tuples(st.just("digit"), AT, st.sampled_from([b"0", b"9", b"-1", b"1e9", b'"', b"[", b"{}", b"null"])),
        st.tuples(st.just("length"), st.integers(0, (1 << 64) - 1), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content, mutations):
    for kind, at, what in mutations:
        if kind == "length":
            content = struct.pack("<Q", at) + content[8:]
            continue
        at %= max(len(content), 1)
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ what]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + what :]
        elif kind == "insert":
            content = content[:at] + what + content[at:]
        elif kind == "end":
            content = content[:at]
        elif kind == "header" and len(content) > 8:
            content = with_header(content, lambda h: h[: at % (len(h) + 1)] + what + h[at % (len(h) + 1) :])  # noqa: B023
        elif kind == "digit" and len(content) > 8:
            content = with_header(content, lambda h: _with_digit(h, at, what))  # noqa: B023
    return content


def _with_digit(header, at, what):
    """Another number, or something else than one, in the place of a number of the header."""
    numbers = list(re.finditer(rb"\d+", header))
    if not numbers:
        return header
    chosen = numbers[at % len(numbers)]
    return header[: chosen.start()] + what + header[chosen.end() :]


def test_a_thousand_mutated_files_are_unreadable_or_read_as_they_were(tmp_path):
    original = small()
    content = content_of(original, tmp_path)
    ends = {"unreadable": 0, "read": 0}

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(MUTATIONS)
    def each(mutations):
        ends[ends_well(tmp_path / "mutated.safetensors", mutated(content, mutations), original)] += 1

    each()
    assert sum(ends.values()) >= EXAMPLES
    assert ends["unreadable"] > 0.9 * EXAMPLES


def test_every_truncation_is_unreadable(tmp_path):
    original = small()
    content = content_of(original, tmp_path)
    for length in range(0, len(content), 7):
        assert ends_well(tmp_path / "cut.safetensors", content[:length], original) == "unreadable"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_facts_that_lie_under_a_checksum_that_fits_are_unreadable_or_can_be_shown(tmp_path):
    """Whoever writes a file can write its checksum as well, so facts are not believed because of it."""
    original = small()
    tensors, about = serialize(original)
    names = sorted([*about, *tensors])
    path = tmp_path / "lying.safetensors"
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(names), JSON, st.sampled_from([torch.float64, torch.int32, torch.uint8, torch.bool]), AT)
    def each(name, value, dtype, choice):
        facts, kept = dict(about), dict(tensors)
        if name in about:
            facts[name] = value
        else:
            changes = [
                lambda t: t.to(dtype),
                lambda t: t[:2].clone(),
                lambda t: t[None].clone(),
                lambda t: t[:0].clone(),
                lambda t: t + 200 if not t.is_floating_point() else t * float("nan"),
                lambda t: torch.zeros(()),
            ]
            kept[name] = changes[choice % len(changes)](kept[name])
        path.write_bytes(as_file(kept, facts))
        try:
            found = Baseline.load(path)
        except UnreadableError as error:
            assert "\n" not in str(error)
            return
        report = original.compare(found)
        assert report.status in ("pass", "regressed", "inconclusive", "incompatible")
        assert report.text()
        assert report.html()
        with_it = found.compare(original)
        assert with_it.markdown()
        assert with_it.json()
        # A model may be told classes that it has not, and images of a shape that it does not take: that has its words.
        try:
            found.compare(model)
        except (ValueError, RuntimeError) as error:
            assert type(error).__name__ in ("ValueError", "ForwardError", "NotExplainableError", "IncompatibleError")

    each()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", ["4", "4"]),
        ("size", [0, 0]),
        ("size", [4.0, 4.0]),
        ("places", [["1", float("inf"), ""]]),
        ("keys", [None]),
        ("noise", "much"),
        ("noise", 10**400),
        ("pixels", {"mean": "no", "std": "no"}),
        ("pixels", {"mean": [0.5], "std": [0]}),
        ("more", 1),
    ],
)
def test_one_fact_that_lies(name, value, tmp_path):
    tensors, about = serialize(small(store="hash"))  # so that there are no images to hold the size against
    path = tmp_path / "b.safetensors"
    path.write_bytes(as_file(tensors, about))
    Baseline.load(path)
    path.write_bytes(as_file(tensors, {**about, name: value}))
    with pytest.raises(UnreadableError, match="is not a baseline"):
        Baseline.load(path)


@pytest.mark.parametrize(
    ("name", "tensor", "facts"),
    [
        ("images", torch.rand(3, 3, 4, 4), {"pixels": {"mean": [0.5, 0.5], "std": [1, 1]}}),
        ("images", torch.rand(3, 0, 4, 4), {}),
        ("evidence.0", torch.zeros(3, 0, 2), {}),
        ("flaws.0", torch.full((3,), len(MapStatus), dtype=torch.uint8), {}),
        ("logits", torch.zeros(3), {}),
        ("logits", torch.zeros(3, 2).double(), {}),
    ],
)
def test_one_tensor_that_does_not_fit(name, tensor, facts, tmp_path):
    tensors, about = serialize(small())
    path = tmp_path / "b.safetensors"
    path.write_bytes(as_file({**tensors, name: tensor}, {**about, **facts}))
    with pytest.raises(UnreadableError, match="is not a baseline"):
        Baseline.load(path)


def test_images_that_are_no_numbers_are_other_images(tmp_path):
    original = small()
    tensors, about = serialize(original)
    path = tmp_path / "b.safetensors"
    path.write_bytes(as_file({**tensors, "images": tensors["images"] * float("nan")}, about))
    assert original.compare(Baseline.load(path)).status == "incompatible"


def test_what_counts_as_few_are_images_with_an_answer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    images = torch.rand(80, 1, 4, 4)
    baseline = Baseline.record(model, images)
    [key] = baseline.explanation.evidence
    evidence = baseline.explanation.evidence[key].abs() + torch.rand(80, 2, 2)
    evidence[:30] = 0
    flawed = replace(baseline.explanation, evidence={key: evidence})
    [warning] = replace(baseline, explanation=flawed).compare(replace(baseline, explanation=flawed)).warnings
    assert warning.startswith("Only 50 images have comparable maps")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"{}", "not a safetensors file"),
        (b"\x80\x04" + b"x" * 40, "not a safetensors file"),
        (struct.pack("<Q", 1 << 62) + b"{}" + b" " * 20, "not a safetensors file"),
        (struct.pack("<Q", 20) + b"{" * 20, "header is damaged"),
        (struct.pack("<Q", 4000) + b'{"a":' * 800 + b" " * 10, "header is damaged"),
        (struct.pack("<Q", 11) + b'{"\xff\xfe": 1}  ', "header is damaged"),
        (struct.pack("<Q", 30) + b'{"__metadata__": [1, 2, 3]}   ', "header is damaged"),
        (save_tensors({"a": torch.zeros(1)}), "not a baseline of lightning_gradcam"),
        (save_tensors({"a": torch.zeros(1)}, {"kind": storage.KIND}), "the version ''"),
        (save_tensors({"a": torch.zeros(1)}, {"kind": storage.KIND, "version": "1"}), "damaged"),
        (as_file({"a": torch.zeros(1)}, {}, version="2"), "the version '2'.*Upgrade lightning_gradcam"),
        (as_file({"a": torch.zeros(1)}, {}, version="9" * 5000), "the version '99999"),
        (as_file({"a": torch.zeros(1)}, {}, version="²", checksum=False), "the version '²'"),
        (as_file({"a": torch.zeros(1)}, "[" * 100_000, checksum=False), "damaged"),
        (as_file({"a": torch.zeros(1)}, "nonsense"), "damaged"),
        (as_file({"a": torch.zeros(1)}, []), "not a baseline"),
        (as_file({"a": torch.zeros(1)}, {}, checksum=False), "checksum does not match"),
        (as_file({"a": torch.zeros(1)}, {}), "not a baseline"),
    ],
)
def test_what_is_no_baseline_says_so_in_a_line(content, said, tmp_path):
    path = tmp_path / "b.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=said) as raised:
        Baseline.load(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


class Hostile:
    """A pickle that runs code where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [lambda x, p: p.write_bytes(pickle.dumps(x)), torch.save], ids=["pickle", "torch"])
def test_a_pickle_in_disguise_runs_nothing(write, tmp_path):
    path, mark = tmp_path / "b.safetensors", tmp_path / "ran"
    write(Hostile(mark), path)
    with pytest.raises(UnreadableError, match="not a safetensors file"):
        Baseline.load(path)
    assert not mark.exists()


def test_what_cannot_be_opened_is_unreadable(tmp_path, monkeypatch):
    with pytest.raises(UnreadableError, match="No such file"):
        Baseline.load(tmp_path / "none")
    with pytest.raises(UnreadableError, match="a folder"):
        Baseline.load(tmp_path)
    with pytest.raises(UnreadableError):
        Baseline.load("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableError, match="not a baseline"):
        Baseline.load(tmp_path / "pipe")
    (tmp_path / "b").write_bytes(b"x")
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(UnreadableError, match="Permission denied"):
        Baseline.load(tmp_path / "b")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    small().save(tmp_path / "b")
    (tmp_path / "b").chmod(0)
    with pytest.raises(UnreadableError, match="Permission denied"):
        Baseline.load(tmp_path / "b")


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_draft(fails, tmp_path, monkeypatch):
    path = tmp_path / "b.safetensors"
    small(0).save(path)
    before = path.read_bytes()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        if fails == "write":  # the system itself takes a half, and then no more
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        else:
            patch.setattr(storage.os, fails, lambda *arguments: (_ for _ in ()).throw(full))
        try:
            with pytest.raises(OSError, match="File too large" if fails == "write" else "No space left"):
                small(1).save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]


def _save_often(path, seed, times):
    baseline = small(seed)
    for _ in range(times):
        baseline.save(path)


def test_two_processes_that_write_one_file_leave_a_whole_one(tmp_path):
    path = tmp_path / "b.safetensors"
    started = multiprocessing.get_context("spawn")
    writers = [started.Process(target=_save_often, args=(path, seed, 60)) for seed in (0, 1)]
    for writer in writers:
        writer.start()
    wholes = [serialize(small(seed))[0]["logits"] for seed in (0, 1)]
    reads = 0
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            logits = Baseline.load(path).explanation.logits  # whatever moment this is
            assert any(torch.equal(logits, whole) for whole in wholes)
            reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads > 5
    assert any(torch.equal(Baseline.load(path).explanation.logits, whole) for whole in wholes)
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]


def test_a_file_has_the_rights_that_any_file_would_have_and_keeps_those_that_it_had(tmp_path):
    small().save(tmp_path / "b")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "other").stat().st_mode
    (tmp_path / "b").chmod(0o600)
    small(1).save(tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LARGEST", (1 << 20) + 100)
    with pytest.raises(ValueError, match=r"at most 0 GiB, but got 0\.0 GiB\. Record fewer .* `store='hash'`"):
        small().save(tmp_path / "b")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(storage, "LARGEST", 100)
    (tmp_path / "b").write_bytes(b" " * 101)
    with pytest.raises(UnreadableError, match="not a baseline: 101 bytes"):
        Baseline.load(tmp_path / "b")


def test_a_header_of_many_megabytes_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LARGEST_HEADER", 1 << 10)
    content = content_of(small(), tmp_path)
    (tmp_path / "b").write_bytes(with_header(content, lambda header: header + b" " * 1000))
    with pytest.raises(UnreadableError, match=r"its header has \d{4} bytes"):
        Baseline.load(tmp_path / "b")


EVIL = (
    "<script>alert(1)</script>|[x](javascript:a)\n# head `code` \x1b[31mred\x1b[0m \u202e\"'&lt; "
    "@all #1 https://a.b www.a.b GH-1 \u2028\ud800"
)


def evil(baseline):
    """The same with names that would break out of what they are shown in."""
    explanation = baseline.explanation
    [key] = explanation.evidence
    explanation = replace(
        explanation,
        evidence={EVIL: explanation.evidence[key]},
        map_status={EVIL: explanation.map_status[key]},
        layers={EVIL: Layer(EVIL, -1, EVIL)},
    )
    words = {"target": EVIL, "methods": (EVIL,), "layers": (EVIL,), "recorded": EVIL, "environment": {EVIL: EVIL}}
    return replace(baseline, explanation=explanation, metadata=replace(baseline.metadata, **words))


def test_names_from_files_are_escaped_wherever_they_are_shown(tmp_path):
    from lightning_gradcam.baseline.summary import BaselineSummary

    evil(small(0)).save(tmp_path / "one")
    one = Baseline.load(tmp_path / "one")
    other = replace(evil(small(1)), metadata=replace(evil(small(1)).metadata, environment={EVIL: EVIL + "!"}))
    alone = replace(other, metadata=replace(other.metadata, methods=("gradcam",)))
    for shown in (one.compare(other), one.compare(alone), BaselineSummary.from_baseline(one)):
        page = shown.html()
        inside = page.split("</style>")[1]
        assert "<script" not in inside
        assert "onerror" not in inside
        assert not re.search(r"<(?!/?(table|tr|td|th|h1|h2|p|span|img|body|html|head)\b)", inside)
        assert "<script>" in html.unescape(inside)  # shown, but as words
        for words in (shown.text(), shown.markdown(), page):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\ud800]", words)
            assert words.encode()
        markdown = shown.markdown()
        # What GitHub sees after it has read the entities, and before it looks for mentions, issues and addresses.
        seen = html.unescape(markdown)
        assert "@\u200ball" in seen
        assert not re.search(r"@all|#1|https://|www\.a|GH-1", seen)
        assert "&lt;script" not in seen  # an entity of the name's own stays what it was
        assert "<script" not in markdown
        assert "](" not in markdown
        assert "\n# head" not in markdown
        tables = [line for line in markdown.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} <= {3, 4, 6}
        assert json.loads(shown.json())


def test_a_file_is_what_it_says_to_safetensors_itself(tmp_path):
    """Nothing of ours is needed to read it."""
    baseline = small()
    tensors = load_tensors(content_of(baseline, tmp_path))
    assert torch.equal(tensors["logits"], baseline.explanation.logits)
    assert torch.equal(tensors["images"], baseline.images)
