"""The rules about faults on made-up facts: an ill run that each must name, and one like it that is well."""

from typing import Any

import pytest

from cluster.dashboard.doctor import rules_faults
from cluster.dashboard.doctor.facts import Facts
from cluster.dashboard.doctor.rules import RULES
from cluster.dashboard.records import Span
from tests.cluster.dashboard.doctor.test_rules import Case, N, check, facts
from tests.cluster.dashboard.span_store import span


def state(actor: str, state: str, reason: str = "") -> Span:
    return span("instant", actor, 1.0, 1.0, step=4, name="state", state=state, reason=reason)


def died(actor: str, times: int) -> tuple[Span, ...]:
    return (state(actor, "DEAD", "its process ended."), state(actor, "RESTARTING")) * times


def warning(text: str) -> Span:
    return span("instant", "controller", 1.0, 1.0, name="warning", text=text)


def at_the_end(**changed: Any) -> Facts:
    """A live run that has done its 30 steps, evaluated, and last written something at 1000."""
    known: dict[str, Any] = {"status": "live", "saved_step": 20, "evaluated_at": N, "written_s": 1000.0}
    return facts({"loss": [0.0] * N}, {"steps": N, "eval": {"at_end": True}}, **{**known, **changed})


STALL = "no group was scored and no step trained for 1800 s (recovery.stall_s), after 12 groups and 3 steps"
FULL = span(
    "instant",
    "controller",
    1.0,
    1.0,
    name="checkpoint_not_written",
    checkpoint="step-00000020",
    checkpoint_step=20,
    reason="[Errno 28] No space left on device",
    text="step-00000020: [Errno 28] No space left on device",
)
USED_UP = "sampler-0 failed (killed) and the run has used up its 3 restarts (recovery.max_restarts); mend it"
TORN = "step-00000004: learner-0.bin has 6 bytes, 7 were written"

CASES: dict[str, Case] = {
    "run_stalled": Case(
        ill=facts(instants=(span("instant", "controller", 1.0, 1.0, name="stall", text=STALL),)),
        well=facts(instants=(span("instant", "controller", 1.0, 1.0, name="warning", text=STALL),)),
        severity="warning",
        says=STALL,
    ),
    "checkpoint_set_aside": Case(
        ill=facts(instants=(span("instant", "controller", 1.0, 1.0, name="checkpoint_set_aside", text=TORN),)),
        well=facts(),
        severity="warning",
        says=TORN,
    ),
    "restarts_nearly_used": Case(
        ill=facts({}, {"recovery": {"max_restarts": 4}}, instants=(*died("sampler-0", 2), *died("reward-0", 1))),
        well=facts({}, {"recovery": {"max_restarts": 8}}, instants=(*died("sampler-0", 2), *died("reward-0", 1))),
        severity="warning",
        says="3 of at most 4 restarts, 2 of them of sampler-0; the last to fail was reward-0: its process ended.",
    ),
    "actors_restarted": Case(
        ill=facts(instants=(*died("sampler-0", 2), *died("reward-0", 1))),
        well=facts(instants=(state("sampler-0", "SUSPECT"), state("sampler-0", "HEALTHY"))),
        severity="info",
        says="sampler-0 2 times, reward-0 1 time; the last reason: its process ended.",
    ),
    "late_results_refused": Case(
        ill=facts({"groups/late_results": [0.0] * 20 + [3.0] * 10}),
        well=facts({"groups/late_results": [0.0] * N}),
        severity="info",
        says="3 answers came after the lease had been given up",
    ),
    "leases_given_up": Case(
        ill=facts(num_dispatched=100, num_retried=2, retried_for="sampler-0 died"),
        well=facts(num_dispatched=100),
        severity="info",
        says="The lease of 2 of 100 groups was given up. The last one: sampler-0 died",
    ),
    "actors_down": Case(
        ill=facts(instants=died("sampler-0", 1), status="live", now_s=91.0),
        well=facts(instants=(*died("sampler-0", 1), state("sampler-0", "HEALTHY")), status="live", now_s=91.0),
        severity="warning",
        says="sampler-0 is RESTARTING for 90 s; the last reason: its process ended.",
    ),
    "checkpoint_not_written": Case(
        ill=facts({"loss": [0.0] * N}, instants=(FULL,), saved_step=10, status="live"),
        well=facts({"loss": [0.0] * N}, instants=(warning(STALL),), saved_step=10, status="live"),
        severity="warning",
        says="That of step 20: [Errno 28] No space left on device; the newest is of step 10: a resumed run would train "
        "20 of 30 steps again.",
    ),
    "last_checkpoint_hangs": Case(
        ill=at_the_end(now_s=1090.0),
        well=at_the_end(now_s=1050.0),
        severity="warning",
        says="All 30 steps are done, and nothing was written for 90 s; the newest is of step 20.",
    ),
}


def test_every_rule_about_faults_has_a_case() -> None:
    assert {rule.name for rule in RULES if rule.check.__module__ == rules_faults.__name__} == set(CASES)


@pytest.mark.parametrize("name", list(CASES))
def test_a_rule_names_what_is_ill_and_nothing_else(name: str) -> None:
    finding = check(name)(CASES[name].ill)
    assert finding is not None
    assert CASES[name].says in finding.evidence
    assert finding.severity == CASES[name].severity
    assert finding.causes
    assert finding.attempts
    assert check(name)(CASES[name].well) is None


def test_a_budget_that_is_used_up_is_an_error() -> None:
    finding = check("restarts_nearly_used")(
        facts({}, {"recovery": {"max_restarts": 3}}, instants=(*died("sampler-0", 2), *died("reward-0", 1)))
    )
    assert finding is not None
    assert (finding.severity, finding.title) == ("error", "All restarts are used")


def test_a_budget_of_none_that_ended_the_run_is_told_with_who_fell() -> None:
    fallen = (state("sampler-0", "DEAD", "killed"),)
    ended = facts(
        {},
        {"recovery": {"max_restarts": 0}},
        instants=fallen,
        status="failed",
        error=USED_UP,
        error_type="RestartsExhaustedError",
    )
    finding = check("restarts_nearly_used")(ended)
    assert finding is not None
    assert (finding.severity, finding.title) == ("error", "One more failure than restarts ended the run")
    assert finding.evidence == "0 of at most 0 restarts; the last to fail was sampler-0: killed."
    assert check("restarts_nearly_used")(facts({}, {"recovery": {"max_restarts": 0}}, instants=fallen)) is None


def test_a_resumed_run_has_its_budget_again() -> None:
    resumed = span("instant", "controller", 2.0, 2.0, name="resumed")
    config = {"recovery": {"max_restarts": 3}}
    before = facts({}, config, instants=(*died("sampler-0", 3), resumed))
    assert check("restarts_nearly_used")(before) is None
    finding = check("restarts_nearly_used")(facts({}, config, instants=(*before.instants, *died("reward-0", 3))))
    assert finding is not None
    assert finding.evidence.startswith("3 of at most 3 restarts, 3 of them of reward-0")


def test_many_groups_that_are_sampled_again_are_a_warning() -> None:
    finding = check("leases_given_up")(facts(num_dispatched=19, num_retried=2))
    assert finding is not None
    assert (finding.severity, finding.evidence) == ("warning", "The lease of 2 of 19 groups was given up.")


@pytest.mark.parametrize(
    ("status", "saved_step", "severity", "title"),
    [
        ("failed", 10, "error", "A checkpoint was not written, and the run ended without it"),
        ("finished", None, "error", "A checkpoint was not written, and the run ended without it"),
        ("finished", 30, "info", "A checkpoint was not written"),
        ("live", None, "warning", "A checkpoint was not written"),
    ],
)
def test_a_failed_save_matters_until_a_later_one_succeeds(
    status: str, saved_step: int | None, severity: str, title: str
) -> None:
    run = facts({"loss": [0.0] * N}, instants=(FULL,), saved_step=saved_step, status=status)
    finding = check("checkpoint_not_written")(run)
    assert finding is not None
    assert (finding.severity, finding.title, finding.since_step) == (severity, title, 19)
    assert ("steps again" in finding.evidence) == (severity != "info")


@pytest.mark.parametrize(
    "changed",
    [
        {"saved_step": N},  # it is there
        {"evaluated_at": 0},  # the last evaluation is still on its way
        {"status": "finished"},
        {"written_s": None},
    ],
)
def test_a_last_checkpoint_that_is_there_or_not_due_does_not_hang(changed: dict[str, Any]) -> None:
    assert check("last_checkpoint_hangs")(at_the_end(now_s=9000.0)) is not None
    assert check("last_checkpoint_hangs")(at_the_end(now_s=9000.0, **changed)) is None


def test_who_is_away_since_before_a_resume_or_for_a_moment_is_not_down() -> None:
    resumed = span("instant", "controller", 2.0, 2.0, name="resumed")
    for instants, now_s in (((*died("sampler-0", 1), resumed), 91.0), (died("sampler-0", 1), 60.0)):
        assert check("actors_down")(facts(instants=instants, status="live", now_s=now_s)) is None
    assert check("actors_down")(facts(instants=died("sampler-0", 1), status="failed", now_s=91.0)) is None
