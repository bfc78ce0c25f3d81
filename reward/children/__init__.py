"""Processes that score, and can be killed."""
