"""Environments, tried without training."""
