"""Numerics."""

from __future__ import annotations

CONSTANT = 1e-3
"""A map whose range is under this part of its maximum is constant: stretching it would show rounding errors."""
