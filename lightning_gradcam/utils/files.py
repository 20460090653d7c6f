"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically: other processes, also ones that write it, see its old or its new content, never a part.

    A link stays, and the file that it leads to is written. A device or a pipe stays, too, and takes the content.

    Args:
        path: The file, whose folder is created if missing.
        content: The new content.

    Raises:
        OSError: The file could not be written; its old content is unchanged.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with open(target, "wb") as file:
            file.write(content)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{secrets.token_hex(8)}.draft"
    try:
        with open(draft, "xb") as file:
            if target.exists():
                shutil.copymode(target, draft)  # keeps the permissions, which may protect confidential images
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
