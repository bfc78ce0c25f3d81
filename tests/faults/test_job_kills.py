"""SIGKILL of the whole job at eight points of a step: nothing of it is left, and what is resumed ends the same."""

import signal

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

# (point, training steps done there, step of the checkpoint that the resumed run goes on from)
POINTS = [
    ("generated", 3, 2),
    ("scored", 3, 2),
    ("trained", 3, 2),
    ("before_sync", 4, 2),
    ("after_sync", 4, 2),
    ("record", 4, 2),
    ("saving", 4, 2),
    ("saved", 4, 4),
]


@pytest.mark.parametrize(("event", "step", "resumed_from"), POINTS, ids=[point[0] for point in POINTS])
def test_resumed_run_ends_bit_for_bit_the_same(event, step, resumed_from, undisturbed, tmp_path):
    path = tmp_path / "run"
    fault = Faults.at("job", step=step, event=event).do("kill")
    run = faults.start(path, fault, "tiny", *faults.SHORT, "checkpoint.every=2")
    assert run.wait() == -signal.SIGKILL, run.output()
    assert faults.struck(path)["event"] == event
    assert run.left_behind() == [], "the actors of a killed job end too"
    assert not (path / "summary.json").exists()

    faults.resume(path)
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert [line["step"] for line in runs.read_lines(path / "metrics.jsonl")] == list(range(6))
    assert [e["step"] for e in faults.instants(path, "resumed")] == [resumed_from]
