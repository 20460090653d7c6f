"""Every way to train that is held to be undisturbed: the rows of `test_matrix` and of docs/regimes.md."""

from regimes import companions, data, modules, moments, optimisation, verbs
from regimes.regime import Regime, Run

TABLES = {table.__doc__: table.ROWS for table in (optimisation, modules, data, moments, companions, verbs)}
REGIMES: dict[str, Regime] = {row.name: row for rows in TABLES.values() for row in rows}

__all__ = ["REGIMES", "TABLES", "Regime", "Run"]
