"""Reports read back from JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lightning_gradcam.baseline.report import Finding, Report, Status, WorstImage
from lightning_gradcam.errors import UnreadableError

LARGEST = 16 << 20
"""Largest file to read, in bytes."""


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a report written by `Report.json`, without figures.

    Raises:
        UnreadableError: The file is not a report; the message is one line.
    """
    name = os.fspath(path)
    try:
        if Path(path).stat().st_size > LARGEST:
            raise UnreadableError(f"{name!r} is too large for a report: expected at most {LARGEST >> 20} MiB.")
        facts = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UnreadableError(f"{name!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{name!r} is not valid JSON.") from error
    try:
        return _parse_report(facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnreadableError(f"{name!r} is not a report written by `compare --report`.") from error


def _parse_report(facts: Mapping[str, Any]) -> Report:
    status: Status = "incompatible" if facts["status"] == "incompatible" else _parse_finding_status(facts["status"])
    return Report(
        status=status,
        reason=_parse_text(facts["reason"]),
        profile=_parse_text(facts["profile"]),
        metric=_parse_text(facts["metric"]),
        images=int(facts["images"]),
        findings=[_parse_finding(finding) for finding in facts["findings"]],
        noise=_parse_number(facts["noise"]),
        changed_predictions=_parse_number(facts["changed_predictions"]),
        differences={
            name: (_parse_text(before), _parse_text(after)) for name, (before, after) in facts["differences"].items()
        },
        warnings=[_parse_text(warning) for warning in facts["warnings"]],
    )


def _parse_finding(facts: Mapping[str, Any]) -> Finding:
    degenerate, candidate_degenerate = map(_parse_number, facts["degenerate"])
    return Finding(
        key=_parse_text(facts["key"]),
        status=_parse_finding_status(facts["status"]),
        reason=_parse_text(facts["reason"]),
        count=int(facts["count"]),
        quantiles={name: _parse_number(value) for name, value in facts["quantiles"].items()},
        others={name: _parse_number(value) for name, value in facts["others"].items()},
        degenerate=(degenerate, candidate_degenerate),
        worst=[_parse_worst_image(worst) for worst in facts["worst"]],
        **{name: _parse_number(facts[name]) for name in ("mean", "low", "high", "threshold", "chance")},
    )


def _parse_worst_image(facts: Mapping[str, Any]) -> WorstImage:
    label = facts["label"]
    return WorstImage(
        index=int(facts["index"]),
        similarity=_parse_number(facts["similarity"]),
        label=None if label is None else int(label),
        before=_parse_prediction(facts["before"]),
        after=_parse_prediction(facts["after"]),
    )


def _parse_prediction(pair: Any) -> tuple[int, float] | None:
    if pair is None:
        return None
    predicted, probability = pair
    return int(predicted), _parse_number(probability)


def _parse_finding_status(value: Any) -> Status:
    """Return the status of a finding, which, unlike that of a report, is never "incompatible"."""
    statuses: tuple[Status, ...] = get_args(Status)
    for status in statuses:
        if status == value != "incompatible":
            return status
    raise ValueError(value)


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _parse_number(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(type(value).__name__)
    return float(value)
