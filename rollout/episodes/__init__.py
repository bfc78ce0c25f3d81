"""Episodes: worlds that answer, and the tokens that grow with each turn."""
