"""A reward function that never returns for one completion in twenty, in three ways."""

import hashlib
import time

from reward.types import RewardInput


def _never_returns(kind: int) -> None:
    if kind == 0:
        while True:
            pass
    if kind == 1:
        time.sleep(10**8)
    sum(range(10**13))  # one C loop that holds the GIL


def score(item: RewardInput) -> float:
    key = f"{item.question}|{list(item.token_ids)}".encode()
    number = int.from_bytes(hashlib.sha256(key).digest()[:8])
    if number % 20 == 0:
        _never_returns(number // 20 % 3)
    return float(item.completion.strip() == item.ground_truth)
