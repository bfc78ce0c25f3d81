"""Prompt sets, and what is left out of them."""

import hashlib
import json
from pathlib import Path

import pytest

from rollout.config import JsonlTask, ModelConfig
from rollout.errors import ConfigError, DataError
from rollout.prompts.prompt_building import PromptBuilder, build_prompts
from tests.rollout.byte_tokenizer import byte_tokenizer

MODEL = ModelConfig(path="unused", max_context_tokens=40)


def write(path: Path, questions: list[str]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": "1", "level": 2}) + "\n" for q in questions))
    return str(path)


def test_a_prompt_holds_what_the_row_said(tmp_path: Path) -> None:
    task = JsonlTask(path=write(tmp_path / "sums.jsonl", ["1+0?"]), eval_fraction=0)
    (prompt,) = build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=8).prompts
    assert prompt.uid == hashlib.sha256(b"sums\x001+0?").hexdigest()[:16]
    assert prompt.text == "<|user|>1+0?<|end|><|assistant|>"
    assert len(prompt.token_ids) == 7
    assert (prompt.question, prompt.ground_truth, prompt.task) == ("1+0?", "1", "sums")
    assert prompt.row == {"level": 2}
    assert prompt.group_id == f"000000-{prompt.uid}"


def test_prompts_that_leave_no_room_are_counted(tmp_path: Path) -> None:
    # Context 40 less 8 for the completion is 32; a question of n bytes makes n + 3 tokens.
    questions = ["x" * 28, "x" * 29, "x" * 30, "x" * 31]
    task = JsonlTask(path=write(tmp_path / "sums.jsonl", [*questions, questions[0]]), eval_fraction=0)
    built = build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=8)
    assert [len(prompt.token_ids) for prompt in built.prompts] == [31, 32]
    report = built.report
    assert (report.num_prompts, report.num_too_long, report.num_duplicates) == (2, 2, 1)
    assert (report.max_prompt_tokens, report.longest_tokens) == (32, 32)
    assert str(report) == "sums, train: 2 prompts, left out: 2 longer than 32 tokens, 1 duplicates"
    with pytest.raises(DataError, match="all 4 prompts for train are longer than 10 tokens, the shortest has 31"):
        build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=30)
    with pytest.raises(ConfigError, match="max_tokens is 40, which leaves no room"):
        PromptBuilder(byte_tokenizer(), task, MODEL, max_tokens=40)


def test_the_fingerprint_follows_what_the_policy_reads(tmp_path: Path) -> None:
    task = JsonlTask(path=write(tmp_path / "sums.jsonl", ["1?", "2?"]), eval_fraction=0)

    def fingerprint(task: JsonlTask) -> str:
        return build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=8).fingerprint

    assert fingerprint(task) == fingerprint(task)
    assert fingerprint(task) != fingerprint(task.model_copy(update={"template": "{question}!"}))


def test_a_template_without_question_is_refused() -> None:
    with pytest.raises(ValueError, match=r"template has no \{question\}"):
        JsonlTask(path="unused", template="Solve it.")
