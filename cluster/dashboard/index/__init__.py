"""The index over rollouts and events."""
