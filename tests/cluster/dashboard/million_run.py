"""Writes a run directory of a given size, a million rollouts unless told otherwise, with logs of that size.

    python -m tests.cluster.dashboard.million_run DIR [--rollouts N]

Completions are about 120 characters and 40 tokens of small sums, with log-probabilities and entropies that compress
about as badly as real ones. Same arguments, same bytes but for the times of files.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from cluster.record.group_table import schema_of

GROUP_SIZE = 8
PROMPTS_PER_STEP = 64
TOKENS = 40
NUM_PROMPTS = 8000
RARE_TEXT = "Xylophone Zebra"
"""In one of about 50 000 completions."""
FREQUENT_TEXT = "therefore"
"""In about half of them."""
_START_S = 1_700_000_000.0
_STEP_S = 5.0
_WORDS = [
    "we",
    "add",
    "the",
    "first",
    "number",
    "to",
    "second",
    "which",
    "gives",
    "carry",
    "one",
    "so",
    "sum",
    "is",
    "check",
]


def write_run(path: Path, num_rollouts: int) -> None:
    """A finished run; steps of 512 rollouts, the last one may be smaller."""
    (path / "rollouts").mkdir(parents=True)
    (path / "checkpoints").mkdir()
    rng = np.random.default_rng(0)
    texts = _texts(random.Random(0))
    with (path / "metrics.jsonl").open("w") as metrics:
        for step, groups in enumerate(_steps(num_rollouts)):
            table = _table(step, groups, rng, texts)
            pyarrow.parquet.write_table(table, path / "rollouts" / f"step-{step:06d}.parquet", compression="zstd")
            _write_lines(metrics, [_metrics(step, table)])
    write_logs(path, num_rollouts)


def write_logs(path: Path, num_rollouts: int) -> None:
    """What such a run has besides its rollouts and metrics."""
    steps = _steps(num_rollouts)
    with (path / "events.jsonl").open("w") as events, (path / "ledger.jsonl").open("w") as ledger:
        for step, groups in enumerate(steps):
            _write_lines(events, _events(step, groups))
            _write_lines(ledger, _ledger(step, groups))
    config = f"name: big\nsteps: {len(steps)}\nrollout:\n  group_size: 8\n  prompts_per_step: 64\n"
    (path / "config.yaml").write_text(config)
    (path / "summary.json").write_text(json.dumps({"status": "finished", "num_steps": len(steps), "error": ""}))


def _steps(num_rollouts: int) -> list[range]:
    """Of each step its groups."""
    num_groups = -(-num_rollouts // GROUP_SIZE)
    starts = range(0, num_groups, PROMPTS_PER_STEP)
    return [range(start, min(num_groups, start + PROMPTS_PER_STEP)) for start in starts]


def group_id(index: int) -> str:
    return f"{index:06d}-{_uid(index)}"


def _uid(index: int) -> str:
    return f"{(index % NUM_PROMPTS) * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _texts(rng: random.Random) -> list[str]:
    """Completions to draw from: drawing is much faster than making a million."""
    texts = []
    for number in range(50_000):
        words = [rng.choice(_WORDS) for _ in range(18)]
        if number % 2:
            words[rng.randrange(18)] = FREQUENT_TEXT
        if number == 7:
            words[3] = RARE_TEXT
        texts.append(f"{' '.join(words)}. The answer is \\boxed{{{rng.randrange(200)}}}")
    return texts


def _table(step: int, groups: range, rng: np.random.Generator, texts: list[str]) -> Any:
    size = len(groups) * GROUP_SIZE
    indices = np.repeat(np.fromiter(groups, dtype=np.int64), GROUP_SIZE)
    chosen = [texts[number] for number in rng.integers(0, len(texts), size)]
    answers = [text[text.rindex("{") + 1 : -1] for text in chosen]
    truths = [str(int(index) * 31 % 200) for index in indices]
    reward = (rng.random(size) < 0.2 + 0.6 * step / (step + 500)).astype(np.float64)
    lengths = rng.integers(TOKENS // 2, TOKENS * 3 // 2, size)
    sampled = -rng.exponential(0.7, int(lengths.sum())).astype(np.float32)
    learned = sampled + rng.normal(0, 0.02, len(sampled)).astype(np.float32)
    by_group = {
        "group_id": [group_id(int(index)) for index in indices],
        "uid": [_uid(int(index)) for index in indices],
        "question": [f"Calculate {index % 200} + {index * 7 % 200}." for index in indices],
    }
    values: dict[str, Any] = {
        **by_group,
        "step": np.full(size, step),
        "index": indices,
        "epoch": indices // NUM_PROMPTS,
        "task": ["sums"] * size,
        "sample_index": np.tile(np.arange(GROUP_SIZE), len(groups)),
        "prompt_text": [f"User: {question}\nAssistant: " for question in by_group["question"]],
        "completion_text": chosen,
        "ground_truth": truths,
        "answer": answers,
        "prompt_token_ids": [list(range(20))] * size,
        "teacher_prompt_token_ids": [[]] * size,
        "teacher": [""] * size,
        "token_ids": _lists(rng.integers(0, 49152, len(sampled)).astype(np.int32), lengths),
        "rollout_logprobs": _lists(sampled, lengths),
        "policy_logprobs": _lists(learned, lengths),
        "ref_logprobs": _lists(np.zeros(0, np.float32), np.zeros(size, np.int64)),
        "entropies": _lists(rng.gamma(2.0, 0.4, len(sampled)).astype(np.float32), lengths),
        "teacher_logprobs": [[]] * size,
        "loss_mask": _lists(np.ones(len(sampled), dtype=bool), lengths),
        "advantage": reward * 2 - 1,
        "reward": reward,
        "rejected": [""] * size,
        "components": [f'{{"math":{value}}}' for value in reward],
        "outcome": np.where(rng.random(size) < 0.001, "timeout", "ok"),
        "detail": [""] * size,
        "verdicts": [None] * size,
        "correct": reward > 0,
        "finish_reason": np.where(lengths > 57, "length", "stop"),
        "min_policy_version": np.full(size, step),
        "max_policy_version": np.full(size, step),
        "version_spans": [f"[[{step}, 0, {length}]]" for length in lengths],
        "episode": [None] * size,
        "attempt": np.ones(size, dtype=np.int64),
        "worker": [f"sampler-{index % 4}" for index in indices],
        "reward_worker": ["reward-0"] * size,
        "score_s": rng.random(size),
        "steps": [""] * size,
    }
    schema = schema_of()
    return pyarrow.table([pyarrow.array(values[field.name]).cast(field.type) for field in schema], schema=schema)


def _lists(values: np.ndarray, lengths: np.ndarray) -> Any:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values))


def _events(step: int, groups: range) -> Iterator[dict[str, Any]]:
    start = _START_S + step * _STEP_S
    for index in groups:
        extra = {"tokens": TOKENS * GROUP_SIZE, "policy_version": step}
        begin = start + (index % PROMPTS_PER_STEP) * 0.02
        ids = [group_id(index)]
        yield _span("generate", f"sampler-{index % 4}", begin, begin + 1.5, None, ids, extra)
        yield _span("score", "reward-0", begin + 1.5, begin + 1.52, None, ids, extra)
    yield _span("train", "learner-0", start + 3, start + 4.5, step, [group_id(index) for index in groups], {})
    for sampler in range(4):
        yield _span("sync", f"sampler-{sampler}", start + 4.5, start + 4.9, step, [], {"policy_version": step + 1})


def _span(
    kind: str, actor: str, start: float, end: float, step: int | None, ids: list[str], extra: dict[str, Any]
) -> dict[str, Any]:
    return {"kind": kind, "actor": actor, "start_s": start, "end_s": end, "step": step, "ids": ids, "extra": extra}


def _ledger(step: int, groups: range) -> Iterator[dict[str, Any]]:
    start = _START_S + step * _STEP_S
    facts: dict[str, dict[str, Any]] = {
        "leased": {"worker": "sampler-0"},
        "sampled": {"policy_version": step},
        "scored": {},
        "consumed": {"step": step},
    }
    for number, (state, fact) in enumerate(facts.items()):
        for index in groups:
            yield {"time_s": start + number, "group_id": group_id(index), "state": state, "attempt": 1, **fact}


def _metrics(step: int, table: Any) -> dict[str, Any]:
    mean = pyarrow.compute.mean(table.column("reward")).as_py()
    return {"step": step, "reward/mean": mean, "train/policy_version": step + 1.0, "train/skipped": 0.0} | {
        f"stage/metric_{number}": (step * (number + 1)) % 97 / 97 for number in range(50)
    }


def _write_lines(file: Any, records: Any) -> None:
    for record in records:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    arguments = parser.parse_args()
    write_run(arguments.directory, arguments.rollouts)


if __name__ == "__main__":
    main()
