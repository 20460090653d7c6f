"""Files of tensors that can be trusted: written whole or not at all, and read without running any code of theirs."""

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
"""Bytes that are written and read at most."""
LARGEST_HEADER = 16 << 20
"""Bytes of names and facts that are read at most; a baseline has some thousands."""


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, Any], version: int
) -> None:
    """Write tensors and plain facts as safetensors, so that others see the old file or the new one, never a part.

    Args:
        path: Where; folders are made.
        tensors: By name; on any device.
        about: What JSON can say.
        version: Of what is in the file.

    Raises:
        OSError: It could not be written; what was there is as it was.
        ValueError: It is too large to be read again.
    """
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST - (1 << 20):
        raise ValueError(
            f"Expected a baseline of at most {LARGEST >> 30} GiB, but this one takes {size / (1 << 30):.1f}: record "
            "fewer or smaller images, or `store='hash'`."
        )
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about, sort_keys=True)
    metadata = {"kind": KIND, "version": str(version), "about": text, "sha256": _digest(plain, version, text)}
    write_atomic(path, save(plain, metadata))


def read_tensors(path: str | os.PathLike[str], version: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` has written.

    Args:
        path: Of the file.
        version: The latest that can be read.

    Raises:
        UnreadableError: There is no such file, or it is something else, damaged, or of a later version.
    """
    name = os.fspath(path)
    try:
        size = os.stat(path).st_size
        if not Path(path).is_file() or size > LARGEST:
            kind = "a folder" if Path(path).is_dir() else f"{size} bytes" if size > LARGEST else "not a plain file"
            raise UnreadableError(f"{name!r} is no baseline: {kind}.")
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    metadata = _metadata(content, name)
    if metadata.get("kind") != KIND:
        raise UnreadableError(f"{name!r} is a safetensors file, but no baseline of lightning_gradcam.")
    written = _version(metadata)
    if written is None or written > version:
        raise UnreadableError(
            f"{name!r} is of version {metadata.get('version', '')[:20]!r}, and this lightning_gradcam reads versions "
            f"up to {version}: upgrade it, or record the baseline anew."
        )
    try:
        tensors = load(content)
        about = json.loads(metadata["about"])
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise UnreadableError(f"{name!r} is damaged: {_one_line(error)}.") from error
    if _digest(tensors, written, metadata["about"]) != metadata.get("sha256"):
        raise UnreadableError(f"{name!r} is damaged or was changed: its checksum does not fit. Record it anew.")
    return tensors, about


def _metadata(content: bytes, name: str) -> dict[str, str]:
    """The header's plain facts; safetensors begins with the header's length in eight bytes."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or length > len(content) - 8 or content[8:9] != b"{":
        raise UnreadableError(f"{name!r} is no safetensors file{', it is empty' if not content else ''}.")
    if length > LARGEST_HEADER:
        raise UnreadableError(f"{name!r} is no baseline: its header is of {length} bytes.")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
        return {str(key): value for key, value in metadata.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"{name!r} is no safetensors file: its header is damaged.") from error


def _version(metadata: Mapping[str, str]) -> int | None:
    """The version that a file says it is of; of a few digits, since Python refuses to read thousands."""
    said = metadata.get("version", "")
    return int(said) if said.isdecimal() and len(said) < 10 else None


def _digest(tensors: Mapping[str, Tensor], version: int, about: str) -> str:
    seen = hashlib.sha256(f"{version} {about}".encode())
    for name, tensor in sorted(tensors.items()):
        seen.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        seen.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
