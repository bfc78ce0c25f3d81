"""The way of the weights: step, sync, save."""
