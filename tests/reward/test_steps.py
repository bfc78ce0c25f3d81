"""Steps: where a text is split, at which tokens the steps end, and how a worker scores them."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from pydantic import ValidationError

from learner.algorithm.process import process_advantages
from learner.objective import ProcessAdvantage
from reward.config import RewardConfig, RewardFunctionConfig, StepsConfig
from reward.function_loading import load_function
from reward.rules.arithmetic_steps import arithmetic_steps, equations
from reward.steps import split_steps, steps_with_rewards
from reward.types import GroupScores, RewardOutcome, RewardResult, ScoredGroup, StepReward
from reward.worker import RewardWorker, validate_reward_config
from rollout.errors import ConfigError
from rollout.prompts.vocabulary import token_bytes
from rollout.types import SampledGroup, facts_of, read_only
from tests.reward.samples import group, item
from tests.rollout.byte_tokenizer import byte_tokenizer

MODULE = "tests.reward.step_functions"


@pytest.mark.parametrize(
    ("splitter", "text", "expected"),
    [
        ("line", "1 + 1 = 2\n\n  so 3\n", [("1 + 1 = 2", 13), ("so 3", 18)]),
        ("line", "\n\na", [("a", 3)]),
        ("line", " \n ", []),
        ("line", "", []),
        ("sentence", "It is 3.5. Is it? Yes\nno!", [("It is 3.5.", 11), ("Is it?", 18), ("Yes", 22), ("no!", 25)]),
        ("sentence", "1. First 2 + 2. 2. Then", [("1. First 2 + 2.", 16), ("2. Then", 23)]),
        ("sentence", "So it is 12. Then 3", [("So it is 12.", 13), ("Then 3", 19)]),
        ("sentence", "Mr. Li and J. Wu have approx. 3. Yes", [("Mr. Li and J. Wu have approx. 3.", 33), ("Yes", 36)]),
        ("sentence", "It is PI. No", [("It is PI.", 10), ("No", 12)]),
        ("sentence", 'He said "two." (Or 3.) Yes', [('He said "two."', 15), ("(Or 3.)", 23), ("Yes", 26)]),
        ("sentence", "Mr.\nLi", [("Mr.", 4), ("Li", 6)]),
        (
            "sentence",
            "二加二得四。然后！「对？」 3.5",
            [("二加二得四。", 6), ("然后！", 9), ("「对？」", 14), ("3.5", 17)],
        ),
        ("paragraph", "a\nb\n \nc\n\n\nd", [("a\nb", 6), ("c", 10), ("d", 11)]),
    ],
)
def test_splitters(splitter: str, text: str, expected: list[tuple[str, int]]) -> None:
    assert [(step.text, step.end) for step in split_steps(text, splitter)] == expected


def ends(text: str, pieces: Sequence[bytes], splitter: str = "line") -> list[int]:
    steps = split_steps(text, splitter)
    token_ids = read_only(range(len(pieces)), np.int32)
    return [one.end for one in steps_with_rewards(steps, [0.0] * len(steps), text, token_ids, pieces)]


def test_a_boundary_inside_a_token_goes_to_that_token() -> None:
    # The line break ends the first step, in the token "\n4" that begins the second.
    assert ends("3\n4 5", [b"3", b"\n4", b" 5"]) == [2, 3]
    assert ends("3\n4\n5", [b"3", b"\n4\n5"]) == [2, 2, 2]


def test_what_ends_a_completion_belongs_to_its_last_step() -> None:
    assert ends("3\n4", [b"3", b"\n", b"4", b"\n\n", b"<|end|>"]) == [2, 5]


def test_characters_in_parts_and_bytes_that_are_no_text() -> None:
    euro = "€".encode()
    assert ends("€\n4", [euro[:1], euro[1:], b"\n", b"4"]) == [3, 4]
    # A byte that is none of UTF-8 is one character; the last character is not whole, and not in the text.
    assert ends("�\n4", [b"\xff", b"\n", b"4", euro[:2]]) == [2, 4]


def test_a_first_blank_that_a_tokenizer_leaves_out_is_no_matter() -> None:
    assert ends("3\n4 5", [b" 3", b"\n", b"4", b" 5"]) == [2, 4]
    assert ends(" 3\n4", [b" 3", b"\n", b"4"]) == [2, 3]


def test_tokens_that_do_not_spell_the_text_are_an_error() -> None:
    with pytest.raises(ValueError, match="do not spell"):
        ends("3\n4", [b"3", b"4"])
    with pytest.raises(ValueError, match="do not spell"):
        ends("3\n4", [b" 4", b"\n", b"4"])


def test_a_token_that_the_tokenizer_has_not_stands_for_nothing() -> None:
    steps = split_steps("a\nb", "line")
    found = steps_with_rewards(steps, [1.0, 2.0], "a\nb", read_only([0, 9, 1, 2], np.int32), [b"a", b"\n", b"b"])
    assert found == (StepReward(end=3, reward=1.0), StepReward(end=4, reward=2.0))


def test_ends_agree_with_decoding_every_prefix() -> None:
    """Against the tokenizer itself: a step ends at the first token whose prefix, decoded, has its text."""
    tokenizer = byte_tokenizer(merges=[("Ċ", "1"), ("1", "Ġ"), ("=", "2"), ("2", "Ċ"), ("Ã", "©")])
    pieces = token_bytes(tokenizer)
    rng = random.Random(7)
    for _ in range(300):
        text = "".join(rng.choice(["1", " ", "\n", "=2", "é", "€", "x\n\n"]) for _ in range(rng.randint(1, 25)))
        token_ids = tokenizer(text, add_special_tokens=False).input_ids
        steps = split_steps(text, "line")
        found = steps_with_rewards(steps, [0.0] * len(steps), text, read_only(token_ids, np.int32), pieces)
        for step, one in list(zip(steps, found, strict=True))[:-1]:
            expected = next(
                k for k in range(1, len(token_ids) + 1) if tokenizer.decode(token_ids[:k]).startswith(text[: step.end])
            )
            assert one.end == expected, (text, step)
        assert not found or found[-1].end == len(token_ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48/2 = 24", [True]),
        ("1 + 2 + 3 = 6", [True]),
        ("2 + 3 * 4 = 20", [False]),
        ("(2 + 3) × 4 = 20", [True]),
        ("So $5 x 3 = $15.", [True]),
        ("<<48/2=24>> clips", [True]),
        ("1,000 - 1 = 999 apples", [True]),
        ("2 + 3 = 5 = 10 / 2", [True, True]),
        ("Total = 2 + 3 = 6", [False]),
        ("- 2 + 3 = 5", [True]),
        ("2) 2 + 3 = 5", [True]),
        ("so: -2 + 3 = 1", [True]),
        ("10 / 3 = 3.33 and 10 / 3 = 3.34", [True, False]),
        ("10 / 4 = 2", [False]),
        ("3 + 4 = 7 and 3 + 4 = 8", [True, False]),
        ("x - 2 + 3 = 5", []),
        ("2x + 3 = 7", []),
        ("3 * 4 = 12x", []),
        ("20% of 50 = 10", []),
        ("50 * 20% = 10", []),
        ("1 / 0 = 0", []),
        ("there are 3", []),
        ("3 = 3", []),
        ("2 + = 5", []),
        ("9" * 40 + " + 1 = 2", []),
        ("(" * 3000 + " = 2 + 2", []),
    ],
)
def test_equations(text: str, expected: list[bool]) -> None:
    assert list(equations(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        r"$5 \times 2 + 1 = 11$",
        r"$3 \cdot 4 + 5 = 17$",
        r"12 \div 4 + 1 = 4",
        "16 \u2013 3 + 4 = 17",
        "16 \u2212 3 + 4 = 17",
        "10 \u2217 2 + 1 = 21",
        "10 \u22c5 2 + 1 = 21",
        "5 X 2 + 1 = 11",
        "**5 + 3 = 8**",
        "5 + 3 = **8**",
        r"so \(5 + 3 = 8\).",
        r"5 + 3 = \boxed{8}",
        r"5 + 3 = 8 \text{ boxes}",
        "$5$ - $2$ = $3$",
        "Step 1: 2 + 3 = 5",
        "Great! 2 + 3 = 5",
        "She has 3 + 4 = 7 apples.",
        "So in all (2 + 3) * 2 is, 5 * 2 = 10",
        "a line\n- 2 + 3 = 5",
    ],
)
def test_signs_and_markup_are_read_as_a_person_does(text: str) -> None:
    assert list(equations(text)) == [True]
    # The last number, one more.
    wrong = re.sub(r"(\d+)(?=\D*$)", lambda match: str(int(match[0]) + 1), text)
    assert list(equations(wrong)) == [False]


@pytest.mark.parametrize(
    "text",
    [
        # What stands before: the rest alone would be wrong.
        r"$\frac{1}{2} \times 10 + 5 = 10$",
        r"\sqrt 4 + 5 = 7",
        "\u221a 4 + 5 = 7",
        "3 ^ 2 + 1 = 10",
        "2 ** 3 + 1 = 9",
        "2**3 + 1 = 9",
        "3\u00b2 + 1 = 10",
        "3! - 4 = 2",
        "7 % 3 + 1 = 2",
        "10 mod 3 + 4 = 5",
        "20% of 50 + 5 = 15",
        "Half of 10 + 5 = 10",
        f"Half of{' ' * 40}10 + 5 = 10",
        "twice 3 + 4 = 10",
        "3 boxes of 4 + 2 = 14",
        "f (2) + 1 = 9",
        "|-3| + 4 = 7",
        "3,5 + 1 = 4,5",
        "10 : 2 + 1 = 6",
        ".5 + 1 = 1.5",
        "so .5 + 1 = 1.5",
        "1 + 2 + ... + 4 + 0 = 10",
        "5 *\n2 + 3 = 13",
        "- 2 + 3 = 1",
        # What stands behind it.
        "4 * 3 * 2 = 4!",
        "2 / 3 = 0.666...",
        "2 / 3 = 0.666\u2026",
        r"1 / 3 = 0.\overline{3}",
        "17 / 5 = 3 remainder 2",
        "17 / 5 = 3, remainder 2",
        "17 / 5 = 3 R2",
        "5 / 2 = 2 and a half",
        "5 / 2 = 2 and 1/2",
        "5 / 2 = 2 1/2",
        "2 * 6 = 1 dozen",
        "9 + 4 = 1 PM",
        "0.1 + 0.1 = 20 %",
        "5 + 4 = 2 (mod 7)",
        r"5 + 4 = 2 \pmod 7",
        "4 + 5 = 3 ^ 2",
        "1000 + 5 = 1{,}005",
        "pages 10\u201320 = 11 pages",
    ],
)
def test_a_right_statement_that_cannot_be_computed_is_no_equation(text: str) -> None:
    assert list(equations(text)) == []
    assert arithmetic_steps(item("", steps=(text,))) == [0.0]


def test_equations_agree_with_python_on_random_ones() -> None:
    """Precedence, parentheses and signs, against Python's own reading with exact fractions."""
    rng = random.Random(5)

    def expression(depth: int) -> str:
        if depth == 0 or rng.random() < 0.3:
            return str(rng.randint(0, 20))
        inner = f"{expression(depth - 1)} {rng.choice('+-*/')} {expression(depth - 1)}"
        return f"({inner})" if rng.random() < 0.5 else inner

    outcomes = []
    for _ in range(500):
        text = expression(3)
        if text.isdigit():
            continue
        try:
            value = eval(re.sub(r"(\d+)", r"Fraction(\1)", text), {"Fraction": Fraction})
        except ZeroDivisionError:
            assert list(equations(f"{text} = 1")) == []
            continue
        said = value if rng.random() < 0.5 else value + rng.randint(1, 3)
        written = str(said.numerator) if said.denominator == 1 else f"{said.numerator} / {said.denominator}"
        outcomes.append(said == value)
        assert list(equations(f"so {text} = {written}")) == [said == value], (text, written)
    assert min(outcomes.count(True), outcomes.count(False)) > 100


def test_arithmetic_steps() -> None:
    steps = ("2 + 2 = 4", "so it is four", "4 + 1 = 6")
    assert arithmetic_steps(item("", steps=steps)) == [1.0, 0.0, -1.0]
    assert arithmetic_steps(item("", steps=steps), right=2.0, wrong=-3.0, without=0.5) == [2.0, 0.5, -3.0]


def test_names_are_told_apart() -> None:
    with pytest.raises(ConfigError, match=r"scores steps, and no completion: name it in reward\.steps\.function"):
        load_function(RewardFunctionConfig(function="arithmetic_steps"))
    with pytest.raises(ConfigError, match="'math' is not known: use arithmetic_steps, or an import path"):
        load_function(StepsConfig(function="math"))
    with pytest.raises(ConfigError, match=r"params\.left"):
        validate_reward_config(RewardConfig(steps=StepsConfig(function="arithmetic_steps", params={"left": 1.0})))
    with pytest.raises(ValidationError):
        StepsConfig.model_validate({"function": "arithmetic_steps", "splitter": "word"})


def scored_group(rewards: Sequence[float], steps: Sequence[Sequence[float] | None]) -> ScoredGroup:
    sampled = group(["a"] * len(rewards))
    results = [
        RewardResult(
            outcome=RewardOutcome.OK,
            reward=reward,
            steps=None if of is None else tuple(StepReward(end=1, reward=step) for step in of),
        )
        for reward, of in zip(rewards, steps, strict=True)
    ]
    scores = GroupScores(rewards=tuple(results), worker="reward-0", started_s=0.0, finished_s=1.0)
    held = SampledGroup(prompt=sampled.prompt, facts=facts_of(sampled), payload=sampled)
    return ScoredGroup(group=held, scores=scores)


def test_where_steps_are_scored_their_rewards_are_compared() -> None:
    assert not scored_group([1.0, 1.0], [[1.0], [0.0]]).all_rewards_equal
    assert scored_group([0.0, 1.0], [[1.0, 1.0], [1.0]]).all_rewards_equal
    # Scored by steps, of which there are none: all advantages are zero. Not scored by steps: the outcome is compared.
    assert scored_group([0.0, 1.0], [[], []]).all_rewards_equal
    assert not scored_group([0.0, 1.0], [None, None]).all_rewards_equal


def test_groups_whose_rewards_are_equal_have_advantages_of_zero_and_no_others() -> None:
    groups: list[list[list[float]]] = [[[], []], [[1.0], []], [[1.0], [0.0]], [[1.0, 1.0], [1.0]], [[1.0, 0.0], []]]
    for steps in groups:
        scored = scored_group([0.0, 1.0], steps)
        (_, *_), spans = process_advantages([scored], ProcessAdvantage())
        is_zero = all(span.advantage == 0.0 for of in spans.values() for span in of)
        assert scored.all_rewards_equal == is_zero, steps


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[RewardWorker]:
    config = RewardConfig.model_validate(
        {
            "functions": [{"function": "exact_match"}],
            "steps": {"function": f"{MODULE}:{request.param}"},
            "timeout_s": 1.0,
        }
    )
    made = RewardWorker(config, "reward-0", load_token_bytes=lambda: [b"1", b"\n", b"one", b"2"])
    yield made
    made.close()


@pytest.mark.integration
@pytest.mark.parametrize("worker", ["length_of_steps", "awaited_lengths", "lengths_of_all"], indirect=True)
def test_a_worker_scores_steps(worker: RewardWorker) -> None:
    sampled = group(["1", "1\none", ""])
    ids = ([0], [0, 1, 2, 3], [3])
    completions = [
        replace(
            completion,
            token_ids=read_only(of, np.int32),
            logprobs=read_only([-1.0] * len(of), np.float32),
            loss_mask=read_only([True] * len(of), np.bool_),
        )
        for completion, of in zip(sampled.completions, ids, strict=True)
    ]
    results = worker.score(replace(sampled, completions=tuple(completions))).rewards
    assert [result.outcome for result in results] == [RewardOutcome.OK] * 3
    assert [result.reward for result in results] == [1.0, 0.0, 0.0]
    assert [result.steps for result in results] == [
        (StepReward(end=1, reward=1.0),),
        (StepReward(end=2, reward=1.0), StepReward(end=4, reward=3.0)),
        (),
    ]


@pytest.mark.integration
@pytest.mark.parametrize("worker", ["length_of_steps"], indirect=True)
def test_each_misdeed_has_its_outcome(worker: RewardWorker) -> None:
    sampled = group(["hang", "raise", "short", "nan", "number", "1"])
    results = worker.score(sampled).rewards
    said = [(result.outcome.value, result.detail) for result in results]
    assert said[0] == ("timeout", "length_of_steps did not answer within 1 s")
    assert said[1] == ("error", "length_of_steps raised ValueError: no")
    assert said[2] == ("invalid", "length_of_steps returned 0 numbers for 1 steps")
    assert said[3] == ("invalid", "length_of_steps returned nan for step 0")
    assert said[4] == ("invalid", "length_of_steps returned a float instead of a list with a number for each step")
    # Its token 5 is none of the four: the text is spelt by nothing.
    assert said[5][0] == "error"
    assert "do not spell its text" in said[5][1]
    assert all(result.reward is None and result.correct is None and result.steps is None for result in results)


@pytest.mark.integration
@pytest.mark.parametrize("worker", ["length_of_steps"], indirect=True)
def test_no_step_function_changes_what_an_evaluation_calls_right(worker: RewardWorker) -> None:
    results = worker.score(group(["hang", "raise", "nan", "7"], ground_truth="7"), with_steps=False).rewards
    assert [result.outcome for result in results] == [RewardOutcome.OK] * 4
    assert [result.correct for result in results] == [False, False, False, True]
    assert [result.steps for result in results] == [None] * 4
