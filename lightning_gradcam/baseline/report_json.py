"""Comparisons read back from their JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lightning_gradcam.baseline.report import Finding, Report, Status, WorstImage
from lightning_gradcam.errors import UnreadableError

LARGEST = 16 << 20


def read_report(path: str | os.PathLike[str]) -> Report:
    """The comparison that `Report.json` was written of, without pictures.

    Raises:
        UnreadableError: It is none; one line says why.
    """
    name = os.fspath(path)
    try:
        if Path(path).stat().st_size > LARGEST:
            raise UnreadableError(f"{name!r} is too large for a comparison.")
        facts = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UnreadableError(f"{name!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{name!r} is no JSON.") from error
    try:
        return _report(facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnreadableError(f"{name!r} is no comparison that `compare --report` has written.") from error


def _report(facts: Mapping[str, Any]) -> Report:
    return Report(
        status=_status(facts["status"], "incompatible"),
        reason=_word(facts["reason"]),
        profile=_word(facts["profile"]),
        metric=_word(facts["metric"]),
        images=int(facts["images"]),
        findings=[_finding(finding) for finding in facts["findings"]],
        noise=_number(facts["noise"]),
        changed_predictions=_number(facts["changed_predictions"]),
        differences={name: (_word(a), _word(b)) for name, (a, b) in facts["differences"].items()},
        warnings=[_word(warning) for warning in facts["warnings"]],
    )


def _finding(facts: Mapping[str, Any]) -> Finding:
    before, after = map(_number, facts["degenerate"])
    return Finding(
        key=_word(facts["key"]),
        status=_status(facts["status"]),
        reason=_word(facts["reason"]),
        count=int(facts["count"]),
        quantiles={name: _number(value) for name, value in facts["quantiles"].items()},
        others={name: _number(value) for name, value in facts["others"].items()},
        degenerate=(before, after),
        worst=[_worst(worst) for worst in facts["worst"]],
        **{name: _number(facts[name]) for name in ("mean", "low", "high", "threshold", "chance")},
    )


def _worst(facts: Mapping[str, Any]) -> WorstImage:
    def predicted(pair: Any) -> tuple[int, float] | None:
        if pair is None:
            return None
        chosen, sure = pair
        return int(chosen), _number(sure)

    label = facts["label"]
    return WorstImage(
        index=int(facts["index"]),
        similarity=_number(facts["similarity"]),
        label=None if label is None else int(label),
        before=predicted(facts["before"]),
        after=predicted(facts["after"]),
    )


def _status(word: Any, *besides: str) -> Status:
    found: Status | None = next((s for s in get_args(Status) if s == word), None)
    if found is None or (found == "incompatible" and found not in besides):
        raise ValueError(word)
    return found


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(type(value).__name__)
    return float(value)
