"""Baseline files: safetensors with a checksum, written atomically and read without executing code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lightning_gradcam.errors import UnreadableError
from lightning_gradcam.utils.files import write_atomic

KIND = "lightning_gradcam baseline"
LARGEST = 4 << 30
"""Largest file to write and read, in bytes."""
LARGEST_HEADER = 16 << 20
"""Largest header to read, in bytes; a baseline's has a few thousand."""


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], facts: Mapping[str, Any], version: int
) -> None:
    """Write tensors and metadata as safetensors, so that readers see the old file or the new one, never a part.

    Args:
        path: The file; missing folders are created.
        tensors: Tensors by name, on any device.
        facts: Values that JSON can represent.
        version: Version of the contents.

    Raises:
        OSError: The file could not be written; an existing file is unchanged.
        ValueError: The file would be too large to read.
    """
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST - (1 << 20):
        raise ValueError(
            f"Expected a baseline of at most {LARGEST >> 30} GiB, but got {size / (1 << 30):.1f} GiB. Record fewer or "
            "smaller images, or pass `store='hash'`."
        )
    cpu_tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    checksum = _compute_checksum(cpu_tensors, version, text)
    metadata = {"kind": KIND, "version": str(version), "about": text, "sha256": checksum}
    write_atomic(path, save(cpu_tensors, metadata))


def read_tensors(path: str | os.PathLike[str], version: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata written by `write_tensors`.

    Args:
        path: The file.
        version: The latest version that can be read.

    Raises:
        UnreadableError: The file does not exist, is not a baseline, is damaged, or has a later version.
    """
    name = os.fspath(path)
    content = _read_content(path, name)
    metadata = _parse_metadata(content, name)
    if metadata.get("kind") != KIND:
        raise UnreadableError(f"{name!r} is a safetensors file, but not a baseline of lightning_gradcam.")
    file_version = _parse_version(metadata)
    if file_version is None or file_version > version:
        raise UnreadableError(
            f"{name!r} has the version {metadata.get('version', '')[:20]!r}, but this lightning_gradcam reads versions "
            f"up to {version}. Upgrade lightning_gradcam, or record the baseline again."
        )
    try:
        tensors = load(content)
        facts = json.loads(metadata["about"])
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise UnreadableError(f"{name!r} is damaged: {_shorten(error)}.") from error
    if _compute_checksum(tensors, file_version, metadata["about"]) != metadata.get("sha256"):
        raise UnreadableError(f"{name!r} is damaged or was modified: its checksum does not match. Record it again.")
    return tensors, facts


def _read_content(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        size = os.stat(path).st_size
        if not Path(path).is_file() or size > LARGEST:
            kind = (
                "it is a folder"
                if Path(path).is_dir()
                else f"it has {size} bytes"
                if size > LARGEST
                else "it is not a regular file"
            )
            raise UnreadableError(f"{name!r} is not a baseline: {kind}.")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _parse_metadata(content: bytes, name: str) -> dict[str, str]:
    """Return the metadata in a safetensors header, which follows eight bytes with its length."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or length > len(content) - 8 or content[8:9] != b"{":
        raise UnreadableError(f"{name!r} is not a safetensors file{': it is empty' if not content else ''}.")
    if length > LARGEST_HEADER:
        raise UnreadableError(f"{name!r} is not a baseline: its header has {length} bytes.")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
        return {str(key): value for key, value in metadata.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"{name!r} is not a safetensors file: its header is damaged.") from error


def _parse_version(metadata: Mapping[str, str]) -> int | None:
    """Return the version of a file; None unless it has a few digits, since Python refuses to parse thousands."""
    text = metadata.get("version", "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _compute_checksum(tensors: Mapping[str, Tensor], version: int, text: str) -> str:
    digest = hashlib.sha256(f"{version} {text}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _shorten(error: Exception) -> str:
    """Return the start of the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
