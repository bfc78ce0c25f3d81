"""A demo run with a few groups rewritten to what the demo's own completions never are: long, hostile, alike."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

STEP = 4
NUM_LONG_TOKENS = 32_000
LONG_SEAM = 9000
COMMON = "Let me think about this step by step, as one should: "
HOSTILE_PIECES = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\u202egnp.exe\u202c",
    "\u200b",
    "\x1b[31mred\x1b[0m",
    "\x00",
    "{{7*7}}",
    "&lt;b&gt;",
)
HOSTILE_QUESTION = "<svg onload=window.hacked=1> What is \u202e2 + 2?"


def craft(source: Path, target: Path) -> list[str]:
    """Copies the run `source` and rewrites groups of step 4; their ids in the order of the functions below."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".index"))
    pieces = json.loads((target / "vocabulary.json").read_text())["pieces"]
    (target / "vocabulary.json").write_text(json.dumps({"pieces": [*pieces, *HOSTILE_PIECES]}))
    path = target / "rollouts" / f"step-{STEP:06d}.parquet"
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    ids = list(dict.fromkeys(row["group_id"] for row in rows if row["advantage"] is not None))[:3]
    group = {id: [row for row in rows if row["group_id"] == id] for id in ids}
    _long_and_hostile(group[ids[0]], pieces)
    _alike(group[ids[1]])
    _graded_apart(group[ids[2]])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), path)
    return ids


def _long_and_hostile(rows: Sequence[dict[str, Any]], pieces: Sequence[str]) -> None:
    """Sample 0 has 32 000 tokens of two versions, sample 1 is hostile, of sample 2 the learner computed nothing,
    sample 3 is a line of a million characters."""
    words = [id for id, piece in enumerate(pieces) if piece.strip().isalpha() or piece == "\n"]
    long_ids = np.random.default_rng(0).choice(words, NUM_LONG_TOKENS).tolist()
    _fill(rows[0], long_ids, "".join(pieces[id] for id in long_ids))
    spans = [[STEP - 1, 0, LONG_SEAM], [STEP, LONG_SEAM, NUM_LONG_TOKENS]]
    rows[0].update(version_spans=json.dumps(spans), min_policy_version=STEP - 1, max_policy_version=STEP)
    hostile_ids = list(range(len(pieces), len(pieces) + len(HOSTILE_PIECES)))
    _fill(rows[1], hostile_ids, "".join(HOSTILE_PIECES))
    rows[2].update(policy_logprobs=[], ref_logprobs=[], entropies=[], advantage=0.0)
    rows[3].update(completion_text="x" * 1_000_000)
    for row in rows:
        row["question"] = HOSTILE_QUESTION


def _alike(rows: Sequence[dict[str, Any]]) -> None:
    """All begin with the same words."""
    for number, row in enumerate(rows):
        row["completion_text"] = f"{COMMON}it is {number} or so. \\boxed{{{row['answer']}}}"


def _graded_apart(rows: Sequence[dict[str, Any]]) -> None:
    """Samples 0 and 1 have the same answer, and only one of them was accepted."""
    for row, correct in zip(rows[:2], (True, False), strict=True):
        row.update(answer="17", completion_text="\\boxed{17}", correct=correct, reward=float(correct))


def _fill(row: dict[str, Any], ids: list[int], text: str) -> None:
    """Log-probabilities -1, but for the learner's -1.5 at position 2, a ratio of exp(-0.5) = 0.607, and -3 at 3;
    the reference is as the learner, so that the KL term is 0."""
    count = len(ids)
    policy = [-1.0] * count
    policy[2], policy[3] = -1.5, -3.0
    mask = [True] * count
    mask[-1] = False
    row.update(
        token_ids=ids,
        completion_text=text,
        rollout_logprobs=[-1.0] * count,
        policy_logprobs=policy,
        ref_logprobs=policy,
        entropies=[0.25] * count,
        loss_mask=mask,
        advantage=-2.0,
        version_spans=json.dumps([[STEP, 0, count]]),
    )
