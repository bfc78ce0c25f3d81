"""Rows -> prompts, and prompts -> an endless stream that can be resumed at any point.

What a run is asked next is a pure function of (data, seed, index): the order of an epoch sorts the prompts by a
digest, so it does not depend on process, Python version or library, and a stream is restored by its index alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollout.config import ModelConfig, TaskConfig
from rollout.errors import ConfigError, DataError
from rollout.prompts.chat import tokenize_rows
from rollout.prompts.tasks import Split, TaskRows, load_rows
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReport:
    """What became of a split's rows. `num_prompts` are used; each other number counts rows left out, and why."""

    task: str
    split: Split
    num_prompts: int
    num_too_long: int
    """Prompts of more than `max_prompt_tokens` tokens."""
    num_duplicates: int
    num_in_eval: int
    skipped: Mapping[str, int]
    """Malformed rows: reason -> how many."""
    max_prompt_tokens: int
    """What `max_tokens` leaves of the context."""
    longest_tokens: int
    """Length of the longest prompt that is used."""
    data_fingerprint: str
    """SHA-256 (hex) of the rows, before template and tokenizer."""

    def __str__(self) -> str:
        left_out = [f"{self.num_too_long} longer than {self.max_prompt_tokens} tokens"] if self.num_too_long else []
        left_out += [f"{self.num_duplicates} duplicates"] if self.num_duplicates else []
        left_out += [f"{self.num_in_eval} that are evaluation questions"] if self.num_in_eval else []
        left_out += [f"{count} malformed ({reason})" for reason, count in self.skipped.items()]
        return f"{self.task}, {self.split}: {self.num_prompts} prompts, left out: {', '.join(left_out) or 'none'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """The prompts of one split, built once."""

    prompts: tuple[Prompt, ...]
    """In the order of the source; `epoch` is 0 and `index` the place in this tuple."""
    report: PromptReport
    fingerprint: str
    """SHA-256 (hex) of uids, token ids and ground truths: a stream is only restored on the same prompts."""

    def __len__(self) -> int:
        return len(self.prompts)


class PromptBuilder:
    """Builds the prompts of a task for one tokenizer."""

    def __init__(self, tokenizer: Any, task: TaskConfig, model: ModelConfig, *, max_tokens: int) -> None:
        """`max_tokens` is the longest completion. Raises ConfigError when it leaves no room for a prompt."""
        self._tokenizer = tokenizer
        self._task = task
        self._max_prompt_tokens = model.max_context_tokens - max_tokens
        if self._max_prompt_tokens < 1:
            raise ConfigError(
                f"max_tokens is {max_tokens}, which leaves no room for a prompt in model.max_context_tokens = "
                f"{model.max_context_tokens}; lower the first or raise the second"
            )

    def build(self, rows: TaskRows) -> PromptSet:
        """Raises DataError when every prompt is too long, or the chat template refuses a row."""
        prompts: list[Prompt] = []
        too_long: list[int] = []
        # Python makes a new int for each token; sharing equal ones takes 8 bytes a token instead of 36.
        shared: dict[int, int] = {}
        for row, token_ids in tokenize_rows(self._tokenizer, rows.rows, self._task):
            if len(token_ids) > self._max_prompt_tokens:
                too_long.append(len(token_ids))
                continue
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
        )
        return PromptSet(prompts=tuple(prompts), report=report, fingerprint=_fingerprint(prompts))


def build_prompts(
    tokenizer: Any,
    task: TaskConfig,
    model: ModelConfig,
    *,
    split: Split,
    max_tokens: int,
    eval_task: TaskConfig | None = None,
) -> PromptSet:
    """Loads the rows of a split and builds their prompts; `eval_task` as in `load_rows`.

    Errors: `DataError`, `ConfigError`.
    """
    rows = load_rows(task, split=split, eval_task=eval_task)
    return PromptBuilder(tokenizer, task, model, max_tokens=max_tokens).build(rows)


def prompt_uid(task: str, question: str) -> str:
    """16 hex digits that name a question in every epoch and run."""
    return hashlib.sha256(f"{task}\0{question}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStreamState:
    """Where a stream stands: all that a checkpoint needs.

    Example:
        PromptStreamState(index=96, seed=0, fingerprint="9f2c...")
    """

    index: int
    """Index of the prompt that comes next."""
    seed: int
    fingerprint: str
    """Of the prompt set."""


class PromptStream:
    """The prompts of a run, without end: every epoch gives each prompt once, in an order of its own."""

    def __init__(self, prompt_set: PromptSet, *, seed: int, index: int = 0) -> None:
        assert index >= 0, index
        self._prompt_set = prompt_set
        self._seed = seed
        self._index = index
        self._order_epoch = -1
        self._order: list[int] = []

    @classmethod
    def restore(cls, prompt_set: PromptSet, state: PromptStreamState) -> "PromptStream":
        """The stream as it was when `state` was taken. Costs one sort, wherever the stream stood.

        Raises DataError when the prompts are not those of the state.
        """
        if state.fingerprint != prompt_set.fingerprint:
            raise DataError(
                f"the prompts of task {prompt_set.report.task!r} are not those that the run was started with "
                f"(fingerprint {prompt_set.fingerprint[:12]}, the checkpoint has {state.fingerprint[:12]}); restore "
                "data, template, tokenizer and token limits, or start a new run"
            )
        return cls(prompt_set, seed=state.seed, index=state.index)

    def next(self) -> Prompt:
        """The next prompt, with its epoch and its index in the run."""
        prompts = self._prompt_set.prompts
        epoch, position = divmod(self._index, len(prompts))
        if epoch != self._order_epoch:
            self._order = epoch_order(tuple(prompt.uid for prompt in prompts), self._seed, epoch)
            self._order_epoch = epoch
        prompt = replace(prompts[self._order[position]], epoch=epoch, index=self._index)
        self._index += 1
        return prompt

    def state(self) -> PromptStreamState:
        """Where the stream stands, for `restore`."""
        return PromptStreamState(index=self._index, seed=self._seed, fingerprint=self._prompt_set.fingerprint)


def epoch_order(uids: tuple[str, ...], seed: int, epoch: int) -> list[int]:
    """A permutation of the prompts' places, as good as random and the same everywhere: sorted by a digest."""

    def key(place: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{uids[place]}".encode()).digest()

    return sorted(range(len(uids)), key=key)


def eval_prompts(prompt_set: PromptSet, num_prompts: int) -> tuple[Prompt, ...]:
    """`num_prompts` prompts (all, where there are fewer), the same ones each time, in the order of their digests.

    A larger number takes the smaller one's prompts and more, so that evaluations of two sizes share questions.
    """
    chosen = sorted(prompt_set.prompts, key=lambda prompt: prompt.uid)[:num_prompts]
    return tuple(replace(prompt, epoch=0, index=index) for index, prompt in enumerate(chosen))


def sample_seed(run_seed: int, purpose: str, epoch: int, prompt_uid: str, sample_index: int) -> int:
    """Seed of one completion, 0 to 2**63 - 1: what the engine's signed 64-bit seeds can hold.

    It depends on what is sampled, not on when or where: a group that is sampled again after a fault draws the same
    randomness.
    """
    key = json.dumps([run_seed, purpose, epoch, prompt_uid, sample_index]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) >> 1


def _fingerprint(prompts: list[Prompt]) -> str:
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps([prompt.uid, prompt.token_ids, prompt.ground_truth]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
