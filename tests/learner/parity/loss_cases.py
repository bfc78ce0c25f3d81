"""Losses that TRL and Shoal both have: the same tensors (a scene) and options of TRL (a case).

The policy is a model of a vocabulary of two: its logit of a token is the difference to the other, so that the token's
log-probability and the entropy both follow from it, and one gradient holds all of a loss.

Dimensions: B completions in groups of G, T token positions.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 4
MAX_TOKENS = 8
"""TRL's `max_completion_length`, the constant of `dr_grpo`."""
ON_POLICY = "on_policy"
SCENES = ("whole", "ragged", "holes", "empty", ON_POLICY)
PPO = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
"""Losses of TRL with a clipped ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a step sees, in float64."""

    logits_BT: NDArray[np.float64]
    old_BT: NDArray[np.float64]
    """Log-probabilities under the weights before the first update."""
    sampler_BT: NDArray[np.float64]
    """Those that the sampler gave."""
    ref_BT: NDArray[np.float64]
    lengths_B: NDArray[np.int64]
    """Tokens of each completion, trained on or not."""
    mask_BT: NDArray[np.bool_]
    """True where a token is trained on."""
    advantages_B: NDArray[np.float64]
    rewards_B: NDArray[np.float64]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "Scene":
        """The one that is stored under a name."""
        return cls(**{field: arrays[f"{name}/{field}"] for field in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """TRL's options for the gap to the sampler, by their names there."""

    vllm_importance_sampling_mode: str | None = None
    """None: no importance weights."""
    vllm_importance_sampling_clip_min: float | None = None
    vllm_importance_sampling_clip_max: float | None = None
    off_policy_mask_threshold: float | None = None
    top_entropy_quantile: float = 1.0

    @property
    def knows_sampler(self) -> bool:
        """Whether the sampler's log-probabilities are handed over; else it counts as the policy before the step."""
        return self.vllm_importance_sampling_mode is not None or self.off_policy_mask_threshold is not None


NONE = Correction()
TOP_ENTROPY = Correction(top_entropy_quantile=0.3)
_WEIGHTS = tuple(
    Correction(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
    )
    for mode, low, high in (
        ("token_truncate", None, 1.2),
        ("token_mask", 0.8, 1.3),
        ("sequence_truncate", 0.7, 1.4),
        ("sequence_mask", None, 1.5),
    )
)
CORRECTIONS = (
    *_WEIGHTS,
    # Each lies between completions of one scene.
    Correction(off_policy_mask_threshold=0.2),
    TOP_ENTROPY,
    Correction(
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=1.2,
        off_policy_mask_threshold=0.1,
        top_entropy_quantile=0.5,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """`epsilon` (CISPO has none), `epsilon_high` (CISPO's highest ratio), `delta`."""

    epsilon: float = 0.2
    epsilon_high: float | None = None
    delta: float | None = None


PLAIN, HIGHER, DELTA, NARROW = (
    Clip(),
    Clip(epsilon_high=0.28),
    Clip(epsilon_high=0.28, delta=1.4),
    Clip(epsilon=3e-4, epsilon_high=4e-4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kl:
    """`beta` and `use_bias_correction_kl`."""

    beta: float = 0.0
    unbiased: bool = False


WITHOUT, LIGHT, HEAVY, UNBIASED = Kl(), Kl(beta=0.04), Kl(beta=0.4), Kl(beta=0.1, unbiased=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCase:
    """One combination of TRL's options on one scene."""

    loss: str
    """TRL's `loss_type`, or `gmpo` or `rloo` for the trainers of these names."""
    scene: str
    level: str = "token"
    """`importance_sampling_level`."""
    clip: Clip = PLAIN
    kl: Kl = WITHOUT
    correction: Correction = NONE
    temperatures: tuple[float, float] = (1.0, 1.05)
    """SAPO's, for positive advantages and others."""
    entropy_coef: float = 0.0
    num_micro_batches: int = 1
    """`gradient_accumulation_steps`; the losses add up."""

    def __str__(self) -> str:
        return " ".join((self.loss, self.scene, *_changed(self, LossCase(loss=self.loss, scene=self.scene))))


def _changed(options: Any, defaults: Any) -> Iterator[str]:
    """`name=value` of each option that is not its default, those of parts among them."""
    for option in fields(options):
        value, default = getattr(options, option.name), getattr(defaults, option.name)
        if is_dataclass(value):
            yield from _changed(value, default)
        elif value != default:
            yield f"{option.name}={value}"


def loss_cases() -> Iterator[LossCase]:
    """All of them, in the order of the stored values."""
    yield from _clipped()
    yield from _others()
    yield from _entropy_bonus()
    yield from _trainers()
    yield from _micro_batches()


def _clipped() -> Iterator[LossCase]:
    """Every clip with every KL; every correction with some of both."""
    for loss, level, scene in itertools.product(PPO, ("token", "sequence"), SCENES):
        kls = (WITHOUT, LIGHT, HEAVY, UNBIASED) if level == "token" else (WITHOUT, LIGHT, HEAVY)
        for clip, kl in itertools.product((PLAIN, HIGHER, DELTA, NARROW), kls):
            yield LossCase(loss=loss, scene=scene, level=level, clip=clip, kl=kl)
        last = UNBIASED if level == "token" else LIGHT
        for correction, (clip, kl) in itertools.product(
            CORRECTIONS, ((PLAIN, WITHOUT), (HIGHER, LIGHT), (DELTA, last))
        ):
            yield LossCase(loss=loss, scene=scene, level=level, clip=clip, kl=kl, correction=correction)


def _others() -> Iterator[LossCase]:
    """CISPO and SAPO, with what they have in place of a clip."""
    for scene, kl, correction in itertools.product(SCENES, (WITHOUT, LIGHT, UNBIASED), (NONE, *CORRECTIONS)):
        for cap in (1.1, 5.0):
            yield LossCase(loss="cispo", scene=scene, clip=Clip(epsilon_high=cap), kl=kl, correction=correction)
        for temperatures in ((1.0, 1.05), (2.0, 0.5)):
            yield LossCase(loss="sapo", scene=scene, temperatures=temperatures, kl=kl, correction=correction)


def _entropy_bonus() -> Iterator[LossCase]:
    """Where the loss is a mean over tokens, as TRL's bonus always is."""
    without_mask = (NONE, CORRECTIONS[0], CORRECTIONS[4])
    for loss, scene, kl, correction in itertools.product(
        ("bnpo", "dapo", "cispo"), SCENES, (WITHOUT, LIGHT), without_mask
    ):
        clip = Clip(epsilon_high=5.0) if loss == "cispo" else HIGHER
        yield LossCase(loss=loss, scene=scene, clip=clip, kl=kl, correction=correction, entropy_coef=0.02)


def _trainers() -> Iterator[LossCase]:
    """GMPO and RLOO, which TRL has as trainers of their own."""
    narrow, wide = Clip(epsilon=0.1), Clip(epsilon=0.2, epsilon_high=0.4)
    for scene, clip in itertools.product(SCENES, (narrow, wide)):
        for kl in (WITHOUT, LIGHT, HEAVY):
            yield LossCase(loss="gmpo", scene=scene, clip=clip, kl=kl)
        yield LossCase(loss="gmpo", scene=scene, clip=clip, correction=TOP_ENTROPY)
    # RLOO masks nothing within a completion.
    for scene, clip, kl in itertools.product(("whole", "ragged", ON_POLICY), (PLAIN, HIGHER), (WITHOUT, LIGHT, HEAVY)):
        yield LossCase(loss="rloo", scene=scene, clip=clip, kl=kl)


def _micro_batches() -> Iterator[LossCase]:
    """Two of equal size. `bnpo` has another denominator in each of them, and so is not there."""
    for loss, scene, kl in itertools.product(
        ("grpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "gmpo"), SCENES, (WITHOUT, LIGHT)
    ):
        clip = Clip(epsilon_high=5.0) if loss == "cispo" else PLAIN
        for level in ("token", "sequence") if loss in PPO else ("token",):
            yield LossCase(loss=loss, scene=scene, level=level, clip=clip, kl=kl, num_micro_batches=2)
