"""A game that comes along: guessing a number."""

import random
import re

from rollout.episodes.environment import Done, Environment, Messages, Reply, Task, user

HIGHER, LOWER, NO_NUMBER = "higher", "lower", "a number please"


def turns_by_halves(num_numbers: int) -> int:
    """Turns in which a search by halves finds every one of so many numbers."""
    return num_numbers.bit_length()


class GuessNumber(Environment):
    """Guess a number of a range that is told; the answer says higher or lower.

    The range follows from the task's seed, and so does the number. Scores: `won` within the turns that a search by
    halves needs, and the number of `turns`.
    """

    def start(self, task: Task) -> Messages:
        """Tells the range."""
        low, high = self.range_of(task.seed)
        self.number = random.Random(f"number {task.seed}").randint(low, high)
        self.most = turns_by_halves(high - low + 1)
        return [user(self.opening_of(low, high))]

    def respond(self, reply: Reply) -> Messages | Done:
        """Says where the number is; ends with the last turn."""
        found = re.search(r"\d{1,9}", reply.text)
        if found is not None and int(found[0]) == self.number:
            return Done(scores={"won": 1.0, "turns": float(reply.turn)})
        if reply.turn >= self.most:
            return Done(scores={"won": 0.0, "turns": float(reply.turn)})
        if found is None:
            return [user(NO_NUMBER)]
        return [user(HIGHER if int(found[0]) < self.number else LOWER)]

    @staticmethod
    def range_of(seed: int) -> tuple[int, int]:
        """Lowest and highest number of the world of a seed: seeds from 0 to 359 have ranges of their own."""
        low, width = seed % 40, 7 + seed // 40 % 9
        return low, low + width - 1

    @staticmethod
    def opening_of(low: int, high: int) -> str:
        """What the game begins with."""
        return f"Guess a number, {low} to {high}."
