"""Programs: run against a row's tests."""
