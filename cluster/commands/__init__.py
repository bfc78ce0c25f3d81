"""What the commands of `shoal` do."""
