"""Imports of the package: what they load, and which names it offers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lightning_gradcam


def test_every_public_name_resolves():
    assert len(lightning_gradcam.__all__) == len(set(lightning_gradcam.__all__)) >= 40
    for name in lightning_gradcam.__all__:
        assert getattr(lightning_gradcam, name).__name__ == {"Pixels": "Normalization"}.get(name, name)
    assert dir(lightning_gradcam) == sorted(lightning_gradcam.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'explane'"):
        _ = lightning_gradcam.explane


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(lightning_gradcam.__file__).read_text("utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: str(node.module).removeprefix("lightning_gradcam.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == lightning_gradcam._MODULE_OF
