"""What runs in the sandbox, beside the program."""
