"""All processes of a node are gone at once, and what lay in its object store with them."""

from pathlib import Path

import pytest

from tests.faults import faults, nodes
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

ONE_ON_A_NODE = ("rollout.num_engines=2", "rollout.cpus_per_engine=2", "learner.cpus_per_rank=2")
CPUS = 3
"""Of each node: room for one of these, and a reward worker."""


def test_its_groups_are_sampled_again_on_another_node(undisturbed: Path, tmp_path: Path) -> None:
    """Samplers and learner are on a node each, and one node is empty. The node of a sampler is lost when it has sampled
    a group of the step, which lies there."""
    path = tmp_path / "run"
    with nodes.cluster(tmp_path, num_nodes=4, cpus=CPUS) as address:
        fault = Faults.at("sampler", step=3, event="generated").do("lose_node")
        run = faults.start(path, fault, "tiny", *faults.SHORT, *ONE_ON_A_NODE, cluster=address)
        assert run.wait() == 0, run.output()
        struck = faults.struck(path)
    faults.assert_exactly_once(path)
    faults.assert_same_end(path, undisturbed)
    others = {"sampler-0", "sampler-1"} - {struck["victim"]}
    assert not any(faults.states(path, name) for name in others), "nothing happened to the other"
    states = faults.states(path, struck["victim"])
    # How often it is tried meanwhile depends on when Ray gives the node up, which takes it 15 s.
    assert "DEAD" in states
    assert states[-2:] == ["STALE", "HEALTHY"]
    leases = {(line["group_id"], line["attempt"]): line["worker"] for line in faults.ledger(path, "leased")}
    sampled = [(line["group_id"], line["attempt"]) for line in faults.ledger(path, "sampled")]
    lost = [group_id for group_id, attempt in sampled if attempt == 1 and (group_id, 2) in sampled]
    assert lost, "a group that was sampled, and lay on the node, is sampled again"
    assert {leases[group_id, 1] for group_id in lost} == {struck["victim"]}
    assert len(runs.read_lines(path / "metrics.jsonl")) == 6
    assert run.left_behind() == []
