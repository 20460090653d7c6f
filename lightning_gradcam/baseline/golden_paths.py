"""Where a test's baselines and reports are, and what their files are called."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONGEST = 100
"""Characters of a file's name, without its ending."""


@dataclass(frozen=True)
class GoldenPaths:
    """Where the files of a test are.

    Args:
        module: The test's file.
        test: Its name, with those of its classes and parameters.
        root: The folder that files are told from.
        baselines: The folder of baselines, where one was chosen.
        reports: The folder of reports, where one was chosen.
        temporary: Makes a folder that pytest will remove some day.
    """

    module: Path
    test: str
    root: Path
    baselines: Path | None
    reports: Path | None
    temporary: Callable[[], Path]

    def baseline(self, name: str) -> Path:
        """The file of a check."""
        folder = self.module.with_suffix("") if self.baselines is None else self.baselines / self._inside()
        return folder / f"{make_file_name(self.test, name)}.safetensors"

    def report(self) -> Path:
        """The folder of the test's reports."""
        return (self.reports or self.temporary()) / self._inside()

    def display(self, path: Path) -> str:
        """A path as a terminal should show it."""
        try:
            return os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
        except ValueError:  # on another drive
            return str(path)

    def _inside(self) -> Path:
        """The module's name with its folders, since modules in different folders may have the same one."""
        module = self.module.with_suffix("")
        return module.relative_to(self.root) if module.is_relative_to(self.root) else Path(module.name)


def make_file_name(test: str, name: str = "") -> str:
    """A file's name, on any system, for a test and the name of a check; different ones for different ones.

    >>> make_file_name("test_x"), make_file_name("TestIt::test_x[resnet-18]", "early"), make_file_name("test_x[a/b]")
    ('test_x', 'TestIt.test_x-resnet-18@early', 'test_x-a-b-093ddd7c')
    """
    plain = re.fullmatch(r"((?:\w+::)*\w+)(?:\[([\w-]+)\])?", test, re.ASCII)
    parts = [plain[1].replace("::", "."), plain[2]] if plain else [test]
    whole = "-".join(part for part in parts if part) + (f"@{name}" if name else "")
    cut = re.sub(r"[^\w.@-]+", "-", whole, flags=re.ASCII).strip("-.")
    if plain and cut == whole and len(cut) <= LONGEST and (not name or re.fullmatch(r"[\w-]+", name, re.ASCII)):
        return cut
    digest = hashlib.sha256(f"{test}\n{name}".encode(errors="backslashreplace")).hexdigest()[:8]
    return f"{cut[: LONGEST - 9].strip('-.')}-{digest}"
