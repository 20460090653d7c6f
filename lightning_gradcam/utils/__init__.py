"""Five generic helpers that know nothing of explanations."""
