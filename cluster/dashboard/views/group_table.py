"""The table of groups: each group of which a completion passes a filter, as one row."""

from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.series import known
from cluster.dashboard.records import FoundGroup
from cluster.dashboard.views.groups import answer_key, clusters_of, flags_of
from cluster.dashboard.views.rollouts import field_list, finite
from cluster.dashboard.views.steps import mean_std

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore


def group_table(store: "RunStore", *, filter_text: str, sort: str, offset: int, limit: int) -> dict[str, Any]:
    """`/api/runs/{run}/group-table`. A group stands where its first completion stands in the table of rollouts. Raises
    FilterError where the filter or the sort does not parse."""
    page = store.query_groups(filter_text, sort, offset, limit)
    return {
        "rows": [_row(group) for group in page.groups],
        "total": page.total,
        "offset": page.offset,
        "sort": sort,
        "filter": filter_text,
        "fields": field_list(),
    }


def _row(group: FoundGroup) -> dict[str, Any]:
    rows, first = group.rows, group.rows[0]
    keys = [answer_key(row.answer) for row in rows]
    mean, std = mean_std(known([finite(row.reward) for row in rows]))
    judged = [row.correct for row in rows if row.correct is not None]
    return {
        "phase": first.phase,
        "step": first.step,
        "group_id": first.group_id,
        "uid": first.uid,
        "question": first.question,
        "truth": first.truth,
        "reward_mean": mean,
        "reward_std": std,
        "pass_rate": sum(judged) / len(judged) if judged else None,
        "num_correct": sum(judged),
        "num_passing": group.num_passing,
        "flags": [flag["kind"] for flag in flags_of(rows, first.truth, keys, clusters_of(rows, keys))],
        "cells": [
            {"sample_index": row.sample_index, "reward": finite(row.reward), "correct": row.correct} for row in rows
        ],
    }
