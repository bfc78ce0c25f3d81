"""When a request may be sent: requests and tokens of a minute, pauses that a server asks for, and what is tried again.

Pure state machines: the time is given, and so is chance.
"""

import random
from collections import deque
from dataclasses import dataclass

MINUTE_S = 60.0
TRAVEL_S = 1.0
"""A request counts for a minute and this: the server counts from when it arrives, which is later by an amount that
varies."""
FIRST_WAIT_S = 0.5
"""Before the second attempt; each wait after it is twice as long, up to `LONGEST_WAIT_S`, less up to half by chance."""
LONGEST_WAIT_S = 30.0


@dataclass(slots=True, kw_only=True, eq=False)
class Spent:
    """A request that was sent, as the budget remembers it."""

    at_s: float
    tokens: int
    """Estimated; what it really took, once that is known."""


class Budget:
    """Requests and tokens within a sliding minute. A request that was sent counts, whatever became of it."""

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        window_s: float | None = None,
    ) -> None:
        """None is no limit; of `window_s`, a minute and the time of travel."""
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._window_s = MINUTE_S + TRAVEL_S if window_s is None else window_s
        self._spent: deque[Spent] = deque()
        self._held_until_s = float("-inf")

    def why_never(self, tokens: int) -> str | None:
        """Why a request of so many tokens can never be sent; None where it can."""
        if self._tokens is None or tokens <= self._tokens:
            return None
        return f"it takes about {tokens} tokens, and tokens_per_minute is {self._tokens}"

    def wait_s(self, now_s: float, tokens: int) -> float:
        """Seconds until a request of so many tokens may be sent as far as is known now; 0 where it may."""
        while self._spent and self._spent[0].at_s + self._window_s <= now_s:
            self._spent.popleft()
        free_s = self._held_until_s
        if self._requests is not None and len(self._spent) >= self._requests:
            free_s = max(free_s, self._spent[len(self._spent) - self._requests].at_s + self._window_s)
        if self._tokens is not None:
            over = sum(one.tokens for one in self._spent) + tokens - self._tokens
            for one in self._spent:
                if over <= 0:
                    break
                over -= one.tokens
                free_s = max(free_s, one.at_s + self._window_s)
        return max(0.0, free_s - now_s)

    def spend(self, now_s: float, tokens: int) -> Spent:
        """Notes a request as sent. `settle` what it really took."""
        spent = Spent(at_s=now_s, tokens=tokens)
        self._spent.append(spent)
        return spent

    @staticmethod
    def settle(spent: Spent, tokens: int) -> None:
        """What a request really took, as the server says."""
        spent.tokens = tokens

    def hold(self, until_s: float) -> None:
        """Nothing is sent before then: the server has asked for that."""
        self._held_until_s = max(self._held_until_s, until_s)


class Backoff:
    """How long one request waits before each further attempt."""

    def __init__(self, chance: random.Random, max_attempts: int | None = None, first_s: float | None = None) -> None:
        """`max_attempts` None: as many as there is time for. `first_s` None is `FIRST_WAIT_S`."""
        self._chance = chance
        self._max_attempts = max_attempts
        self._first_s = FIRST_WAIT_S if first_s is None else first_s
        self.num_attempts = 0
        """That were made."""

    def after_attempt(self, retry_after_s: float | None) -> float | None:
        """Seconds to wait after an attempt that failed, no less than the server asks for; None where it was the
        last."""
        self.num_attempts += 1
        if self._max_attempts is not None and self.num_attempts >= self._max_attempts:
            return None
        # 2 ** 1000 is no float, and a request may be tried for hours.
        longest_s = min(LONGEST_WAIT_S, self._first_s * 2.0 ** min(self.num_attempts - 1, 30))
        wait_s = longest_s * self._chance.uniform(0.5, 1.0)
        if retry_after_s is None:
            return wait_s
        # All who were refused together are told the same time: they come back one after the other.
        return retry_after_s + min(wait_s, self._first_s)


def seconds_of(retry_after: str | None) -> float | None:
    """Of the header `Retry-After`; a date is not read, as servers of models send seconds."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
