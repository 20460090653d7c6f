"""Time and memory of explanations, snapshots and runs, compared with peers: ``python -m benchmarks.speed``."""
