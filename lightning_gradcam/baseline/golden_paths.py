"""Paths and file names of a test's baselines and reports."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONGEST = 100
"""Characters of a file name without its suffix, at most."""


@dataclass(frozen=True)
class GoldenPaths:
    """Paths of a test's files.

    Args:
        module: The file of the test.
        test: The name of the test, with its classes and parameters.
        root: pytest's root folder.
        baselines: The folder of baselines; None is the default.
        reports: The folder of reports; None is a temporary one.
        make_temporary_folder: Creates a folder that pytest removes later.
    """

    module: Path
    test: str
    root: Path
    baselines: Path | None
    reports: Path | None
    make_temporary_folder: Callable[[], Path]

    def resolve_baseline(self, name: str) -> Path:
        """Return the baseline file of the check ``name``.

        A file of an earlier version, which did not tell letters by their case, keeps its name.
        """
        folder = self.module.with_suffix("") if self.baselines is None else self.baselines / self._relative_module()
        file_name, earlier_name = (f"{stem}.safetensors" for stem in list_file_names(self.test, name))
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()  # in their own case on any disk
        return folder / (earlier_name if earlier_name in names and file_name not in names else file_name)

    def resolve_report_folder(self) -> Path:
        """Return the folder of the test's reports."""
        return (self.reports or self.make_temporary_folder()) / self._relative_module()

    def display(self, path: Path) -> str:
        """Format a path for a terminal, relative to the root folder if it is inside."""
        try:
            return os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
        except ValueError:  # on another drive
            return str(path)

    def _relative_module(self) -> Path:
        """Return the module's name with its folders, since modules in different folders may share a name."""
        module = self.module.with_suffix("")
        return module.relative_to(self.root) if module.is_relative_to(self.root) else Path(module.name)


def make_file_name(test: str, name: str = "") -> str:
    """Return a file name for a check of a test that is valid on any system; no two checks share one.

    Names that differ only in the case of the function, a parameter or the check are one file on the disks of Windows
    and macOS, so these get a hash.

    >>> make_file_name("test_x"), make_file_name("TestIt::test_x[resnet-18]", "early"), make_file_name("test_x[a/b]")
    ('test_x', 'TestIt.test_x-resnet-18@early', 'test_x-a-b-093ddd7c')
    >>> make_file_name("test_x[A]"), make_file_name("test_x[a]")
    ('test_x-A-7bca1bc0', 'test_x-a')
    """
    return list_file_names(test, name)[0]


def list_file_names(test: str, name: str = "") -> tuple[str, str]:
    """Return the file name of `make_file_name`, and the one of earlier versions, without suffixes."""
    plain = re.fullmatch(r"((?:\w+::)*\w+)(?:\[([\w-]+)\])?", test, re.ASCII)
    segments = [plain[1].replace("::", "."), plain[2]] if plain else [test]
    title = "-".join(segment for segment in segments if segment) + (f"@{name}" if name else "")
    safe_title = re.sub(r"[^\w.@-]+", "-", title, flags=re.ASCII).strip("-.")
    has_plain_name = not name or re.fullmatch(r"[\w-]+", name, re.ASCII)
    has_title = bool(plain and has_plain_name and safe_title == title and len(title) <= LONGEST)
    letters = f"{plain[1].rpartition('::')[2]}{plain[2] or ''}{name}" if plain else ""
    digest = hashlib.sha256(f"{test}\n{name}".encode(errors="backslashreplace")).hexdigest()[:8]
    hashed = f"{safe_title[: LONGEST - 9].strip('-.')}-{digest}"
    return title if has_title and letters == letters.lower() else hashed, title if has_title else hashed
