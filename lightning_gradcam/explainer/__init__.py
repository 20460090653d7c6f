"""One call, one result: layers, capture, methods and targets put together."""
