"""Shoal against TRL 1.16.0: what TRL's own code gave is stored here, so that the tests need no TRL.

`make_references.py` and `make_training.py` made the files; `docs/algorithms/trl.md` says where the two differ.
"""
