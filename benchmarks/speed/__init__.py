"""Time and memory of explanations, looks and runs, beside the peers: ``python -m benchmarks.speed``."""
