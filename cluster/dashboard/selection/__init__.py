"""A filtered part of a run's rollouts, as something that leaves the dashboard."""
