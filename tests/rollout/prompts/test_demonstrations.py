"""The prompt that a policy reads as its own teacher: what stands where, and rows that have nothing to show."""

import json
from pathlib import Path
from typing import Any

import pytest

from rollout.config import ColumnMapping, JsonlTask, ModelConfig
from rollout.episodes.environment import Message
from rollout.errors import DataError
from rollout.prompts.demonstrations import Demonstrations
from rollout.prompts.prompt_building import build_prompts
from rollout.prompts.prompt_set import PromptSet
from rollout.prompts.rows import TaskRow
from tests.rollout.byte_tokenizer import byte_tokenizer

TEMPLATE = "{question} | {demonstration} | again"


def row(**columns: object) -> TaskRow:
    return TaskRow(question="2 + 3?", ground_truth="5", columns=columns, source="rows.jsonl:1")


def shown(column: str, of: TaskRow, content: str = "Q: 2 + 3?") -> str:
    turns = (Message(role="system", content="s"), Message(role="user", content=content))
    system, user = Demonstrations(column=column, template=TEMPLATE).shown_in(turns, of)
    assert (system, user.role) == (turns[0], "user")
    return user.content


def test_the_last_user_turn_has_question_and_demonstration() -> None:
    assert shown("solution", row(solution="2 and 3 are 5")) == "Q: 2 + 3? | 2 and 3 are 5 | again"
    assert shown("meta.steps", row(meta={"steps": 7})) == "Q: 2 + 3? | 7 | again"
    assert shown("ground_truth", row()) == "Q: 2 + 3? | 5 | again"
    assert shown("ground_truth", row(ground_truth="a column of that name")).split(" | ")[1] == "a column of that name"


def test_braces_in_a_question_or_a_demonstration_are_text() -> None:
    assert shown("s", row(s="{question}"), "{demonstration}") == "{demonstration} | {question} | again"


@pytest.mark.parametrize(
    ("column", "columns", "says"),
    [
        ("solution", {"other": 1}, "column 'solution' is missing; the row's columns are 'other'"),
        ("solution", {"solution": None}, "column 'solution' holds null, expected text"),
        ("solution", {"solution": " "}, "expected text"),
        ("solution", {"solution": [1]}, "expected text"),
        ("solution", {"solution": True}, "expected text"),
    ],
)
def test_a_row_without_a_demonstration_is_named(column: str, columns: dict[str, object], says: str) -> None:
    with pytest.raises(DataError) as error:
        shown(column, row(**columns))
    assert str(error.value).startswith("rows.jsonl:1: no demonstration for the teacher: ")
    assert says in str(error.value)
    assert "learner.teacher.policy_with" in str(error.value)


def prompts(tmp_path: Path, demonstrations: Demonstrations | None, *, longest: int = 64) -> PromptSet:
    path = tmp_path / "rows.jsonl"
    lines = [{"question": f"1+{i}?", "answer": str(1 + i), "solution": "x" * (4 * i)} for i in range(1, 5)]
    path.write_text("\n".join(map(json.dumps, lines)))
    task = JsonlTask(path=str(path), columns=ColumnMapping(), eval_fraction=0.0)
    model = ModelConfig(path="m", max_context_tokens=longest + 8)
    return build_prompts(byte_tokenizer(), task, model, split="train", max_tokens=8, demonstrations=demonstrations)


def test_prompts_have_the_teachers_tokens_beside_their_own(tmp_path: Path) -> None:
    plain = prompts(tmp_path, None)
    taught = prompts(tmp_path, Demonstrations(column="solution", template="{question}={demonstration}"))
    tokenizer = byte_tokenizer()
    assert [p.token_ids for p in taught.prompts] == [p.token_ids for p in plain.prompts]
    assert all(p.teacher_token_ids == () for p in plain.prompts)
    texts = [tokenizer.decode(p.teacher_token_ids) for p in taught.prompts]
    for place, (text, prompt) in enumerate(zip(texts, taught.prompts, strict=True), 1):
        assert f"{prompt.question}={'x' * (4 * place)}" in text
    assert taught.fingerprint != plain.fingerprint, "a resumed run shows the same demonstrations"


def test_a_prompt_that_is_too_long_for_the_teacher_is_left_out_and_counted(tmp_path: Path) -> None:
    demonstrations = Demonstrations(column="solution", template="{question}={demonstration}")
    longest = max(len(p.teacher_token_ids) for p in prompts(tmp_path, demonstrations).prompts)
    taught = prompts(tmp_path, demonstrations, longest=longest - 1)
    assert (taught.report.num_prompts, taught.report.num_too_long) == (3, 1)


def test_a_teacher_reads_its_own_examples_in_place_of_the_tasks(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "1+2?", "answer": "3"}) + "\n")
    task = JsonlTask(path=str(path), template="{question} ", few_shot=(("4+4?", "8"),), eval_fraction=0.0)
    model = ModelConfig(path="m", max_context_tokens=200)

    def texts(**fields: Any) -> tuple[str, str]:
        shown = Demonstrations(column="ground_truth", template="{question}is {demonstration}", **fields)
        (prompt,) = build_prompts(
            byte_tokenizer(), task, model, split="train", max_tokens=8, demonstrations=shown
        ).prompts
        decode = byte_tokenizer().decode
        return decode(prompt.token_ids), decode(prompt.teacher_token_ids)

    own, taught = texts(few_shot=(("2+2? is 4", "4"),))
    assert "4+4? " in own
    assert "2+2? is 4 " in taught
    assert "4+4?" not in taught
    assert "1+2? is 3" in taught
    assert "4+4? " in texts()[1]
