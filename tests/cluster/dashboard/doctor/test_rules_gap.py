"""What depends on the objective of a run."""

from cluster.dashboard.doctor import rules_gap
from tests.cluster.dashboard.doctor.test_rules import facts, flat


def test_bounds_of_other_surrogates_clip_more_and_nothing_is_wrong() -> None:
    gspo = {"learner": {"objective": {"surrogate": {"kind": "ppo_clip", "level": "sequence"}}}}
    assert rules_gap.clips_much(facts({"train/clip_fraction": flat(0.15)})) is not None
    assert rules_gap.clips_much(facts({"train/clip_fraction": flat(0.15)}, gspo)) is None
