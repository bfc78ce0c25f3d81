"""Policy and reference."""
