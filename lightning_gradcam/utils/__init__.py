"""Generic helpers that do not depend on explanations."""
