"""Sampled groups in, scored groups out. Has never heard of gradients."""
