"""Baseline files that are damaged, hostile, from a later version or half written."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import pickle
import re
import resource
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load as load_tensors, save as save_tensors

from lightning_gradcam import Baseline
from lightning_gradcam.baseline import storage
from lightning_gradcam.baseline.data import serialize
from lightning_gradcam.errors import UnreadableError
from tests.helpers.baselines import encode_file, record_small, save_and_read

EXAMPLES = 1000


def replace_header(content, change):
    """Return the file with its header changed and the length of the header adjusted."""
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def check_load(path, content, original):
    """Check that a file is read as the original, or is unreadable with a one-line message."""
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


def mutate(content, mutations):
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
            content = replace_header(content, lambda h: h[: at % (len(h) + 1)] + what + h[at % (len(h) + 1) :])  # noqa: B023
        elif kind == "digit" and len(content) > 8:
            content = replace_header(content, lambda h: _replace_number(h, at, what))  # noqa: B023
    return content


def _replace_number(header, at, what):
    """Replace a number of the header."""
    numbers = list(re.finditer(rb"\d+", header))
    if not numbers:
        return header
    chosen = numbers[at % len(numbers)]
    return header[: chosen.start()] + what + header[chosen.end() :]


def test_mutated_files_are_unreadable_or_unchanged(tmp_path):
    original = record_small()
    content = save_and_read(original, tmp_path)
    ends = {"unreadable": 0, "read": 0}

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(MUTATIONS)
    def each(mutations):
        ends[check_load(tmp_path / "mutate.safetensors", mutate(content, mutations), original)] += 1

    each()
    assert sum(ends.values()) >= EXAMPLES
    assert ends["unreadable"] > 0.9 * EXAMPLES


def test_truncated_files_are_unreadable(tmp_path):
    original = record_small()
    content = save_and_read(original, tmp_path)
    for length in range(0, len(content), 7):
        assert check_load(tmp_path / "cut.safetensors", content[:length], original) == "unreadable"


@pytest.mark.parametrize(
    ("content", "message"),
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
        (encode_file({"a": torch.zeros(1)}, {}, version="3"), "the version '3'.*Upgrade lightning_gradcam"),
        (encode_file({"a": torch.zeros(1)}, {}, version="9" * 5000), "the version '99999"),
        (encode_file({"a": torch.zeros(1)}, {}, version="²", checksum=False), "the version '²'"),
        (encode_file({"a": torch.zeros(1)}, "[" * 100_000, checksum=False), "damaged"),
        (encode_file({"a": torch.zeros(1)}, "nonsense"), "damaged"),
        (encode_file({"a": torch.zeros(1)}, []), "not a baseline"),
        (encode_file({"a": torch.zeros(1)}, {}, checksum=False), "checksum does not match"),
        (encode_file({"a": torch.zeros(1)}, {}), "not a baseline"),
    ],
    ids=itertools.count(),  # the bytes depend on the process, as safetensors orders its metadata at random
)
def test_other_files_are_unreadable_with_a_one_line_message(content, message, tmp_path):
    path = tmp_path / "b.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=message) as raised:
        Baseline.load(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


class HostilePickle:
    """A pickle that executes code when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [lambda x, p: p.write_bytes(pickle.dumps(x)), torch.save], ids=["pickle", "torch"])
def test_disguised_pickle_executes_nothing(write, tmp_path):
    path, mark = tmp_path / "b.safetensors", tmp_path / "ran"
    write(HostilePickle(mark), path)
    with pytest.raises(UnreadableError, match="not a safetensors file"):
        Baseline.load(path)
    assert not mark.exists()


def test_files_that_cannot_be_opened_are_unreadable(tmp_path, monkeypatch):
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
def test_files_without_permission_are_unreadable(tmp_path):
    record_small().save(tmp_path / "b")
    (tmp_path / "b").chmod(0)
    with pytest.raises(UnreadableError, match="Permission denied"):
        Baseline.load(tmp_path / "b")


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_no_draft(fails, tmp_path, monkeypatch):
    path = tmp_path / "b.safetensors"
    record_small(0).save(path)
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
                record_small(1).save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]


def _save_often(path, seed, times):
    baseline = record_small(seed)
    for _ in range(times):
        baseline.save(path)


@pytest.mark.slow
def test_two_processes_writing_one_file_leave_a_complete_one(tmp_path):
    path = tmp_path / "b.safetensors"
    started = multiprocessing.get_context("spawn")
    writers = [started.Process(target=_save_often, args=(path, seed, 60)) for seed in (0, 1)]
    for writer in writers:
        writer.start()
    wholes = [serialize(record_small(seed))[0]["logits"] for seed in (0, 1)]
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


def test_file_permissions_are_default_or_kept(tmp_path):
    record_small().save(tmp_path / "b")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "other").stat().st_mode
    (tmp_path / "b").chmod(0o600)
    record_small(1).save(tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_too_large_files_are_neither_written_nor_read(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LARGEST", (1 << 20) + 100)
    with pytest.raises(ValueError, match=r"at most 0 GiB, but got 0\.0 GiB\. Record fewer .* `store='hash'`"):
        record_small().save(tmp_path / "b")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(storage, "LARGEST", 100)
    (tmp_path / "b").write_bytes(b" " * 101)
    with pytest.raises(UnreadableError, match="not a baseline: it has 101 bytes"):
        Baseline.load(tmp_path / "b")


def test_large_header_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LARGEST_HEADER", 1 << 10)
    content = save_and_read(record_small(), tmp_path)
    (tmp_path / "b").write_bytes(replace_header(content, lambda header: header + b" " * 1000))
    with pytest.raises(UnreadableError, match=r"its header has \d{4} bytes"):
        Baseline.load(tmp_path / "b")


def test_file_is_readable_with_safetensors_alone(tmp_path):
    """No code of this package is needed to read a file."""
    baseline = record_small()
    tensors = load_tensors(save_and_read(baseline, tmp_path))
    assert torch.equal(tensors["logits"], baseline.explanation.logits)
    assert torch.equal(tensors["images"], baseline.images)
