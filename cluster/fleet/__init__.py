"""The processes of a run: all that knows Ray."""
