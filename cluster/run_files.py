"""Names of the files and folders of a run directory. Imports nothing heavy.

What each holds stands in `cluster/record/run_directory.py`, which writes them.
"""

import re
from typing import Literal

from learner.saving.files import NAME_PREFIX

Phase = Literal["train", "eval"]

CONFIG = "config.yaml"
SUMMARY = "summary.json"
VOCABULARY = "vocabulary.json"
LOCK = "run.lock"
ROLLOUTS = "rollouts"
CHECKPOINTS = "checkpoints"
STACKS = "stacks"
SUPERSEDED = "superseded"
TAGS = "tags.json"
"""What people say of the whole run; written by `shoal tag`, read by no run."""
ANNOTATIONS = "annotations.jsonl"
"""What people note of completions; written by the dashboard and `shoal label`, read by no run."""
TENSORBOARD = "tensorboard"
TRACKERS = "trackers.json"

LOGS = ("metrics", "evaluations", "events", "ledger")
"""The append-only files, without their ending."""
TABLE_STEMS: dict[Phase, str] = {"train": "step", "eval": "eval"}
"""Of a table of rollouts, before its step."""
_TABLE = re.compile(r"(step|eval)-(\d{1,12})\.parquet")
_CHECKPOINT = re.compile(re.escape(NAME_PREFIX) + r"(\d{1,12})")


def log_name(log: str) -> str:
    """File of one of LOGS."""
    return f"{log}.jsonl"


def table_name(phase: Phase, step: int) -> str:
    """File of the rollouts of a training step, or of an evaluation after `step` of them."""
    return f"{TABLE_STEMS[phase]}-{step:06d}.parquet"


def table_of(name: str) -> tuple[Phase, int] | None:
    """(phase, step) of a table's name; None for any other name."""
    match = _TABLE.fullmatch(name)
    if match is None:
        return None
    return "train" if match[1] == TABLE_STEMS["train"] else "eval", int(match[2])


def checkpoint_step(name: str) -> int | None:
    """Training steps in a published checkpoint of this name; None for any other name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match is not None else None
