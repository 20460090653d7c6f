"""Explanation to one uint8 picture, on the probe's device."""

from __future__ import annotations
