"""What failed is to be seen: of a run that ended after everything had failed, and of one in the middle of it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.record.run_lock import run_lock
from tests.browser.answers import wait_for_index
from tests.browser.conftest import REPOSITORY, Complaints, Dashboard, start_dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser

STARTED_S = 1_790_000_000.0
"""Of `ended`."""
KILLED = "the process was ended by signal 9 (SIGKILL)"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard over `ended` and `live`, of which the second is locked as by the program that writes it."""
    folder = tmp_path_factory.mktemp("faulty")
    command = [sys.executable, "-m", "tests.cluster.dashboard.faulty_run", str(folder)]
    subprocess.run(command, check=True, timeout=120, cwd=REPOSITORY)
    with run_lock(folder / "live"):
        running = start_dashboard(folder, tmp_path_factory.mktemp("log") / "faulty.log")
        for run in ("ended", "live"):
            wait_for_index(running.origin, run)
        yield running
        running.stop()


@pytest.fixture(autouse=True)
def faulty_origin(faulty: Dashboard, complaints: Complaints) -> None:
    complaints.allowed_origins.add(faulty.origin)


def text_of(page: Any, testid: str) -> str:
    """In one line, once it is there."""
    found = page.get_by_test_id(testid)
    found.wait_for()
    return " ".join(found.inner_text().split())


def part_of(page: Any, actor: str, testid: str) -> str:
    return " ".join(page.get_by_test_id(f"actor-{actor}").get_by_test_id(testid).inner_text().split())


def states(page: Any) -> dict[str, str]:
    page.get_by_test_id("actor-state").first.wait_for()
    actors = [card.get_attribute("aria-label") for card in page.locator(".fleet .actor").all()]
    return dict(zip(actors, page.get_by_test_id("actor-state").all_inner_texts(), strict=True))


def test_fleet_shows_the_states_of_now(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/live/fleet"))
    assert states(page) == {
        "controller": "busy",
        "learner-0": "DEAD",
        "learner-1": "HEALTHY",
        "sampler-0": "STALE",
        "sampler-1": "HEALTHY",
        "reward-0": "HEALTHY",
        "reward-1": "RESTARTING",
    }
    assert text_of(page, "fleet-restarts").endswith("5 of 6 restarts used")
    assert re.fullmatch(
        r"holds 1 lease 000019-\w+ attempt 1, (until|ran out) \d\d:\d\d:\d\d",
        part_of(page, "sampler-1", "actor-leases"),
    )
    page.goto(faulty.url("/r/live/fleet?order=trouble"))
    until(page, lambda: next(iter(states(page))) == "learner-0", "the dead one first")


def test_fleet_shows_restarts_reasons_and_how_each_came_to_its_state(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/fleet"))
    assert {actor: state for actor, state in states(page).items() if state != "ended"} == {"sampler-0": "DEAD"}
    assert text_of(page, "fleet-restarts").endswith("3 of 3 restarts used")
    for actor, restarts in {"sampler-0": 0, "sampler-1": 1, "reward-0": 1, "learner-1": 1, "learner-0": 0}.items():
        assert re.search(rf"restarts\s+{restarts}\b", page.get_by_test_id(f"actor-{actor}").inner_text()), actor
    told = part_of(page, "sampler-1", "actor-changes")
    assert told.startswith("4 changes of state")
    assert re.findall(r"step 1 (\w+)", told) == ["HEALTHY", "STALE", "RESTARTING", "DEAD"]
    assert "serves version 1" in told
    assert "restart 1 of at most 3" in told
    assert f"sampler-1 failed on group 000004-0000000000000001: ActorDiedError: {KILLED}" in told
    assert "did not finish group 000006-0000000000000000 within 60 s" in part_of(page, "sampler-0", "actor-changes")
    assert part_of(page, "sampler-1", "actor-leases").startswith(
        "held 1 lease 000019-0000000000000001 attempt 1, until"
    )
    error = page.get_by_test_id("actor-learner-1").locator(".actor-error").inner_text()
    assert f"train: learner-1 failed on step 5: ActorDiedError: {KILLED}" in " ".join(error.split())
    error = page.get_by_test_id("actor-controller").locator(".actor-error").inner_text()
    assert "the run has used up its 3 restarts (recovery.max_restarts)" in " ".join(error.split())


def test_ledger_shows_what_was_given_up_and_what_came_late(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/ledger"))
    assert text_of(page, "balance-words") == "21 dispatched = 18 trained + 0 rejected + 3 in flight"
    assert text_of(page, "exactly-once").endswith("exactly once")
    assert [text_of(page, f"state-{state}").split()[-1] for state in ("pending", "leased")] == ["2", "1"]
    assert "2 results of attempts that had been given up came late" in " ".join(
        page.get_by_test_id("check").all_inner_texts()
    )
    assert text_of(page, "lease-counts") == "5 sampled again, 2 late answers refused"
    retried = [" ".join(text.split()) for text in page.get_by_test_id("retried").all_inner_texts()]
    assert [text.split()[1][:6] for text in retried] == ["000020", "000018", "000008", "000006", "000004"]
    assert "waits for its next lease" in retried[0]
    assert "attempt 2 by sampler-1" in retried[2]
    assert "given up by sampler-0: sample: sampler-0 did not finish group 000006" in retried[2]
    assert "given up by sampler-1: sample: sampler-1 failed on group 000004-0000000000000001: Actor" in retried[4]
    late = [" ".join(text.split()) for text in page.get_by_test_id("late").all_inner_texts()]
    assert [re.sub(r"^\W+|, came.*", "", text) for text in late] == [
        "000008-0000000000000002 attempt 1",
        "000006-0000000000000000 attempt 1",
    ]


def test_ledger_shows_what_the_newest_checkpoint_lacks_and_why(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/ledger"))
    newest = text_of(page, "checkpoint-newest")
    assert newest == ("The newest is step-00000002: it holds 6 of 18 trained groups; 4 of 6 steps came after it.")
    assert text_of(page, "checkpoint-troubles").endswith("1 set aside, 2 not written")
    troubles = [" ".join(text.split()) for text in page.get_by_test_id("checkpoint-trouble").all_inner_texts()]
    assert len(troubles) == 3
    assert "step 4 set aside" in troubles[0]
    assert "learner-0.bin is not as it was written (its SHA-256 differs)" in troubles[0]
    for text in troubles[1:]:
        assert "step 6 not written" in text
        assert "[Errno 28] No space left on device" in text


def test_leased_groups_have_their_deadline_in_the_table(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/ledger"))
    page.get_by_test_id("ledger-row").first.wait_for()
    page.keyboard.press("End")
    leased = page.locator("[data-testid=ledger-row]", has_text="000019-")
    leased.wait_for()
    times = re.findall(r"\d\d:(\d\d):(\d\d)", leased.inner_text())
    began, deadline = (60 * int(minute) + int(second) for minute, second in times)
    assert (deadline - began) % 3600 == 60  # rollout.group_deadline_s
    assert "leased" in leased.inner_text()


def test_the_life_of_a_group_has_its_attempts_and_the_late_answer(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/group/train/2/000006-0000000000000000"))
    rows = page.get_by_test_id("ledger-life").locator("tr")
    rows.first.wait_for()
    told = [" ".join(text.split()) for text in rows.all_inner_texts()]
    assert [re.sub(r" \d\d:.*", "", text) for text in told] == [
        *("leased", "pending", "leased", "late result refused", "sampled", "scored", "consumed")
    ]
    assert "within 60 s" in told[1]
    assert "sampler-1 attempt 2" in told[2]


def hover(page: Any, faulty: Dashboard, actor: str, at_s: float, around_s: float) -> str:
    """What the timeline says of an actor at a time, in a window `around_s` to both sides."""
    start, end = STARTED_S + at_s - around_s, STARTED_S + at_s + around_s
    page.goto(faulty.url(f"/r/ended/timeline?from={start}&to={end}"))
    lane = page.get_by_test_id(f"lane-{actor}")
    lane.wait_for()
    canvas = page.locator(".gantt-canvas").first
    until(page, lambda: page.evaluate("document.querySelector('.gantt-canvas').width") > 300, "a drawn canvas")
    shown = f"{at_s - around_s:.1f} – {at_s + around_s:.1f} s"
    until(page, lambda: page.get_by_test_id("window").inner_text().startswith(shown), shown)
    box, place = canvas.bounding_box(), lane.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, place["y"] + place["height"] / 2)
    return text_of(page, "span-card")


@pytest.mark.parametrize(
    ("actor", "at_s", "lasted", "why"),
    [
        ("sampler-1", 16.5, "6.00 s", f"failed on group 000004-0000000000000001: ActorDiedError: {KILLED}"),
        ("reward-0", 108.5, "5.00 s", f"failed on group 000009-0000000000000000: ActorDiedError: {KILLED}"),
        ("learner-1", 552.0, "30.00 s", f"failed on step 5: ActorDiedError: {KILLED}"),
    ],
)
def test_timeline_shows_when_an_actor_was_down_and_why(
    page: Any, faulty: Dashboard, actor: str, at_s: float, lasted: str, why: str
) -> None:
    told = hover(page, faulty, actor, at_s, 20.0 if actor == "learner-1" else 4.0)
    assert told.startswith(f"down {actor}")
    assert why in told
    assert f"lasted {lasted}" in told


def test_timeline_shows_the_stall_and_where_its_stacks_are(page: Any, faulty: Dashboard) -> None:
    told = hover(page, faulty, "controller", 533.0, 3.0)
    assert "no group was scored and no step trained for 400 s" in told
    assert "stacks/000-*.txt" in told
    stacks = sorted(path.name for path in (faulty.folder / "ended" / "stacks").glob("000-*.txt"))
    assert stacks == [
        *("000-controller.txt", "000-learner-0.txt", "000-learner-1.txt", "000-reward-0.txt", "000-reward-1.txt"),
        *("000-sampler-0.txt", "000-sampler-1.txt"),
    ]


def test_timeline_sums_up_the_time_that_was_lost(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/timeline"))
    page.get_by_test_id("lane-sampler-1").wait_for()
    shares = page.get_by_test_id("utilisation")
    words = dict(zip(page.locator(".gantt-actor").all_inner_texts(), shares.all(), strict=True))
    down = {actor: re.search(r"down ([\d.]+)%", bar.get_attribute("title")) for actor, bar in words.items()}
    assert {actor: float(share[1]) for actor, share in down.items() if share} == {
        "learner-1": pytest.approx(100 * 30 / 576, abs=0.06),
        "sampler-1": pytest.approx(100 * 6 / 576, abs=0.06),
        "reward-0": pytest.approx(100 * 5 / 576, abs=0.06),
    }
    assert page.get_by_test_id("legend").locator(".legend-item:not(.absent)", has_text="down").count() == 1


def test_overview_marks_restarts_and_alerts_at_their_steps(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/overview"))
    page.locator(".mark.restart").first.wait_for()
    titles = [mark.get_attribute("title") for mark in page.get_by_test_id("mark").all()]
    lines = [line for title in titles for line in title.splitlines()]
    restarts = [
        (line.split(",")[1].split(":")[0].strip(), line.split(": ")[1]) for line in lines if line.startswith("restart")
    ]
    assert sorted(restarts) == [
        ("step 1", "sampler-1"),
        ("step 3", "reward-0"),
        ("step 5", "learner-1"),
        ("step 5", "sampler-0"),
    ]
    alerts = "\n".join(line for line in lines if line.startswith("alert"))
    assert "alert, step 3: controller: warning, 3 of the 12 rewards" in alerts
    assert "alert, step 4: controller: warning, step 4: the norm of the gradient is not finite" in alerts
    for what in ("stall, no group was scored", "checkpoint_set_aside, step-00000004", "warning, checkpoint of step 6"):
        assert f"alert, step 5: controller: {what}" in alerts
    status = page.get_by_test_id("status")
    assert status.inner_text().endswith("failed")
    assert "used up its 3 restarts" in status.get_attribute("title")
    assert re.search(r"4\D+5", text_of(page, "doctor-counts"))  # errors and warnings


FINDINGS = {
    "run_ended_badly": ("error", "It ended after 6 of 8 steps: sampler-0 failed"),
    "restarts_nearly_used": ("error", "3 of at most 3 restarts; the last to fail was sampler-0"),
    "checkpoint_not_written": ("error", "the newest is of step 2: a resumed run would train 4 of 6 steps again"),
    "steps_skipped": ("error", "1 of the last 6 steps changed nothing"),
    "run_stalled": ("warning", "for 400 s (recovery.stall_s), after 15 groups and 5 steps"),
    "checkpoint_set_aside": ("warning", "learner-0.bin is not as it was written"),
    "grader_fails": ("warning", "(3 timeout)"),
    "leases_given_up": ("warning", "The lease of 5 of 21 groups was given up"),
    "actors_restarted": ("info", "sampler-1 1 time, reward-0 1 time, learner-1 1 time"),
    "late_results_refused": ("info", "2 answers came after the lease had been given up"),
}


def test_doctor_has_a_finding_for_each(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/ended/doctor"))
    page.get_by_test_id("finding").first.wait_for()
    for rule, (severity, evidence) in FINDINGS.items():
        card = page.locator(f"#finding-{rule}")
        assert severity in card.get_attribute("class").split(), rule
        assert evidence in " ".join(card.locator(".evidence").inner_text().split()), rule
        assert card.locator(".advice li").count() >= 2, rule
    stalled = page.locator("#finding-run_stalled")
    assert "stacks/000-*.txt" in stalled.locator(".advice").inner_text()
    assert stalled.locator(".since").inner_text() == "since step 5"


def test_doctor_of_a_live_run_says_who_is_away(page: Any, faulty: Dashboard) -> None:
    page.goto(faulty.url("/r/live/doctor"))
    card = page.locator("#finding-actors_down")
    card.wait_for()
    assert card.locator("h2").inner_text() == "3 actors do no work"
    told = " ".join(card.locator(".evidence").inner_text().split())
    assert re.search(
        r"sampler-0 is STALE for \d+ s, reward-1 is RESTARTING for \d+ s, learner-0 is DEAD for \d+ s", told
    )
    assert page.locator("#finding-run_ended_badly").count() == 0
    assert page.locator("#finding-checkpoint_not_written h2").inner_text() == "A checkpoint was not written"
    card.locator(".finding-links a", has_text="fleet").click()
    page.wait_for_url(re.compile("#/r/live/fleet"))
