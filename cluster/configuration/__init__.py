"""From recipes and overrides to one checked configuration, and what it asks for."""
