"""Explainer: one call, one result, from layers, capture, methods and targets."""
