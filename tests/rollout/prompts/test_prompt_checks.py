"""What a chat template does to prompts without a word is said."""

import json
from pathlib import Path

import pytest

from rollout.config import JsonlTask
from rollout.episodes.environment import Message
from rollout.prompts.prompt_checks import end_token_ids, special_token_warnings, template_warnings, turn_end
from rollout.prompts.rows import TaskRow
from tests.rollout.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer

TASK = JsonlTask(path="unused", system_prompt=" Be brief.\n")
NO_SYSTEM = CHAT_TEMPLATE.replace("%}<|{{", "if m['role'] != 'system' %}<|{{", 1)
NO_OPENING = CHAT_TEMPLATE.replace("<|assistant|>{% endif", "{% endif")
SHORT_ANSWERS = CHAT_TEMPLATE.replace("m['content']", "m['content'].split('</think>')[-1]")


def row(question: str | tuple[Message, ...], number: int = 1) -> TaskRow:
    return TaskRow(question=question, ground_truth=None, source=f"rows.jsonl:{number}")


def told(template: str | None, rows: list[TaskRow], task: JsonlTask = TASK) -> list[str]:
    return list(template_warnings(byte_tokenizer(template), rows, task))


def test_a_template_that_takes_every_turn_is_no_matter() -> None:
    trimmed = CHAT_TEMPLATE.replace("m['content']", "m['content'] | trim")
    assert told(CHAT_TEMPLATE, [row("2?")]) == told(trimmed, [row("2?")]) == told(None, [row("2?")]) == []


def test_a_system_prompt_that_is_left_out_is_told_once_with_the_prompt() -> None:
    assert told(NO_SYSTEM, [row("2?", 1), row("3?", 2)]) == [
        "rows.jsonl:1: the model's chat template leaves out the system turn (task.system_prompt); it gives "
        '"<|user|>2?<|end|><|assistant|>"; say it in task.template, before {question}, or take another model'
    ]


def test_each_form_of_rows_is_looked_at() -> None:
    chat = (Message(role="system", content="Own."), Message(role="user", content="3?"))
    rows = [row("2?", 1), row(chat, 2), row(chat, 3)]
    bare = TASK.model_copy(update={"system_prompt": None})
    (only,) = told(NO_SYSTEM, rows, bare)
    assert only.startswith("rows.jsonl:2: the model's chat template leaves out the system turn of the row; it gives")


def test_an_answer_of_few_shot_that_is_changed_is_told() -> None:
    task = JsonlTask(path="unused", few_shot=(("1+1?", "<think>one and one</think>2"),))
    (only,) = told(SHORT_ANSWERS, [row("2?")], task)
    assert 'leaves out or changes the answer "<think>one and one</think>2" of task.few_shot' in only
    assert '"<|user|>1+1?<|end|><|assistant|>2<|end|><|user|>2?<|end|><|assistant|>"' in only


def test_a_prompt_that_ends_with_the_end_is_told() -> None:
    (only,) = told(NO_OPENING, [row("2?")])
    assert "ends the prompt with its end token '<|end|>'" in only


def test_a_long_prompt_is_shown_in_part() -> None:
    (only,) = told(NO_SYSTEM, [row("x" * 5000)])
    assert len(only) < 700


def test_special_tokens_in_questions_are_told() -> None:
    tokenizer = byte_tokenizer()
    chat = (Message(role="user", content="a <|bos|>"),)
    assert list(special_token_warnings(tokenizer, [row("1 < 2 |> 3", 1), row("<end>", 2)])) == []
    (only,) = special_token_warnings(tokenizer, [row("2?", 1), row("what is <|end|>?", 2), row(chat, 3)])
    assert only == (
        "rows.jsonl:2: the text '<|end|>' in the question (so in 1 more) is read as the special token of that name, by "
        "the tokenizer; take it out unless that is meant"
    )
    assert tokenizer("<|end|>", add_special_tokens=False)["input_ids"] == [1]


def test_the_end_of_a_turn_is_found() -> None:
    assert turn_end(byte_tokenizer()) == "<|end|>"
    assert turn_end(byte_tokenizer(CHAT_TEMPLATE.replace("<|end|>", "\n<|tool|> "))) == "<|tool|>"
    assert turn_end(byte_tokenizer("{{ raise_exception('no') }}")) is None
    assert turn_end(byte_tokenizer(None)) is None


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({}, {1}),
        ({"config.json": {"eos_token_id": 7}}, {1, 7}),
        ({"config.json": {"eos_token_id": 7}, "generation_config.json": {"eos_token_id": [8, 9]}}, {1, 8, 9}),
        ({"config.json": {"eos_token_id": None}}, {1}),
    ],
)
def test_end_tokens_are_those_of_the_engine(files: dict[str, object], ids: set[int], tmp_path: Path) -> None:
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    assert end_token_ids(byte_tokenizer(), tmp_path) == ids
