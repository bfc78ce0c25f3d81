"""Prompts in, groups of completions out. Knows engines; has never heard of rewards."""
