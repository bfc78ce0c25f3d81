"""Advantages, loss, batching: the mathematics of a step."""
