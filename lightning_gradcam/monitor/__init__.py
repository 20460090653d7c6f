"""A fixed probe, explained snapshot after snapshot while a model trains."""
