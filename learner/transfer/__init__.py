"""How weights travel, seen from who sends them."""
