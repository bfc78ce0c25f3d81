"""Judges that disagree with what is known, and judges that like length."""

from tests.cluster.dashboard.doctor.test_rules import check, facts, flat

AGREEMENT, LENGTH = "judge/agreement_kind", "judge/length_correlation_kind"


def test_a_judge_at_chance_is_told_and_one_below_it_is_an_error() -> None:
    rule = check("judge_disagrees")
    assert rule(facts({AGREEMENT: flat(0.9, 20)})) is None
    assert rule(facts({"reward/mean": flat(0.9, 20)})) is None
    found = rule(facts({AGREEMENT: [*flat(0.9, 20), *flat(0.6, 10)], "judge/agreement_good": flat(0.95, 30)}))
    assert found.severity == "warning"
    assert "kind puts the better one first in 60 %" in found.evidence
    assert 18 <= found.since_step <= 22
    assert found.causes
    assert found.attempts
    assert rule(facts({AGREEMENT: flat(0.3, 20)})).severity == "error"


def test_a_score_that_goes_with_length_is_told_either_way() -> None:
    rule = check("judge_likes_length")
    assert rule(facts({LENGTH: flat(0.2, 20)})) is None
    assert rule(facts({LENGTH: [*flat(0.1, 20), 0.9]})) is None  # a step is an accident
    found = rule(facts({LENGTH: flat(0.8, 20), "rollout/completion_tokens_mean": [*flat(50.0, 10), *flat(90.0, 10)]}))
    assert found.title == "The judge likes long completions"
    assert found.causes
    assert found.attempts
    assert "correlation of kind with the number of tokens is 0.8" in found.evidence
    assert "had 50 tokens at the start of the run, and have 90" in found.evidence
    assert rule(facts({LENGTH: flat(-0.8, 20)})).title == "The judge likes short completions"
