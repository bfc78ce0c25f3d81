"""Which of several teachers a row is for: by its column, and a row without one is told before anything starts."""

import json
from pathlib import Path

import pytest

from rollout.config import JsonlTask, ModelConfig
from rollout.errors import DataError
from rollout.prompts.prompt_building import build_prompts
from rollout.prompts.prompt_set import PromptSet
from rollout.prompts.rows import TaskRow
from rollout.prompts.teacher_names import TeacherNames
from tests.rollout.byte_tokenizer import byte_tokenizer

NAMES = ("math", "code", "7")


def row(**columns: object) -> TaskRow:
    return TaskRow(question="2 + 3?", ground_truth="5", columns=columns, source="rows.jsonl:4")


def test_a_column_names_the_teacher() -> None:
    names = TeacherNames(column="meta.subject", names=NAMES)
    assert names.of(row(meta={"subject": "code"})) == "code"
    assert names.of(row(meta={"subject": 7})) == "7"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"subject": "law"}, "column 'subject' is 'law', and learner.teacher.paths has math, code, 7"),
        ({"subject": None}, "column 'subject' is None"),
        ({"subject": ["math"]}, "column 'subject' is ['math']"),
        ({"subject": True}, "column 'subject' is True"),
        ({"topic": "math"}, "column 'subject' is missing; the row's columns are 'topic'"),
    ],
)
def test_a_row_without_a_teacher_is_named(columns: dict[str, object], says: str) -> None:
    with pytest.raises(DataError) as error:
        TeacherNames(column="subject", names=NAMES).of(row(**columns))
    assert str(error.value).startswith("rows.jsonl:4: no teacher for the row: ")
    assert says in str(error.value)
    assert "learner.teacher.column" in str(error.value)


def prompts(tmp_path: Path, subjects: list[str], teachers: TeacherNames | None) -> PromptSet:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"q{i}", "answer": "1", "subject": subject} for i, subject in enumerate(subjects)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    task = JsonlTask(path=str(path), eval_fraction=0)
    model = ModelConfig(max_context_tokens=64)
    return build_prompts(byte_tokenizer(), task, model, split="train", max_tokens=8, teachers=teachers)


def test_every_prompt_has_its_teacher_and_the_fingerprint_is_of_them(tmp_path: Path) -> None:
    teachers = TeacherNames(column="subject", names=NAMES)
    found = prompts(tmp_path, ["code", "math"], teachers)
    assert {prompt.question: prompt.teacher for prompt in found.prompts} == {"q0": "code", "q1": "math"}
    plain = prompts(tmp_path, ["code", "math"], None)
    assert {prompt.teacher for prompt in plain.prompts} == {""}
    other = prompts(tmp_path, ["math", "code"], teachers)
    assert len({found.fingerprint, plain.fingerprint, other.fingerprint}) == 3
    with pytest.raises(DataError, match=r"rows.jsonl:2: no teacher for the row: column 'subject' is 'law'"):
        prompts(tmp_path, ["code", "law"], teachers)
