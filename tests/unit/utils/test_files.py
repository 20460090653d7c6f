"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from lightning_gradcam.utils.files import write_atomic


@pytest.fixture(autouse=True)
def protect_devices(monkeypatch):
    """Keep a faulty version from replacing a device of this machine."""
    replace = os.replace

    def replace_files_only(draft, target):
        assert not str(target).startswith("/dev"), "a device would be replaced"
        replace(draft, target)

    monkeypatch.setattr(os, "replace", replace_files_only)


def test_existing_file_keeps_permissions_and_gets_new_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a"]


def test_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_device_stays_a_device(tmp_path):
    write_atomic(os.devnull, b"lost")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_pipe_stays_a_pipe_and_takes_the_content(tmp_path):
    path, received = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    write_atomic(path, b"content")
    reader.join(10)
    assert received == [b"content"]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_full_disk_leaves_old_file_and_no_draft(tmp_path, monkeypatch, step):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_bytes(b"old")
    if step == "write":
        monkeypatch.setattr("shutil.copymode", fail)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_full_device_raises():
    with pytest.raises(OSError, match="No space left"):
        write_atomic("/dev/full", b"new")
