"""Completions of a step as a small table for trackers that have tables. The run's own tables have all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.record.group_table import OpenGroup
from learner.types import CompletionKey

COLUMNS = (
    *("step", "group_id", "sample_index", "question", "completion", "answer", "ground_truth"),
    *("reward", "correct", "advantage", "finish", "tokens"),
)
MAX_CHARS = 4000
"""Of a question or completion: each table is sent over a network and drawn by a browser."""

Cell = str | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerTable:
    """Rows of COLUMNS."""

    step: int
    rows: tuple[tuple[Cell, ...], ...]


def tracker_table(
    step: int, groups: Sequence[OpenGroup], advantages: Mapping[CompletionKey, float | None], num_rows: int
) -> TrackerTable:
    """The first `num_rows` completions in order of dispatch, so that groups stand together."""
    rows: list[tuple[Cell, ...]] = []
    for of in groups:
        prompt, group_id = of.group.prompt, of.group.group_id
        for completion, result in zip(of.group.completions, of.scored.rewards, strict=True):
            if len(rows) == num_rows:
                return TrackerTable(step=step, rows=tuple(rows))
            rows.append(
                (
                    *(step, group_id, completion.sample_index, _text(prompt.question), _text(completion.text)),
                    *(_text(result.answer), _text(prompt.ground_truth), result.reward, result.correct),
                    advantages.get((group_id, completion.sample_index)),
                    *(completion.finish_reason.value, completion.num_sampled_tokens),
                )
            )
    return TrackerTable(step=step, rows=tuple(rows))


def _text(text: str | None) -> str | None:
    """Without lone surrogates, which no service takes, and not longer than anybody reads in a table."""
    if text is None:
        return None
    shown = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ... {len(text) - MAX_CHARS} more characters"
    return shown.encode("utf-8", "backslashreplace").decode()
