"""Processes that run what may hang, crash or leak: forked in milliseconds from a template, and killed at a deadline."""
