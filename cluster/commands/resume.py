"""Which configuration a resumed run has: its own, with such changes as do not change what was already computed."""

from collections.abc import Sequence
from pathlib import Path

from cluster.config import RunConfig
from cluster.configuration.loading import build_config, changed_keys, load_config
from cluster.configuration.redact import redact, redacted_keys
from cluster.record.run_directory import RunDirectory
from rollout.errors import ConfigError

CHANGEABLE = (
    "name",
    "runs_dir",
    "steps",
    "trackers",
    "alerts",
    "checkpoint",
    "eval",
    "recovery",
    "weight_sync",
    "learner.teacher.base_url",  # a server moves; which model answers there is compared
    "learner.teacher.endpoint",
)
"""Keys, with all below them, that may differ from the run's own. Keys that end in `_s` are deadlines: they may too, but
for those that a task or a reward function gave a meaning of its own (`params`)."""


def resume_config(run_path: Path, recipe: str | None, overrides: Sequence[str]) -> RunConfig:
    """The run's own configuration, or that of `recipe`, with overrides. A secret of the run may be another one now.

    Raises ConfigError when it would train differently from how the run began, or lacks a secret, which no run keeps,
    and RunDirectoryError for no run.
    """
    own = RunDirectory.existing(run_path).read_config()
    config = own_config(own, overrides, source=str(run_path)) if recipe is None else load_config(recipe, overrides)
    as_written = RunConfig.model_validate(redact(config.model_dump(mode="json")))
    refused = [key for key in changed_keys(own, as_written) if not _is_changeable(key)]
    if refused:
        raise ConfigError(
            f"{run_path} was started with other values of {', '.join(refused)}; a resumed run may change only "
            f"{', '.join(CHANGEABLE)} and deadlines; start a new run for other changes"
        )
    if config.steps != own.steps and config.learner.schedule.kind != "constant":
        raise ConfigError(
            f"{run_path} has steps = {own.steps} and a {config.learner.schedule.kind} learning rate, which follows "
            f"from it: got {config.steps} on resume; keep it, or start a new run"
        )
    return config


def own_config(own: RunConfig, overrides: Sequence[str], *, source: str) -> RunConfig:
    """What a run wrote of its configuration, with overrides. Raises ConfigError for a secret that they do not give."""
    if any(override.startswith("objective=") for override in overrides):
        raise ConfigError(f"{source}: a run keeps the objective that it began with; start a new run for another one")
    config = build_config(own.model_dump(mode="json"), overrides, source=source)
    lacking = redacted_keys(config.model_dump(mode="json"))
    if lacking:
        given = " ".join(f"{key}=..." for key in lacking)
        raise ConfigError(f"{source}: the secret in {', '.join(lacking)} was not written there; give it again: {given}")
    return config


def _is_changeable(key: str) -> bool:
    # Limits of an episode decide how it ends, and with it its reward.
    is_deadline = key.endswith("_s") and not {"params", "limits"} & set(key.split("."))
    return is_deadline or any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE)
