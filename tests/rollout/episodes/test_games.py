"""The game that comes along: fair, and won by halves."""

import math
import random

import pytest

from rollout.episodes.environment import Done, Reply, Task
from rollout.episodes.games import HIGHER, LOWER, NO_NUMBER, GuessNumber, told_by, turns_by_halves
from rollout.types import FinishReason


def said(text: str, turn: int) -> Reply:
    return Reply(text=text, turn=turn, finish_reason=FinishReason.STOP)


@pytest.mark.parametrize(("numbers", "turns"), [(1, 1), (3, 2), (7, 3), (8, 4), (15, 4), (16, 5)])
def test_turns_of_a_search_by_halves(numbers: int, turns: int) -> None:
    assert turns_by_halves(numbers) == turns


def test_every_world_has_a_range_of_its_own() -> None:
    ranges = {GuessNumber.range_of(seed) for seed in range(360)}
    assert len(ranges) == 360
    assert {high - low + 1 for low, high in ranges} == set(range(7, 16))


@pytest.mark.parametrize("seed", range(0, 360, 7))
def test_a_search_by_halves_wins_each(seed: int) -> None:
    game = GuessNumber()
    (opening,) = game.start(Task(question="", seed=seed, sample_seed=0))
    low, high = GuessNumber.range_of(seed)
    assert opening.content == f"Guess a number, {low} to {high}."
    for turn in range(1, 10):
        guess = (low + high) // 2
        answer = game.respond(said(str(guess), turn))
        if isinstance(answer, Done):
            assert (answer.scores["won"], answer.scores["turns"]) == (1.0, float(turn))
            assert answer.scores["learned"] == pytest.approx(1.0)
            return
        assert answer[0].content in (HIGHER, LOWER)
        low, high = (guess + 1, high) if answer[0].content == HIGHER else (low, guess - 1)
    pytest.fail("not won")


def test_the_last_turn_ends_a_game_that_is_not_won() -> None:
    game = GuessNumber()
    game.start(Task(question="", seed=0, sample_seed=0))
    assert game.most == 3
    assert [message.content for message in game.respond(said("what?", 1))] == [NO_NUMBER]  # type: ignore[union-attr]
    assert isinstance(game.respond(said("-", 2)), list)
    assert game.respond(said("1000", 3)) == Done(scores={"won": 0.0, "turns": 3.0, "learned": 0.0})


def test_the_number_follows_from_the_seed_of_the_group() -> None:
    numbers = []
    for sample_seed in (1, 2):
        game = GuessNumber()
        game.start(Task(question="", seed=11, sample_seed=sample_seed))
        numbers.append(game.number)
    assert numbers[0] == numbers[1]
    drawn = set()
    for seed in range(360):
        game = GuessNumber()
        game.start(Task(question="", seed=seed, sample_seed=0))
        drawn.add(game.number - GuessNumber.range_of(seed)[0])
    assert len(drawn) >= 12


def test_games_that_are_shown_keep_the_rules() -> None:
    from learner.model.tiny import _make_tokenizer
    from learner.model.tiny_guess import game

    tokenizer = _make_tokenizer()
    row, labels = game(random.Random(3), tokenizer)
    assert len(row) == len(labels)
    text = tokenizer.decode(row)
    assert text.startswith("Guess a number, ")
    assert text.endswith("<eos>") or text.endswith(("higher", "lower"))
    learnt = tokenizer.decode([token for token in labels if token >= 0])
    assert set(learnt.replace("<eos>", "")) <= set("0123456789")


def test_what_an_answer_tells() -> None:
    """Of three numbers the middle one leaves one whatever is answered; of seven, the first one tells 0.59 bits."""
    assert told_by(2, 1, 3) == 1.0
    assert told_by(1, 1, 3) == pytest.approx((1 / 3 * math.log2(3) + 2 / 3 * math.log2(3 / 2)) / math.log2(3))
    assert told_by(1, 1, 7) == pytest.approx(0.5917 / 1.4488, abs=1e-3)
    assert told_by(5, 5, 5) == 1.0
    assert [told_by(guess, 1, 3) for guess in (0, 4, None)] == [0.0, 0.0, 0.0]
