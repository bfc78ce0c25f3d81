"""Numbers out of what was read: pure functions."""
