"""What the policy reads, token by token."""

from pathlib import Path

import pytest

from rollout.config import JsonlTask
from rollout.episodes.environment import Message
from rollout.errors import DataError, ModelError
from rollout.prompts.chat import RENDER_BATCH, fill_template, load_tokenizer, messages_for, plain_text, tokenize_rows
from rollout.prompts.rows import TaskRow
from tests.rollout.byte_tokenizer import CHAT_TEMPLATE, STRICT_TEMPLATE, byte_tokenizer

TASK = JsonlTask(
    path="unused",
    template="Q: {question}",
    system_prompt="Be brief.",
    few_shot=(("1+1?", "2"), ("1+2?", "3")),
)


def row(question: str | tuple[Message, ...]) -> TaskRow:
    return TaskRow(question=question, ground_truth=None, source="rows.jsonl:1")


def turns(task: JsonlTask, question: str | tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages_for(row(question), task)]


def test_system_few_shot_and_question_in_this_order() -> None:
    assert turns(TASK, "2+2?") == [
        ("system", "Be brief."),
        ("user", "Q: 1+1?"),
        ("assistant", "2"),
        ("user", "Q: 1+2?"),
        ("assistant", "3"),
        ("user", "Q: 2+2?"),
    ]


def test_braces_are_text() -> None:
    assert fill_template("{x} \\boxed{} {question}!", "{0} {question} %s") == "{x} \\boxed{} {0} {question} %s!"


def test_a_conversations_own_system_turn_is_the_only_one() -> None:
    chat = (Message(role="system", content="Own."), Message(role="user", content="2+2?"))
    bare = TASK.model_copy(update={"few_shot": ()})
    assert turns(bare, chat) == [("system", "Own."), ("user", "Q: 2+2?")]
    assert turns(TASK, chat)[:2] == [("system", "Own."), ("user", "Q: 1+1?")]


def test_plain_text_puts_answers_where_a_completion_would_be() -> None:
    assert plain_text(messages_for(row("2+2?"), TASK)) == "Be brief.\n\nQ: 1+1? 2\n\nQ: 1+2? 3\n\nQ: 2+2?"
    ending_in_a_line = TASK.model_copy(update={"template": "{question}\n", "system_prompt": None})
    assert plain_text(messages_for(row("2+2?"), ending_in_a_line)) == "1+1?\n2\n\n1+2?\n3\n\n2+2?\n"


def test_the_chat_template_is_applied_with_its_special_tokens() -> None:
    tokenizer = byte_tokenizer()
    ((_, token_ids),) = tokenize_rows(tokenizer, [row("é?")], JsonlTask(path="unused"))
    end, user, assistant = 1, 3, 4
    assert (token_ids[0], token_ids[-2], token_ids[-1]) == (user, end, assistant)
    assert len(token_ids) == 3 + 3  # "é" is two bytes, "?" one
    assert tokenizer.decode(token_ids, skip_special_tokens=False) == "<|user|>é?<|end|><|assistant|>"


def test_without_a_chat_template_the_tokenizer_adds_its_own_special_tokens() -> None:
    tokenizer = byte_tokenizer(chat_template=None)
    ((_, token_ids),) = tokenize_rows(tokenizer, [row("2?")], JsonlTask(path="unused"))
    assert len(token_ids) == 3
    assert tokenizer.decode(token_ids, skip_special_tokens=False) == "<|bos|>2?"


@pytest.mark.parametrize("template", ["<|bos|> $A <|end|>", "$A <|end|>", "<|bos|> $A <|end|> <|end|>"])
def test_what_a_tokenizer_puts_behind_a_text_is_no_part_of_the_prompt(template: str) -> None:
    from tokenizers import processors

    tokenizer = byte_tokenizer(chat_template=None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<|bos|>", 0), ("<|end|>", 1)]
    )
    before = "<|bos|>" if template.startswith("<|bos|>") else ""
    asked = [row("2?"), row("<|end|>"), row("é<|end|>")]
    for rows in (asked, asked[1:], asked[:1]):
        for item, token_ids in tokenize_rows(tokenizer, rows, JsonlTask(path="unused")):
            assert tokenizer.decode(token_ids, skip_special_tokens=False) == before + str(item.question)


def test_batches_give_what_single_rows_give() -> None:
    tokenizer = byte_tokenizer()
    rows = [row(f"{n} + {n}?") for n in range(RENDER_BATCH + 3)]
    together = list(tokenize_rows(tokenizer, rows, TASK))
    assert [item for item, _ in together] == rows
    for place in (0, RENDER_BATCH - 1, RENDER_BATCH, RENDER_BATCH + 2):
        ((_, alone),) = tokenize_rows(tokenizer, [rows[place]], TASK)
        assert together[place][1] == alone


def test_a_template_that_refuses_names_the_row_and_the_roles() -> None:
    plain = TaskRow(question="a?", ground_truth=None, source="rows.jsonl:1")
    own_system = (Message(role="system", content="s"), Message(role="user", content="b?"))
    refused = TaskRow(question=own_system, ground_truth=None, source="rows.jsonl:2")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*roles system, user: System role not supported"):
        list(tokenize_rows(byte_tokenizer(STRICT_TEMPLATE), [plain, refused], JsonlTask(path="unused")))


def test_a_saved_tokenizer_is_loaded_with_its_template(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    ((_, before),) = tokenize_rows(byte_tokenizer(), [row("2?")], TASK)
    ((_, after),) = tokenize_rows(loaded, [row("2?")], TASK)
    assert before == after


def test_a_directory_without_a_usable_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": 1}')
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_default_template(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"tool_use": "{{ messages }}", "rag": "{{ messages }}"}
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has the chat templates '(tool_use|rag)', '(rag|tool_use)' and none of them"):
        load_tokenizer(tmp_path)
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "rag": "{{ messages }}"}
    tokenizer.save_pretrained(tmp_path / "with")
    ((_, token_ids),) = tokenize_rows(load_tokenizer(tmp_path / "with"), [row("2?")], JsonlTask(path="unused"))
    assert tokenizer.decode(token_ids, skip_special_tokens=False) == "<|user|>2?<|end|><|assistant|>"


@pytest.mark.parametrize("broken", ["{{ messages[0]['content'] + 3 }}", "{% for %}", "{{ messages[7].x.y }}"])
def test_a_template_that_fails_names_the_row(broken: str) -> None:
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: the model's chat template refuses turns of roles user: "
    ) as caught:
        list(tokenize_rows(byte_tokenizer(broken), [row("2?")], JsonlTask(path="unused")))
    assert "\n" not in str(caught.value)
