"""A process for a program that nobody trusts."""
