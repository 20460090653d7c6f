"""Files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that others, other processes that write it as well, see a whole one, the old or the new.

    Raises:
        OSError: It could not be written; what was there is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{secrets.token_hex(8)}.draft"
    try:
        with open(draft, "xb") as file:
            if target.exists():
                shutil.copymode(target, draft)  # patients' images may be for few eyes
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
