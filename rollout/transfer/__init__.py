"""How weights travel, seen from who receives them."""
