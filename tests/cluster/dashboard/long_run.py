"""Writes the logs of a run of many steps that was stopped and resumed, 20,000 steps unless told otherwise.

    python -m tests.cluster.dashboard.long_run DIR [--steps N]

Two samplers, two learner ranks, a reward worker. A step samples for about 3 s, which is less than it trains, so that a
sampler's spans are shorter than a learner's. There are metrics and events and nothing else: what a timeline is made of.
Same arguments, same bytes but for the times of files.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.dashboard.files.encoding import encode

STARTED_S = 1_700_000_000.0
STOPPED_S = 8 * 3600.0
"""How long the run lay still."""
GROUPS = 14
SAMPLERS, LEARNERS = ("sampler-0", "sampler-1"), ("learner-0", "learner-1")
EVALUATED_EVERY = 500

Record = dict[str, Any]


def write_long_run(path: Path, num_steps: int) -> None:
    """A finished run, stopped before the step at two thirds of it."""
    path.mkdir(parents=True)
    rng = random.Random(num_steps)
    now_s, resumed_at = STARTED_S, 2 * num_steps // 3
    with (path / "events.jsonl").open("wb") as events, (path / "metrics.jsonl").open("wb") as metrics:
        for step in range(num_steps):
            if step == resumed_at:
                now_s += STOPPED_S
                events.write(_line(_instant(now_s, "resumed", f"from step-{step:06d}", step)))
            began_s = now_s
            for record in _step(rng, step, now_s):
                now_s = max(now_s, record["end_s"])
                events.write(_line(record))
            times = {"time/step_s": now_s - began_s, "time/ended_s": now_s, "time/wait_s": 3.5}
            reward = 0.8 * step / (step + num_steps / 4)
            values = {
                "reward/mean": reward + rng.gauss(0, 0.02),
                "reward/std": 0.4,
                "rollout/completions": 8.0 * GROUPS,
            }
            metrics.write(_line({"step": step, **times, **values}))
    (path / "config.yaml").write_text(f"name: long\nsteps: {num_steps}\nmax_policy_lag: 0\n")
    (path / "summary.json").write_text(json.dumps({"status": "finished", "num_steps": num_steps, "error": ""}))


def _step(rng: random.Random, step: int, start_s: float) -> Iterator[Record]:
    """From the sync to the end of training: about 11 s."""
    at_s = start_s
    for sampler in SAMPLERS:
        yield _span("sync", sampler, at_s, at_s + 0.4, step, policy_version=step)
    at_s += 0.4
    if step % EVALUATED_EVERY == 0:
        yield _span("eval", "controller", at_s, at_s + 30.0, step)
        at_s += 30.0
    sampled_s = at_s
    ids = [f"{step * GROUPS + place:07d}-{place:02d}" for place in range(GROUPS)]
    for place, group_id in enumerate(ids):
        ends_s = at_s + 1.0 + 2.0 * rng.random()
        facts = {"tokens": 900, "policy_version": step}
        yield _span("generate", SAMPLERS[place % 2], at_s, ends_s, None, group_id, **facts)
        yield _span("score", "reward-0", ends_s, ends_s + 0.3, None, group_id)
        sampled_s = max(sampled_s, ends_s + 0.3)
    train_s = 6.0 + rng.random()
    for learner in LEARNERS:
        yield _span("train", learner, sampled_s, sampled_s + train_s, step, *ids)


def _span(kind: str, actor: str, start_s: float, end_s: float, step: int | None, *ids: str, **extra: Any) -> Record:
    times = {"start_s": round(start_s, 6), "end_s": round(end_s, 6)}
    return {"kind": kind, "actor": actor, **times, "step": step, "ids": list(ids), "extra": extra}


def _instant(at_s: float, name: str, text: str, step: int) -> Record:
    return _span("instant", "controller", at_s, at_s, step, name=name, text=text)


def _line(record: Record) -> bytes:
    return encode(record) + b"\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    arguments = parser.parse_args()
    write_long_run(arguments.directory, arguments.steps)


if __name__ == "__main__":
    main()
