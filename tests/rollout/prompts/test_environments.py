"""The rows of environments: openings with their tools, of seeds or of the rows that episodes are about."""

import json
from pathlib import Path

import pytest

from rollout.config import EnvironmentTask, JsonlTask, ModelConfig
from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.environment import Done, Environment, Messages, Reply, Task, tool, user
from rollout.episodes.tools import schemas_of
from rollout.errors import DataError
from rollout.prompts.environments import task_of_row
from rollout.prompts.prompt_building import build_prompts
from rollout.prompts.prompt_set import PromptSet
from rollout.prompts.usable_rows import Split
from tests.rollout.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer

HERE = __name__
TOOL_TEMPLATE = "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}" + CHAT_TEMPLATE


class Quiz(Environment):
    """Asks what its row asks."""

    def start(self, task: Task) -> Messages:
        return [user(f"Look up: {task.question} ({task.row['hint']})")]

    def respond(self, reply: Reply) -> Messages | Done:
        return Done()

    @tool
    def look_up(self, word: str) -> str:
        """Finds it.

        Args:
            word: What is looked up.
        """
        return word


def rows(tmp_path: Path, *more: dict[str, object], **fields: object) -> EnvironmentTask:
    found = [
        {"question": "tide?", "answer": "water", "hint": "wet"},
        {"question": "ebb?", "answer": "less", "hint": "low", "seed": 5},
        *more,
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return EnvironmentTask(environment=f"{HERE}:Quiz", rows=JsonlTask(path=str(path)), eval_fraction=0.0, **fields)


def prompts_of(task: EnvironmentTask, split: Split = "train") -> PromptSet:
    return build_prompts(
        byte_tokenizer(), task, ModelConfig(path="", max_context_tokens=4000), split=split, max_tokens=8
    )


def test_each_row_has_a_world_of_its_own(tmp_path: Path) -> None:
    first, second = prompts_of(rows(tmp_path)).prompts
    assert first.question == "Look up: tide? (wet)"
    assert (first.ground_truth, second.ground_truth) == ("water", "less")
    told = task_of_row(first.row, first.ground_truth, sample_seed=9)
    assert (told.question, told.ground_truth, told.row["hint"], told.sample_seed) == ("tide?", "water", "wet", 9)
    assert task_of_row(second.row, None, sample_seed=0).seed == 5, "the row's own"
    assert told.seed == task_of_row(prompts_of(rows(tmp_path)).prompts[0].row, None, sample_seed=0).seed


def test_the_world_is_told_the_same_as_when_its_opening_was_made(tmp_path: Path) -> None:
    """`start` may read all of its row, so nothing may be there at one time and not at the other."""
    for prompt in prompts_of(rows(tmp_path)).prompts:
        assert set(task_of_row(prompt.row, None, sample_seed=0).row) == {"hint", "seed"}


def test_the_prompt_offers_the_tools(tmp_path: Path) -> None:
    (prompt, _) = prompts_of(rows(tmp_path)).prompts
    assert '"name": "look_up"' in prompt.text
    assert "tools" not in prompt.row, "each prompt would carry them"


def test_a_split_of_the_rows_is_that_of_the_episodes(tmp_path: Path) -> None:
    held_out = tmp_path / "eval.jsonl"
    held_out.write_text(json.dumps({"question": "moon?", "answer": "far", "hint": "pale"}) + "\n")
    task = rows(tmp_path)
    assert isinstance(task.rows, JsonlTask)
    task = task.model_copy(update={"rows": task.rows.model_copy(update={"eval_path": str(held_out)})})
    assert [prompt.question for prompt in prompts_of(task, "eval").prompts] == ["Look up: moon? (pale)"]
    assert len(prompts_of(task).prompts) == 2


def test_a_column_that_episodes_have_is_refused(tmp_path: Path) -> None:
    task = rows(tmp_path, {"question": "sea?", "answer": "salt", "hint": "deep", "episode_opening": "once"})
    with pytest.raises(DataError, match=r"rows.jsonl:3: column 'episode_opening' has a name that episodes use"):
        prompts_of(task)


def test_a_seed_that_is_none_is_refused(tmp_path: Path) -> None:
    task = rows(tmp_path, {"question": "sea?", "answer": "salt", "hint": "deep", "seed": "five"})
    with pytest.raises(DataError, match=r"rows.jsonl:3: column 'seed' is 'five'; a world's seed is a whole number"):
        prompts_of(task)


def test_what_is_held_out_is_said_of_the_episodes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows.eval_fraction is not used: .*set task.eval_fraction"):
        EnvironmentTask(environment=f"{HERE}:Quiz", rows=JsonlTask(path="rows.jsonl", eval_fraction=0.5))


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None, TOOL_TEMPLATE])
def test_the_prompt_is_what_the_template_of_the_episode_makes(template: str | None, tmp_path: Path) -> None:
    """Two ways to the same tokens: all prompts together, and an episode's own."""
    tokenizer = byte_tokenizer(template)
    model = ModelConfig(path="", max_context_tokens=4000)
    prompt = build_prompts(tokenizer, rows(tmp_path), model, split="train", max_tokens=8).prompts[0]
    own = ChatTemplate(tokenizer, end_ids=[tokenizer.eos_token_id], tools=schemas_of(Quiz))
    assert own.describes_tools == (template != TOOL_TEMPLATE)
    assert list(prompt.token_ids) == own.opening([user("Look up: tide? (wet)")])


def test_a_world_that_cannot_start_is_told_with_its_row(tmp_path: Path) -> None:
    task = rows(tmp_path, {"question": "sea?", "answer": "salt"})
    with pytest.raises(DataError, match=r"Quiz'.*KeyError: 'hint'"):
        prompts_of(task)
