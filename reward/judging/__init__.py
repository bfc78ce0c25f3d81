"""Rewards that a server gives: a judge behind an OpenAI-compatible address, or scores from an address of the user's."""
