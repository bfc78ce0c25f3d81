"""The columns of exported rollouts: those of the run's tables, and what the index computes of each completion."""

from collections.abc import Mapping

from cluster.columns import ROLLOUT_COLUMNS
from cluster.dashboard.index.filter_fields import BY_NAME

JSON_COLUMNS = ("components", "version_spans", "episode")
"""JSON as text in the run's tables; a value of its own in JSON lines."""
COMPUTED: Mapping[str, str] = {
    "length": "int64",  # sampled tokens
    "entropy": "float64",
    "max_gap": "float64",
    "k3": "float64",
    "repetition": "float64",
    "turns": "int64",
    "tool_calls": "int64",
    "episode_outcome": "string",
    "lag": "int64",
}
"""Name -> kind; what each means stands in `FIELDS` of the filter language."""
assert set(COMPUTED) <= set(BY_NAME)

TOKEN_COLUMNS = tuple(name for name, kind in ROLLOUT_COLUMNS.items() if kind.startswith("list<"))
"""A value for each token: by far the greater part of a run's bytes."""


def exported_columns(*, tokens: bool) -> dict[str, str]:
    """Name -> kind, in the order of the export."""
    stored = {name: kind for name, kind in ROLLOUT_COLUMNS.items() if tokens or name not in TOKEN_COLUMNS}
    return {"phase": "string", **stored, **COMPUTED}
