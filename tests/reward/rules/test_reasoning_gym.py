"""reasoning-gym's scorers on our records, and what may not reach the ones that evaluate answers."""

import json
import re
from functools import lru_cache
from pathlib import Path

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from reward.config import RewardFunctionConfig
from reward.function_loading import load_function
from reward.rules.reasoning_gym import (
    EVALUATED_EXPRESSION,
    EVALUATED_LITERAL,
    is_literal,
    is_plain_arithmetic,
    reasoning_gym_score,
)
from reward.types import RewardInput
from rollout.errors import ConfigError


@lru_cache(maxsize=64)
def _entry(generator: str, seed: int, params: str) -> str:
    made = reasoning_gym.create_dataset(generator, size=1, seed=seed, **json.loads(params))
    return json.dumps(made[0], default=str)


def asked(generator: str, completion: str, seed: int = 0, size: int | None = None) -> tuple[RewardInput, str | None]:
    """A question of `generator` as it comes out of a row of JSON, answered with `completion`; and the right answer."""
    grid = {} if size is None else {"grid_size_x": size, "grid_size_y": size}
    entry = json.loads(_entry(generator, seed, json.dumps(grid)))
    seen = RewardInput(
        question=entry["question"],
        prompt=entry["question"],
        completion=completion.replace("ORACLE", str(entry["answer"])),
        ground_truth=entry["answer"],
        row={"metadata": entry["metadata"]},
        task="t",
    )
    return seen, entry["answer"]


@pytest.mark.parametrize(
    "generator",
    ["chain_sum", "basic_arithmetic", "countdown", "spell_backward", "simple_equations", "arc_agi", "spiral_matrix",
     "simple_integration", "polynomial_multiplication", "n_queens", "sudoku", "complex_arithmetic", "word_sorting"],
)  # fmt: skip
def test_the_right_answer_scores_1(generator: str) -> None:
    assert reasoning_gym_score(asked(generator, "ORACLE")[0]) == 1.0
    assert reasoning_gym_score(asked(generator, "<think>hm</think><answer>\nORACLE\n</answer>")[0]) == 1.0
    assert reasoning_gym_score(asked(generator, "<answer>zzz</answer>")[0]) < 0.1


def test_where_the_answer_is_taken_from() -> None:
    assert reasoning_gym_score(asked("chain_sum", r"I think \boxed{ORACLE}")[0]) == 1.0
    assert reasoning_gym_score(asked("chain_sum", "The answer is ORACLE.")[0]) == 1.0
    # Without a mark the scorer sees the whole text, and gives a share for an answer that stands in it.
    assert 0.0 < reasoning_gym_score(asked("chain_sum", "So, all in all: ORACLE")[0]) < 1.0


def test_the_generator_may_be_named_and_a_row_without_metadata_is_an_error() -> None:
    seen, _ = asked("chain_sum", "ORACLE")
    assert reasoning_gym_score(seen, generator="basic_arithmetic") == 1.0
    with pytest.raises(ValueError, match="'nothing' is no generator of reasoning-gym"):
        reasoning_gym_score(seen, generator="nothing")
    bare = RewardInput(question="q", prompt="q", completion="1", ground_truth="1", task="chain_sum")
    with pytest.raises(ValueError, match="the row of a chain_sum question has no metadata"):
        reasoning_gym_score(bare)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"generator": "chain_sums"}, "no generator 'chain_sums'; did you mean 'chain_sum'?"),
        ({"generator_params": {"min_terms": 2}}, "generator_params are those of one generator: name it as generator"),
        ({"generator": "chain_sum", "generator_params": {"terms": 2}}, "generator_params do not fit chain_sum: "),
        ({"generator": "chain_sum", "generator_params": {"min_terms": 0}}, "generator_params do not fit chain_sum: "),
    ],
)
def test_wrong_params_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match="reward function 'reasoning_gym'") as raised:
        load_function(RewardFunctionConfig(function="reasoning_gym", params=params))
    assert message in str(raised.value)


def test_a_long_answer_is_read_whole() -> None:
    seen, oracle = asked("game_of_life", "<answer>ORACLE</answer>", size=30)
    assert len(oracle or "") > 1800
    assert reasoning_gym_score(seen) == 1.0


def test_a_generator_without_ananswer_of_its_own_is_scored() -> None:
    seen, oracle = asked("propositional_logic", "<answer>P</answer>")
    assert oracle is None
    assert 0.0 <= reasoning_gym_score(seen) < 1.0


@pytest.mark.parametrize("generator", sorted(EVALUATED_EXPRESSION | EVALUATED_LITERAL))
@pytest.mark.parametrize("payload", ["open(PATH,'w')", "[open(PATH,'w')]", "(lambda: open(PATH,'w'))()", "9**9**9**9"])
def test_answers_are_never_run(generator: str, payload: str, tmp_path: Path) -> None:
    path = tmp_path / "written"
    payload = payload.replace("PATH", repr(str(path)))
    assert reasoning_gym_score(asked(generator, f"<answer>{payload}</answer>")[0]) < 0.1
    assert not path.exists()


def test_every_scorer_that_evaluates_is_known() -> None:
    """A new release may bring another generator that evaluates answers: this fails then."""
    package = Path(reasoning_gym.__file__).parent
    # They evaluate text of their own rows, not the answer; codeio's `exec` likewise runs when rows are made.
    harmless = {"number_sorting", "gsm_symbolic", "bitwise_arithmetic", "basic_arithmetic", "codeio"}
    pattern = re.compile(r"(?<![\w.])(?:sympy\.|sp\.)?(?:parse_expr|sympify|eval|exec)\(")
    evaluating = set()
    for name, (dataset, _) in DATASETS.items():
        source = (package.parent / (dataset.__module__.replace(".", "/") + ".py")).read_text()
        if pattern.search(re.sub(r"def \w+\(|\"\"\".*?\"\"\"", "", source, flags=re.DOTALL)):
            evaluating.add(name)
    assert evaluating - harmless - {"propositional_logic"} == EVALUATED_EXPRESSION | EVALUATED_LITERAL


@pytest.mark.parametrize("text", ["1 + 2*(3 - 4)/5", "x**2 + 3*x", "sin(x) + C", "exp(2*x)/2", "-7", "2**10"])
def test_plain_arithmetic(text: str) -> None:
    assert is_plain_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    ["9**9**9", "2**100000", "exec(1)", "x.y", "[1]", "'a'", "eval(x)", "(x)(1)", "factorial(9)", "1 if x else 2", "",
     "lambda: 1", "x := 1", "1 +", "((10**900)**900)**900", "1+" * 500 + "1", "True"],
)  # fmt: skip
def test_not_plain_arithmetic(text: str) -> None:
    assert not is_plain_arithmetic(text)


def test_literals() -> None:
    assert is_literal("[[1, 2], [3, 4]]")
    assert is_literal("1 2 3\n4 5 6")
    assert is_literal("_ _ Q _")
    assert not is_literal("exec('1')")
    assert not is_literal("[].append(1)")
    assert not is_literal("1 2 exec('1')")
