"""The learner's part of a checkpoint."""
