"""Rules that name what goes wrong."""
