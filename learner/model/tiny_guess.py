"""The toy policy as it plays: it was shown games of guessing a number, by a player that knows the rules and no plan.

It answers with a number, mostly one that may still be right, drawn at random, and with the middle one as one of its
whims. GRPO then finds out which of them wins.
"""

import random
from collections.abc import Callable
from typing import Any

from learner.model.tiny import padded
from rollout.episodes.games import HIGHER, LOWER, GuessNumber, turns_by_halves

GUESS_VERSION = "2"
"""Raised whenever this file changes what it makes."""
STEPS = 700
GAMES_PER_STEP = 32
PEAK_LR = 2e-3
WILD_SHARE = 0.1
"""Guesses anywhere in the range, whatever was answered before."""
MIDDLE_SHARE = 0.25
"""Guesses of the middle of what may still be right."""


def warm_start(model: Any, tokenizer: Any, progress: Callable[[float], None]) -> None:
    """Next-token learning of games drawn at random, on the tokens of the guesses alone."""
    import torch

    draw = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * min((step + 1) / 20, 1.0 - 0.9 * step / STEPS)
        rows, targets = zip(*(game(draw, tokenizer) for _ in range(GAMES_PER_STEP)), strict=True)
        ids, labels = padded(list(rows), list(targets), tokenizer)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress((step + 1) / STEPS)


def game(draw: random.Random, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of a game as an episode has them, and labels: -100 for what the world says."""
    low, high = GuessNumber.range_of(draw.randrange(10**6))
    number, first, last = draw.randint(low, high), low, high
    row: list[int] = tokenizer(GuessNumber.opening_of(low, high)).input_ids
    labels = [-100] * len(row)
    for _ in range(turns_by_halves(high - low + 1) + 2):
        guess = _guess(draw, (low, high), (first, last))
        reply = [*tokenizer(str(guess)).input_ids, tokenizer.eos_token_id]
        row, labels = row + reply, labels + reply
        if guess == number:
            break
        first, last = (max(first, guess + 1), last) if guess < number else (first, min(last, guess - 1))
        heard: list[int] = tokenizer("\n\n" + (HIGHER if guess < number else LOWER)).input_ids
        row, labels = row + heard, labels + [-100] * len(heard)
    return row, labels


def _guess(draw: random.Random, anywhere: tuple[int, int], possible: tuple[int, int]) -> int:
    whim = draw.random()
    if whim < WILD_SHARE:
        return draw.randint(*anywhere)
    if whim < WILD_SHARE + MIDDLE_SHARE:
        return sum(possible) // 2
    return draw.randint(*possible)
