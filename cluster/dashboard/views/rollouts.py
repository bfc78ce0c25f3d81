"""The table of rollouts and one rollout with its tokens."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.settings import setting
from cluster.dashboard.figures.token_term import token_term
from cluster.dashboard.index.filter_fields import FIELDS
from cluster.dashboard.records import GroupAddress, RolloutRecord, RolloutRow
from rollout.episode_types import EpisodeFacts

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

_ROW_FIELDS = tuple(field.name for field in fields(RolloutRow))
_DECIMALS = 7
"""Of log-probabilities: all that float32 has near 1, and half the JSON."""


def rollout_table(store: "RunStore", *, filter_text: str, sort: str, offset: int, limit: int) -> dict[str, Any]:
    """`/api/runs/{run}/rollouts`. Raises FilterError where the filter or the sort does not parse."""
    started_s = time.perf_counter()
    page = store.query(filter_text, sort, offset, limit)
    return {
        "rows": [row_of(row) | {"annotation": annotation_of(store, row)} for row in page.rows],
        "total": page.total,
        "means": store.means(filter_text, sort),
        "offset": page.offset,
        "sort": sort,
        "filter": filter_text,
        "fields": field_list(),
        "elapsed_ms": round((time.perf_counter() - started_s) * 1000, 3),
    }


def field_list() -> list[dict[str, Any]]:
    """What a filter may compare."""
    return [
        {
            "name": field.name,
            "type": field.type,
            "help": field.help,
            "aliases": list(field.aliases),
            "sortable": field.sortable,
        }
        for field in FIELDS
    ]


def rollout_page(store: "RunStore", address: GroupAddress, sample_index: int) -> dict[str, Any] | None:
    """`/api/runs/{run}/rollouts/{address}`; None when there is no such rollout."""
    record = store.rollout(address, sample_index)
    if record is None:
        return None
    siblings = group_rows(store, address)
    return row_of(record.row) | {
        "annotation": annotation_of(store, record.row),
        "text": record.text,
        "prompt_text": record.prompt_text,
        "detail": record.detail,
        "score_s": record.score_s,
        "attempt": record.attempt,
        "reward_worker": record.reward_worker,
        "tokens": _tokens(record, store.vocabulary()),
        "episode": None if record.episode is None else _episode(record.episode, record.question),
        "prompt_tokens": {
            "ids": list(record.prompt_token_ids),
            "pieces": _pieces(record.prompt_token_ids, store.vocabulary()),
        },
        "objective": asdict(token_term(store.config())),
        "updates_per_batch": setting(store.config(), "learner.updates_per_batch", int),
        "siblings": [
            {"sample_index": row.sample_index, "reward": finite(row.reward), "correct": row.correct} for row in siblings
        ],
        "previous": _beside(store, address, siblings, sample_index, -1),
        "next": _beside(store, address, siblings, sample_index, +1),
    }


def row_of(row: RolloutRow) -> dict[str, Any]:
    """A row of the API: the fields of RolloutRow."""
    values = {name: getattr(row, name) for name in _ROW_FIELDS}
    values["components"] = {name: finite(value) for name, value in row.components.items()}
    return {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}


def annotation_of(store: "RunStore", row: RolloutRow) -> dict[str, Any]:
    """What people noted of it."""
    return asdict(store.annotations.of(row.address, row.sample_index))


def group_rows(store: "RunStore", address: GroupAddress) -> list[RolloutRow]:
    """The rows of a group, in the order of the samples; from the index alone."""
    return [row for row in store.step_rows(address.phase, address.step) if row.group_id == address.group_id]


def address_text(address: GroupAddress | None, sample_index: int | None = None) -> str | None:
    """An address of the API: `train/4/000032-5f1c09be12aa03d4`, with a sample `.../0`."""
    if address is None:
        return None
    group = f"{address.phase}/{address.step}/{address.group_id}"
    return group if sample_index is None else f"{group}/{sample_index}"


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _beside(
    store: "RunStore", address: GroupAddress, siblings: Sequence[RolloutRow], sample_index: int, direction: int
) -> str | None:
    """The rollout before (-1) or after (+1): in the group, else the nearest one of the group beside it."""
    order = [row.sample_index for row in siblings]
    place = (order.index(sample_index) if sample_index in order else 0) + direction
    if 0 <= place < len(order):
        return address_text(address, order[place])
    neighbour = store.neighbours(address)[0 if direction < 0 else 1]
    if neighbour is None:
        return None
    rows = group_rows(store, neighbour)
    return address_text(neighbour, rows[-1 if direction < 0 else 0].sample_index) if rows else None


def _tokens(record: RolloutRecord, vocabulary: Sequence[str] | None) -> dict[str, Any]:
    """Every list is [T]; None where the learner computed none."""
    versions = [-1] * len(record.token_ids)
    for version, start, end in record.version_spans:
        versions[start:end] = [version] * (min(end, len(versions)) - start)
    return {
        "ids": list(record.token_ids),
        "pieces": _pieces(record.token_ids, vocabulary),
        "rollout_logprobs": _rounded(record.rollout_logprobs),
        "policy_logprobs": _rounded(record.policy_logprobs) or None,
        "ref_logprobs": _rounded(record.ref_logprobs) or None,
        "entropies": _rounded(record.entropies) or None,
        "loss_mask": list(record.loss_mask),
        "versions": versions,
    }


def _episode(episode: EpisodeFacts, opening: str) -> dict[str, Any]:
    """Its turns in their order, each with its tokens and, where these were noted, its words."""
    spoken = (*episode.spoken, *[None] * (len(episode.turns) - len(episode.spoken)))
    return {
        "opening": opening,
        "outcome": episode.outcome,
        "scores": {name: finite(value) for name, value in episode.scores.items()},
        "num_attempts": episode.num_attempts,
        "num_tool_calls": episode.num_tool_calls,
        "seconds": episode.seconds or None,
        "world_s": episode.world_s if episode.seconds else None,
        "turns": [
            {
                "start": turn.start,
                "end": turn.end,
                "finish": turn.finish,
                "text": None if words is None else words.text,
                "calls": [] if words is None else [{"name": name, "arguments": told} for name, told in words.calls],
                "heard": [] if words is None else [asdict(message) for message in words.heard],
            }
            for turn, words in zip(episode.turns, spoken, strict=False)
        ],
    }


def _pieces(ids: Sequence[int], vocabulary: Sequence[str] | None) -> list[str] | None:
    """Models have more rows than their tokenizer has pieces; such an id is shown as a number."""
    if vocabulary is None:
        return None
    return [vocabulary[id] if 0 <= id < len(vocabulary) else f"<{id}>" for id in ids]


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [round(value, _DECIMALS) if math.isfinite(value) else None for value in values]
