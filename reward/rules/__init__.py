"""Rewards that are plain functions of a text."""
