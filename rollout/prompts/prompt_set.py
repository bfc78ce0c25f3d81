"""Rows -> the prompts of a split, built once: tokens, digests that name them, and what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.prompts.usable_rows import Split
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
    warnings: tuple[str, ...] = ()
    """Sentences on what chat template and tokenizer do to these prompts (`prompt_checks`)."""

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
    sources: tuple[str, ...] = ()
    """Where the row of each prompt came from, "file:line", for messages; empty where nobody said."""

    def __len__(self) -> int:
        return len(self.prompts)
