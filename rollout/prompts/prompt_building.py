"""Rows -> the prompts of a split: template, tokens, length, and the digests that name them."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from rollout.config import ModelConfig, TaskConfig
from rollout.errors import ConfigError, DataError
from rollout.prompts.chat import tokenize_rows
from rollout.prompts.demonstrations import Demonstrations
from rollout.prompts.prompt_checks import special_token_warnings, template_warnings
from rollout.prompts.prompt_set import PromptReport, PromptSet
from rollout.prompts.tasks import load_rows
from rollout.prompts.teacher_names import TeacherNames
from rollout.prompts.usable_rows import Split, TaskRows
from rollout.types import Prompt


class PromptBuilder:
    """Builds the prompts of a task for one tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        task: TaskConfig,
        model: ModelConfig,
        *,
        max_tokens: int,
        demonstrations: Demonstrations | None = None,
        teachers: TeacherNames | None = None,
    ) -> None:
        """`max_tokens` is the longest completion; with `demonstrations` each prompt is there as a teacher reads it too,
        with `teachers` it names its own. Raises ConfigError when no room is left for a prompt."""
        self._tokenizer = tokenizer
        self._demonstrations = demonstrations
        self._teachers = teachers
        self._task = task
        self._max_prompt_tokens = model.max_context_tokens - max_tokens
        if self._max_prompt_tokens < 1:
            raise ConfigError(
                f"max_tokens is {max_tokens}, which leaves no room for a prompt in model.max_context_tokens = "
                f"{model.max_context_tokens}; lower the first or raise the second"
            )

    def build(self, rows: TaskRows) -> PromptSet:
        """Raises DataError when every prompt is too long, the chat template refuses a row, or no teacher is for it."""
        prompts: list[Prompt] = []
        sources: list[str] = []
        too_long: list[int] = []
        # Python makes a new int for each token; sharing equal ones takes 8 bytes a token instead of 36.
        shared: dict[int, int] = {}
        for (row, token_ids), shown_ids in zip(
            tokenize_rows(self._tokenizer, rows.rows, self._task), self._shown_to_teacher(rows), strict=False
        ):
            longest = max(len(token_ids), len(shown_ids))
            if longest > self._max_prompt_tokens:
                too_long.append(longest)
                continue
            sources.append(row.source)
            prompts.append(
                Prompt(
                    uid=prompt_uid(rows.name, row.question_text),
                    epoch=0,
                    index=len(prompts),
                    token_ids=tuple(shared.setdefault(token, token) for token in token_ids),
                    text=self._tokenizer.decode(token_ids, skip_special_tokens=False),
                    question=row.question_text,
                    ground_truth=row.ground_truth,
                    task=rows.name,
                    row=row.columns,
                    teacher_token_ids=tuple(shared.setdefault(token, token) for token in shown_ids),
                    teacher="" if self._teachers is None else self._teachers.of(row),
                )
            )
        if not prompts:
            raise DataError(
                f"task {rows.name!r}: all {len(too_long)} prompts for {rows.split} are longer than "
                f"{self._max_prompt_tokens} tokens, the shortest has {min(too_long)}; raise model.max_context_tokens "
                "or lower max_tokens"
            )
        assert len({prompt.uid for prompt in prompts}) == len(prompts), "questions are unique, so are their digests"
        report = PromptReport(
            task=rows.name,
            split=rows.split,
            num_prompts=len(prompts),
            num_too_long=len(too_long),
            num_duplicates=rows.num_duplicates,
            num_in_eval=rows.num_in_eval,
            skipped=rows.skipped,
            max_prompt_tokens=self._max_prompt_tokens,
            longest_tokens=max(len(prompt.token_ids) for prompt in prompts),
            data_fingerprint=rows.fingerprint,
            warnings=(
                *template_warnings(self._tokenizer, rows.rows, self._task),
                *special_token_warnings(self._tokenizer, rows.rows),
            ),
        )
        return PromptSet(
            prompts=tuple(prompts), report=report, fingerprint=_fingerprint(prompts), sources=tuple(sources)
        )

    def _shown_to_teacher(self, rows: TaskRows) -> Iterator[Sequence[int]]:
        """The token ids of each row's prompt with its demonstration; nothing where none is asked for."""
        if self._demonstrations is None:
            return itertools.repeat(())
        shown = tokenize_rows(self._tokenizer, rows.rows, self._task, self._demonstrations)
        return (token_ids for _, token_ids in shown)


def build_prompts(  # noqa: PLR0913  # all that a prompt depends on
    tokenizer: Any,
    task: TaskConfig,
    model: ModelConfig,
    *,
    split: Split,
    max_tokens: int,
    held_out: Collection[str] = (),
    demonstrations: Demonstrations | None = None,
    teachers: TeacherNames | None = None,
) -> PromptSet:
    """Loads the rows of a split and builds their prompts; `held_out` as in `load_rows`, `demonstrations` and `teachers`
    as in `PromptBuilder`.

    Errors: `DataError`, `ConfigError`.
    """
    rows = load_rows(task, split=split, held_out=held_out)
    builder = PromptBuilder(
        tokenizer, task, model, max_tokens=max_tokens, demonstrations=demonstrations, teachers=teachers
    )
    return builder.build(rows)


def without(prompt_set: PromptSet, places: Collection[int], why: str) -> PromptSet:
    """The set without the prompts at these places, which are counted as rows left out, under `why`."""
    kept = [prompt for place, prompt in enumerate(prompt_set.prompts) if place not in places]
    prompts = tuple(replace(prompt, index=index) for index, prompt in enumerate(kept))
    report = replace(
        prompt_set.report,
        num_prompts=len(prompts),
        skipped={**prompt_set.report.skipped, why: len(prompt_set) - len(prompts)},
        longest_tokens=max((len(prompt.token_ids) for prompt in prompts), default=0),
    )
    sources = tuple(source for place, source in enumerate(prompt_set.sources) if place not in places)
    return PromptSet(prompts=prompts, report=report, fingerprint=_fingerprint(prompts), sources=sources)


def joined(sets: Sequence[PromptSet]) -> PromptSet:
    """The prompts of several tasks as one set, in the order of the tasks; one set is itself."""
    if len(sets) == 1:
        return sets[0]
    prompts = tuple(replace(p, index=index) for index, p in enumerate(prompt for of in sets for prompt in of.prompts))
    reports = [of.report for of in sets]
    skipped: Counter[str] = Counter()
    for report in reports:
        skipped.update(report.skipped)
    report = replace(
        reports[0],
        task=", ".join(report.task for report in reports),
        num_prompts=len(prompts),
        num_too_long=sum(report.num_too_long for report in reports),
        num_duplicates=sum(report.num_duplicates for report in reports),
        num_in_eval=sum(report.num_in_eval for report in reports),
        skipped=dict(skipped),
        longest_tokens=max(report.longest_tokens for report in reports),
        data_fingerprint=hashlib.sha256("".join(report.data_fingerprint for report in reports).encode()).hexdigest(),
        warnings=tuple(dict.fromkeys(warning for report in reports for warning in report.warnings)),
    )
    sources = tuple(source for of in sets for source in of.sources)
    return PromptSet(prompts=prompts, report=report, fingerprint=_fingerprint(prompts), sources=sources)


def prompt_uid(task: str, question: str) -> str:
    """16 hex digits that name a question in every epoch and run."""
    return hashlib.sha256(f"{task}\0{question}".encode()).hexdigest()[:16]


def _fingerprint(prompts: Sequence[Prompt]) -> str:
    digest = hashlib.sha256()
    for prompt in prompts:
        shown = [of_teacher for of_teacher in (prompt.teacher_token_ids, prompt.teacher) if of_teacher]
        digest.update(json.dumps([prompt.uid, prompt.token_ids, prompt.ground_truth, *shown]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
