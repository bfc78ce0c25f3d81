"""The way of the groups: lease, sample, score, wait."""
