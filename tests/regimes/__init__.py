"""All regimes in which training must stay undisturbed: rows of `test_training_unchanged` and of docs/regimes.md."""

from tests.regimes import companions, data, dense, first_pass, modules, moments, optimization, scores, verbs
from tests.regimes.regime import Regime, Run

TABLES: dict[str, list[Regime]] = {
    "Gradients and steps": optimization.ROWS,
    "Modules": modules.ROWS,
    "First forward pass": first_pass.ROWS,
    "Data": data.ROWS,
    "Validations and ends": moments.ROWS,
    "What is explained": scores.ROWS,
    "Dense outputs": dense.ROWS,
    "Other callbacks": companions.ROWS,
    "Other entry points": verbs.ROWS,
}
REGIMES: dict[str, Regime] = {row.name: row for rows in TABLES.values() for row in rows}

__all__ = ["REGIMES", "TABLES", "Regime", "Run"]
