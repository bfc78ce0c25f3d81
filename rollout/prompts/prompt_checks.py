"""What a chat template and a tokenizer do to prompts without a word, as sentences that warn of it. A template may mean
what it does, so none of these ends a run; the rendered prompt is shown, for a person to judge."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rollout.config import TaskConfig
from rollout.episodes.environment import Message
from rollout.prompts.chat import ask_template, describes_tools, messages_for, told_in_words
from rollout.prompts.rows import TaskRow

MAX_FORMS = 8
"""Orders of roles that are looked at; rows of a task have one or two."""
SHOWN_CHARACTERS = 400
PROBE_ANSWER = "probe-answer-42"


def template_warnings(tokenizer: Any, rows: Sequence[TaskRow], task: TaskConfig) -> Iterator[str]:
    """Turns that the chat template leaves out, and prompts that end where a turn has ended, one row of each form."""
    if not tokenizer.chat_template:
        return
    for row, messages in _forms(rows, task):
        tools = row.tools
        if tools and describes_tools(tokenizer, tools):
            messages, tools = told_in_words(tokenizer, messages, tools), ()
        (text,) = ask_template(tokenizer, [messages], tokenize=False, tools=tools)
        for message in messages:
            if message.content.strip() not in text:
                yield (
                    f"{row.source}: the model's chat template leaves out {_what(message, row, task)}; it gives "
                    f"{shown(text)}; {_instead(message)}, or take another model"
                )
                break
        end = tokenizer.eos_token
        if end and text.rstrip().endswith(end):
            yield (
                f"{row.source}: the model's chat template ends the prompt with its end token {end!r}, so that the "
                f"model is asked after the end; it gives {shown(text)}; add what opens the assistant's turn to the "
                "template (add_generation_prompt), or take another model"
            )


def special_token_warnings(tokenizer: Any, rows: Sequence[TaskRow]) -> Iterator[str]:
    """Questions in which a special token stands as text: a tokenizer makes the token of it, an end in the middle."""
    tokens = sorted((token for token in map(str, tokenizer.all_special_tokens) if token.strip()), key=len, reverse=True)
    if not tokens:
        return
    any_of = re.compile("|".join(map(re.escape, tokens)))
    hits = [(row, hit[0]) for row in rows if (hit := any_of.search(row.question_text))]
    if hits:
        (row, token), others = hits[0], len(hits) - 1
        more = f" (so in {others} more)" if others else ""
        yield (
            f"{row.source}: the text {token!r} in the question{more} is read as the special token of that name, by the "
            "tokenizer; take it out unless that is meant"
        )


def end_token_ids(tokenizer: Any, model_dir: Path) -> frozenset[int]:
    """The model's own end tokens, as the engine finds them: the tokenizer's, and those of generation_config.json, or of
    config.json where there is none."""
    found: set[int] = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
    for name in ("generation_config.json", "config.json"):
        path = model_dir / name
        if path.is_file():
            ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            found.update(int(i) for i in (ids if isinstance(ids, list) else [ids]) if i is not None)
            break
    return frozenset(found)


def turn_end(tokenizer: Any) -> str | None:
    """The special token with which the chat template ends a turn of the assistant; None where it has none, or cannot
    be found out."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE_ANSWER}]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # noqa: BLE001  # the template is a program that came with the model, and this is only a question
        return None
    _, probe, behind = text.rpartition(PROBE_ANSWER)
    special = [str(token.content) for token in tokenizer.added_tokens_decoder.values()]
    starts = [token for token in special if token.strip() and behind.lstrip().startswith(token.strip())]
    return max(starts, key=len).strip() if probe and starts else None


def shown(text: str) -> str:
    """A prompt within a sentence: on one line, its middle left out when it is long."""
    half = SHOWN_CHARACTERS // 2
    return json.dumps(
        text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}", ensure_ascii=False
    )


def _forms(rows: Sequence[TaskRow], task: TaskConfig) -> Iterator[tuple[TaskRow, tuple[Message, ...]]]:
    """The first row of each order of roles, with its turns."""
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        form = ("text",) if isinstance(row.question, str) else tuple(message.role for message in row.question)
        if form not in seen:
            seen.add(form)
            yield row, messages_for(row, task)
        if len(seen) == MAX_FORMS:
            return


def _what(message: Message, row: TaskRow, task: TaskConfig) -> str:
    if message.role == "system":
        own = not isinstance(row.question, str) and message in row.question
        return "the system turn of the row" if own else "the system turn (task.system_prompt)"
    if message.content in (answer for _, answer in task.few_shot):
        return f"or changes the answer {shown(message.content)} of task.few_shot"
    return f"or changes a turn of the {message.role}, {shown(message.content)}"


def _instead(message: Message) -> str:
    if message.role == "system":
        return "say it in task.template, before {question}"
    return "mend the template" if message.role == "user" else "leave out what the template removes"
