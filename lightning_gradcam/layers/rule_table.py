"""Rules for operations, by the name of their node in the graph of autograd."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

Rule = TypeVar("Rule")


class RuleTable(Generic[Rule]):
    """Rules by patterns of names, without the ending that all nodes have.

    Args:
        rules: The rule of each pattern; the first pattern that matches a whole name counts.

    >>> RuleTable({"(Max|Avg)Pool": 1, "Slice": 2}).find("SliceBackward0")
    2
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = {re.compile(rf"{pattern}Backward\d*"): rule for pattern, rule in rules.items()}
        self._rules_by_name: dict[str, Rule | None] = {}

    def find(self, name: str) -> Rule | None:
        """Return the rule for a node's name; None if there is none."""
        if name not in self._rules_by_name:
            rules = (rule for pattern, rule in self._rules.items() if pattern.fullmatch(name))
            self._rules_by_name[name] = next(rules, None)
        return self._rules_by_name[name]
