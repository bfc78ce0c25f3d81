"""Rows that the reward cannot score are named with file and line before a run, or left out and counted."""

import json
from pathlib import Path

import pytest

from cluster.commands.scored_rows import scored_prompts
from reward.config import RewardConfig, RewardFunctionConfig
from rollout.config import ColumnMapping, JsonlTask, ModelConfig
from rollout.errors import DataError
from rollout.prompts.prompt_building import build_prompts
from rollout.prompts.prompt_set import PromptSet
from tests.rollout.byte_tokenizer import byte_tokenizer

CODE = RewardConfig(functions=(RewardFunctionConfig(function="code"),))
ROWS = [
    {"question": "one", "test_list": ["assert f() == 1"]},
    {"question": "two", "test_list": ["import numpy\nassert f() == 1"]},
    {"question": "three", "input_output": "{"},
    {"question": "four", "input_output": '{"inputs": ["1"], "outputs": ["2"]}'},
]


def _prompts(folder: Path, task: JsonlTask) -> PromptSet:
    Path(task.path).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model = ModelConfig(path="unused", max_context_tokens=40)
    return build_prompts(byte_tokenizer(), task, model, split="train", max_tokens=8)


@pytest.mark.integration
def test_a_row_whose_tests_cannot_be_run_is_named(tmp_path: Path) -> None:
    columns = ColumnMapping(ground_truth=None)
    task = JsonlTask(path=str(tmp_path / "rows.jsonl"), eval_fraction=0, columns=columns)
    prompts = _prompts(tmp_path, task)
    assert [Path(source).name for source in prompts.sources] == [f"rows.jsonl:{line}" for line in (1, 2, 3, 4)]
    with pytest.raises(DataError) as raised:
        scored_prompts(CODE, task, prompts)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/rows.jsonl:2: ")
    assert "code: the tests of the row import numpy, which is not in the sandbox" in message
    assert "and 1 more rows of 4 cannot be scored" in message
    kept = scored_prompts(CODE, task.model_copy(update={"on_bad_row": "skip"}), prompts)
    assert [prompt.question for prompt in kept.prompts] == ["one", "four"]
    assert [Path(source).name for source in kept.sources] == ["rows.jsonl:1", "rows.jsonl:4"]
    assert kept.report.skipped == {"cannot be scored": 2}
