"""Writes `losses.npz` and `advantages.npz`: what TRL 1.16.0's own code gives for every case, in float64.

By hand, in an environment that has TRL beside what Shoal needs:

    python -m venv /tmp/trl
    echo $PWD/.venv/lib/python3.11/site-packages > /tmp/trl/lib/python3.11/site-packages/shoal.pth
    /tmp/trl/bin/pip install --no-deps trl==1.16.0
    PYTHONPATH=$PWD /tmp/trl/bin/python -m tests.learner.parity.make_references
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl

from tests.learner.parity.advantage_cases import advantage_cases, reward_tables
from tests.learner.parity.loss_cases import GROUP, ON_POLICY, SCENES, Scene, loss_cases
from tests.learner.parity.trl_trainers import advantages, loss_and_gradient

HERE = Path(__file__).parent
LENGTHS = {
    "whole": (4, 4, 4, 4, 4, 4, 4, 4),
    "ragged": (5, 1, 3, 2, 4, 5, 2, 3),
    "holes": (5, 2, 4, 3, 5, 3, 4, 2),
    "empty": (3, 4, 2, 5, 3, 1, 4, 2),
    ON_POLICY: (2, 5, 1, 4, 3, 2, 5, 4),
}
SPREADS = {"whole": 0.05, "ragged": 0.3, "holes": 0.6, "empty": 0.4, ON_POLICY: 0.0}
"""Standard deviation of log p(policy) - log p(before the step), about."""
ADVANTAGES = (1.3, -0.7, 0.0, -0.6, -1.1, 0.9, 0.4, -0.2)


def scene_of(name: str) -> Scene:
    """Random logits, and log-probabilities about theirs."""
    rng = np.random.default_rng(list(name.encode()))
    lengths_B = np.array(LENGTHS[name])
    shape = (len(lengths_B), int(lengths_B.max()))
    mask_BT = np.arange(shape[1]) < lengths_B[:, None]
    if name == "holes":
        mask_BT &= rng.random(shape) > 0.3
        mask_BT[:, 1] = True
    if name == "empty":
        mask_BT[[0, 5]] = False
    logits_BT = rng.normal(0.5, 1.2, shape)
    policy_BT = -np.log1p(np.exp(-logits_BT))

    def about(values_BT: np.ndarray, spread: float) -> np.ndarray:
        return np.minimum(values_BT + rng.normal(0.0, spread, shape), -1e-3)

    old_BT = policy_BT if name == ON_POLICY else about(policy_BT, SPREADS[name])
    return Scene(
        logits_BT=logits_BT,
        old_BT=old_BT,
        sampler_BT=about(old_BT, 0.2),
        ref_BT=about(policy_BT, 0.5),
        lengths_B=lengths_B,
        mask_BT=mask_BT,
        advantages_B=np.array(ADVANTAGES),
        rewards_B=rng.normal(0.0, 1.0, len(lengths_B)),
    )


def main() -> None:
    """Both files."""
    assert trl.__version__ == "1.16.0", trl.__version__
    torch.set_default_dtype(torch.float64)
    scenes = {name: scene_of(name) for name in SCENES}
    arrays: dict[str, Any] = {
        f"{name}/{field}": getattr(scene, field) for name, scene in scenes.items() for field in Scene.__slots__
    }
    losses, gradients = [], []
    for case in loss_cases():
        loss, gradient_BT = loss_and_gradient(case, scenes[case.scene])
        mask_BT = torch.from_numpy(scenes[case.scene].mask_BT)
        if case.loss != "rloo":
            assert not gradient_BT[~mask_BT].any(), case
        losses.append(loss)
        gradients.append(gradient_BT[mask_BT].numpy())
    assert all(len(scene.lengths_B) == 2 * GROUP for scene in scenes.values())
    names = np.array([str(case) for case in loss_cases()])
    np.savez_compressed(
        HERE / "losses.npz", names=names, losses=np.array(losses), gradients=np.concatenate(gradients), **arrays
    )
    tables = reward_tables()
    found = [advantages(case, tables[case.table]).numpy() for case in advantage_cases()]
    rewards: dict[str, Any] = {f"{i}/rewards_BK": table.rewards_BK for i, table in enumerate(tables)}
    weights: dict[str, Any] = {f"{i}/weights_K": table.weights_K for i, table in enumerate(tables)}
    groups: dict[str, Any] = {f"{i}/group": np.array(table.group) for i, table in enumerate(tables)}
    np.savez_compressed(HERE / "advantages.npz", advantages=np.concatenate(found), **rewards, **weights, **groups)
    print(f"{len(losses)} losses, {len(found)} rows of advantages")


if __name__ == "__main__":
    main()
