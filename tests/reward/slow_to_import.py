"""A module that takes longer to import than a call may take."""

import time

time.sleep(1.0)
VALUE = 0.5


def constant(item: object) -> float:
    return VALUE
