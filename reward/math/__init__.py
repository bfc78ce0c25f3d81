"""Mathematics: find an answer, bring it into one form, compare."""
