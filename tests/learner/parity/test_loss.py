"""Loss and gradient against those of TRL's own code."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.learner.parity.loss_cases import PPO, SCENES, LossCase, Scene, loss_cases
from tests.learner.parity.shoal_loss import Found, loss_and_gradient

TOLERANCE = 1e-10
BY_COMPLETIONS = ("grpo", "sapo", "dr_grpo", "luspo", "gmpo", "rloo")
"""Losses of TRL whose denominator counts completions, those without a token included."""


@pytest.fixture(scope="module")
def stored() -> Mapping[str, NDArray[np.float64]]:
    with np.load(Path(__file__).with_name("losses.npz")) as arrays:
        return dict(arrays)


def as_trl(case: LossCase, scene: Scene, found: Found) -> tuple[float, NDArray[np.float64]]:
    """Shoal's loss and gradient, brought to TRL's denominators: the first two rows of the last table
    of docs/algorithms/trl.md."""
    gradient_BT = found.gradient_BT.numpy()
    if case.loss not in BY_COMPLETIONS:
        return found.loss, gradient_BT
    counts_B = found.counts_B.numpy()
    share = float(counts_B.mean())
    loss = found.loss * share
    if case.loss == "gmpo":  # the geometric mean of no ratios is 1
        loss -= float(scene.advantages_B[~counts_B].sum()) / len(counts_B)
    return loss, gradient_BT * share


@pytest.mark.parametrize("loss", [*PPO, "cispo", "sapo", "gmpo", "rloo"])
def test_loss_and_gradient_are_those_of_trl(stored: Mapping[str, NDArray[np.float64]], loss: str) -> None:
    scenes = {name: Scene.of(stored, name) for name in SCENES}
    cases = list(loss_cases())
    assert [str(case) for case in cases] == stored["names"].tolist(), (
        "the references are of other cases: make them anew"
    )
    ends = np.cumsum([int(scenes[case.scene].mask_BT.sum()) for case in cases])
    wrong = []
    for case, end, expected in zip(cases, ends, stored["losses"], strict=True):
        if case.loss != loss:
            continue
        scene = scenes[case.scene]
        found, gradient_BT = as_trl(case, scene, loss_and_gradient(case, scene))
        expected_gradient = stored["gradients"][end - int(scene.mask_BT.sum()) : end]
        errors = abs(found - expected), float(np.abs(gradient_BT[scene.mask_BT] - expected_gradient).max())
        if not max(errors) <= TOLERANCE:
            wrong.append(f"{case}: loss off by {errors[0]:.2g}, gradient by {errors[1]:.2g}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:40])


def test_every_option_changes_what_trl_gives(stored: Mapping[str, NDArray[np.float64]]) -> None:
    """One that did not reach TRL's code would be compared with nothing."""
    sizes = {name: int(Scene.of(stored, name).mask_BT.sum()) for name in SCENES}
    found: dict[LossCase, NDArray[np.float64]] = {}
    start = 0
    for case, loss in zip(loss_cases(), stored["losses"], strict=True):
        found[case] = np.array([loss, *stored["gradients"][start : start + sizes[case.scene]]])
        start += sizes[case.scene]
    options = ("level", "clip", "kl", "correction", "temperatures", "entropy_coef")
    changed: dict[tuple[str, str, object], bool] = {}
    for case, values in found.items():
        for option in options:
            plain = replace(case, **{option: getattr(LossCase(loss="", scene=""), option)})
            if plain != case and plain in found:
                key = (case.loss, option, getattr(case, option))
                changed[key] = changed.get(key, False) or bool(np.abs(values - found[plain]).max() > 1e-6)
    assert len(changed) > 80
    assert {option for _, option, _ in changed} == {*options}
    assert not [key for key, is_changed in changed.items() if not is_changed]


def test_there_are_at_least_two_thousand_combinations() -> None:
    cases = list(loss_cases())
    assert len(set(cases)) == len(cases) >= 2000
