"""The rules about faults on made-up facts: an ill run that each must name, and one like it that is well."""

import pytest

from cluster.dashboard import doctor_rules_faults
from cluster.dashboard.doctor_rules import RULES
from cluster.dashboard.records import Span
from tests.cluster.dashboard.span_store import span
from tests.cluster.dashboard.test_doctor_rules import Case, N, check, facts


def state(actor: str, state: str, reason: str = "") -> Span:
    return span("instant", actor, 1.0, 1.0, step=4, name="state", state=state, reason=reason)


def died(actor: str, times: int) -> tuple[Span, ...]:
    return (state(actor, "DEAD", "its process ended."), state(actor, "RESTARTING")) * times


STALL = "no group was scored and no step trained for 1800 s (recovery.stall_s), after 12 groups and 3 steps"
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
        says="3 of at most 4 restarts, 2 of them of sampler-0; the last reason: its process ended.",
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
        says="3 groups came after their lease had been given up",
    ),
}


def test_every_rule_about_faults_has_a_case() -> None:
    assert {rule.name for rule in RULES if rule.check.__module__ == doctor_rules_faults.__name__} == set(CASES)


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
