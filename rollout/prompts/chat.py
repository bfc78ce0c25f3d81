"""Questions -> token ids: turns, the tokenizer's chat template, and loading the tokenizer."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout.config import TaskConfig
from rollout.episodes.environment import Message
from rollout.episodes.tool_prompt import described, knows_tools, takes_system
from rollout.errors import DataError, ModelError
from rollout.module_loading import loading_modules
from rollout.prompts.demonstrations import Demonstrations
from rollout.prompts.rows import TaskRow

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""A model's directory holds at least one of these when it has a tokenizer."""

RENDER_BATCH = 512
"""Rows rendered and tokenised together: enough for the tokenizer's own threads, little enough to stay in cache."""


def load_tokenizer(model_dir: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a Hugging Face directory. Never asks the hub. Raises ModelError when there is none."""
    folder = Path(model_dir)
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder, so that it has no tokenizer; set model.path to a model's directory")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}); copy the model's there")
    with loading_modules():
        from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # a broken file makes the tokenizers library raise a plain Exception
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {detail}") from error
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        raise ModelError(
            f"the tokenizer in {folder} has the chat templates {', '.join(map(repr, templates))} and none of them is "
            "the default one; copy the one that is meant to chat_template.jinja there"
        )
    return tokenizer


def messages_for(row: TaskRow, task: TaskConfig) -> tuple[Message, ...]:
    """The turns that a row's question is asked with: system, few-shot, question.

    A conversation's own system turn takes the place of `system_prompt`, since chat templates take one system turn;
    `template` is applied to its last user turn.
    """
    turns = (Message(role="user", content=row.question),) if isinstance(row.question, str) else row.question
    system: tuple[Message, ...] = ()
    if turns[0].role == "system":
        system, turns = turns[:1], turns[1:]
    elif task.system_prompt is not None:
        system = (Message(role="system", content=task.system_prompt),)
    shots = [
        Message(role=role, content=content)
        for question, answer in task.few_shot
        for role, content in (("user", fill_template(task.template, question)), ("assistant", answer))
    ]
    if turns and turns[-1].role == "user":
        asked = Message(role="user", content=fill_template(task.template, turns[-1].content))
        turns = (*turns[:-1], asked)
    return (*system, *shots, *turns)


def fill_template(template: str, question: str) -> str:
    """`template` with the question in it. Not str.format: questions and templates hold braces (LaTeX, JSON, code)."""
    return template.replace("{question}", question)


def plain_text(messages: Sequence[Message]) -> str:
    """The turns for a tokenizer without chat template: an answer follows its question as a completion would, after a
    blank; everything else is set off by an empty line."""
    text = ""
    for message in messages:
        if text and message.role == "assistant":
            text += "" if text[-1].isspace() else " "
        elif text:
            text += "\n\n"
        text += message.content
    return text


def tokenize_rows(
    tokenizer: Any, rows: Sequence[TaskRow], task: TaskConfig, demonstrations: Demonstrations | None = None
) -> Iterator[tuple[TaskRow, list[int]]]:
    """Each row with its prompt's token ids, ready for the assistant to answer; with `demonstrations` as a teacher reads
    it.

    Raises DataError when the chat template refuses a row's turns, or a row has no demonstration.
    """
    for start in range(0, len(rows), RENDER_BATCH):
        batch = rows[start : start + RENDER_BATCH]
        yield from zip(batch, _tokenize_batch(tokenizer, batch, task, demonstrations), strict=True)


def describes_tools(tokenizer: Any, tools: Sequence[Mapping[str, object]]) -> bool:
    """Whether tools are told in words: always without a chat template that knows how to tell them."""
    try:
        return not knows_tools(tokenizer, tools)
    except Exception as error:  # a template is a program that came with the model: it may raise anything
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"the model's chat template refuses tools: {detail}; take another model") from error


def told_in_words(
    tokenizer: Any, turns: Sequence[Message], tools: Sequence[Mapping[str, object]]
) -> tuple[Message, ...]:
    """The turns with the tools as a model is told of them whose template has no place for them."""
    return tuple(described(turns, tools, has_system=takes_system(tokenizer)))


def ask_template(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    tokenize: bool,
    tools: Sequence[Mapping[str, object]] = (),
) -> list[Any]:
    """Each conversation through the chat template, as token ids or as text, with schemas of tools that it knows how to
    tell. Errors: whatever a template raises."""
    turns = [[turn.as_template_input() for turn in messages] for messages in conversations]
    # return_dict=False: since transformers 5 the default is a BatchEncoding, whose items are its keys.
    rendered: list[Any] = tokenizer.apply_chat_template(
        turns, tools=[*tools] or None, add_generation_prompt=True, tokenize=tokenize, return_dict=False
    )
    return rendered


def _tokenize_batch(
    tokenizer: Any, rows: Sequence[TaskRow], task: TaskConfig, demonstrations: Demonstrations | None
) -> list[list[int]]:
    if demonstrations is not None and demonstrations.few_shot:
        task = task.model_copy(update={"few_shot": demonstrations.few_shot})
    conversations = [messages_for(row, task) for row in rows]
    if demonstrations is not None:
        conversations = [demonstrations.shown_in(turns, row) for turns, row in zip(conversations, rows, strict=True)]
    tools = rows[0].tools  # those of a task's one environment
    if tools and describes_tools(tokenizer, tools):
        conversations = [told_in_words(tokenizer, turns, tools) for turns in conversations]
        tools = ()
    if not tokenizer.chat_template:
        token_ids = _tokenize_texts(tokenizer, [plain_text(messages) for messages in conversations])
    else:
        try:
            token_ids = ask_template(tokenizer, conversations, tokenize=True, tools=tools)
        except Exception as error:  # a template is a program that came with the model: it may raise anything
            if len(rows) > 1:  # find the row: most templates refuse an order of roles
                for row in rows:
                    _tokenize_batch(tokenizer, [row], task, demonstrations)
            roles = ", ".join(turn.role for turn in conversations[0])
            detail = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(
                f"{rows[0].source}: the model's chat template refuses turns of roles {roles}: {detail}; change "
                "task.system_prompt or task.few_shot, or take another model"
            ) from error
    assert len(token_ids) == len(rows), (len(token_ids), len(rows))
    for row, ids in zip(rows, token_ids, strict=True):
        if not ids:
            raise DataError(f"{row.source}: the question gives no tokens; the tokenizer does not know its characters")
    return token_ids


def _tokenize_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """[len(texts)] token ids, with the special tokens that the tokenizer puts before a text: a base model expects its
    beginning-of-text token. Those that it puts behind one are left out: after an end token nothing is asked."""
    token_ids: list[list[int]] = tokenizer(list(texts))["input_ids"]
    for text, whole in zip(texts, token_ids, strict=True):
        bare: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
        if bare and len(starts) == 1:  # else the text is itself an end token, and does not tell; the next one does
            num_behind = len(whole) - len(bare) - starts[0]
            return [ids[: len(ids) - num_behind] for ids in token_ids]
    return token_ids
