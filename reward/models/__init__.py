"""Rewards that a model gives."""
