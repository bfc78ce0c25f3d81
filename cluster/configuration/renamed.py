"""Keys that had another name in runs of before: their configurations are read as if they had been written today."""

from collections.abc import Mapping
from typing import Any

OLD_OBJECTIVE = "learner.grpo"
MOVED = {
    "clip_eps": "surrogate.eps",
    "clip_eps_high": "surrogate.eps_high",
    "kl_coef": "kl.coef",
    "advantage_std": "advantage.scale",
}
"""Key below `learner.grpo` -> key below `learner.objective`."""


def upgraded(values: Any) -> Any:
    """Plain values of a configuration with the names of today. What is no configuration is returned as it is."""
    learner = values.get("learner") if isinstance(values, Mapping) else None
    old = learner.get("grpo") if isinstance(learner, Mapping) else None
    if not isinstance(old, Mapping):
        return values
    objective: dict[str, Any] = {}
    for key, value in old.items():
        part, _, name = MOVED.get(key, f"{key}.").partition(".")
        if key == "advantage_std":
            value = "group_std" if value else "none"
        if name:
            objective.setdefault(part, {})[name] = value
        else:
            objective[part] = value  # a key that no configuration had: it is for the check to name
    assert isinstance(learner, Mapping)
    rest = {key: value for key, value in learner.items() if key != "grpo"}
    return {**values, "learner": {**rest, "objective": objective}}


def renamed_key(values: Mapping[str, Any]) -> str | None:
    """A sentence on a key that has another name today; None where there is none."""
    learner = values.get("learner")
    if not isinstance(learner, Mapping) or "grpo" not in learner:
        return None
    names = ", ".join(f"{old} is learner.objective.{new}" for old, new in MOVED.items())
    return f"{OLD_OBJECTIVE}: this key is learner.objective now: {names} (`none` for false)"
