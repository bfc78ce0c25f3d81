"""What one token adds to the objective of a run, as far as a page can compute it from what was recorded.

It can where the objective is that of DeepSeekMath (arXiv 2402.03300, eq. 3): the clipped surrogate of each token's
ratio to the sampler, less k3 against the reference. Of any other the record lacks a part, and the page must not show a
term that nobody computed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from learner.objective import ObjectiveConfig, ProcessAdvantage
from learner.surrogate_config import PpoClip


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerm:
    """The term of a token: min(A r, A clip(r)) - kl_coef k3."""

    clip: tuple[float, float] | None
    """Bounds of r = p(learner) / p(sampler); None where the term is another one."""
    kl_coef: float
    """Of k3 in the loss; 0 where the loss has no such part."""
    has_reference: bool
    """Whether the learner compared with a reference."""
    differs: tuple[str, ...]
    """Why the term is another one; empty where it is not."""


def token_term(config: Mapping[str, Any] | None) -> TokenTerm:
    """Of the plain values of config.yaml, which may hold anything. What an older run lacks has today's defaults."""
    learner = config.get("learner", {}) if isinstance(config, Mapping) else None
    written = learner.get("objective", {}) if isinstance(learner, Mapping) else None
    try:
        objective = ObjectiveConfig.model_validate(written)
    except ValidationError:
        return TokenTerm(clip=None, kl_coef=0.0, has_reference=False, differs=("its configuration is not known",))
    teacher = ("a teacher's distillation is a part of it",) if (learner or {}).get("teacher") else ()
    differs, surrogate, kl = (*teacher, *_differences(objective)), objective.surrogate, objective.kl
    clip = None
    if isinstance(surrogate, PpoClip) and not differs:
        high = surrogate.eps if surrogate.eps_high is None else surrogate.eps_high
        clip = 1.0 - surrogate.eps, 1.0 + high
    is_k3 = kl.place == "loss" and kl.estimator == "k3" and not kl.unbiased
    return TokenTerm(
        clip=clip,
        kl_coef=kl.coef if is_k3 else 0.0,
        has_reference=objective.needs_reference,
        differs=differs,
    )


def _differences(objective: ObjectiveConfig) -> Iterator[str]:
    """What of the objective is not in the term, in words that end a sentence."""
    surrogate, kl = objective.surrogate, objective.kl
    if isinstance(objective.advantage, ProcessAdvantage):
        yield "its tokens have advantages of their own, from the rewards of steps"
    if not isinstance(surrogate, PpoClip):
        yield f"the surrogate is {surrogate.kind}"
    elif surrogate.level != "token":
        yield "the clipped ratio is that of the whole completion"
    elif surrogate.dual_clip is not None or surrogate.delta is not None:
        yield "the clip has a further bound (dual_clip or delta)"
    if objective.proximal != "sampler":
        yield f"the ratio is against another probability than the sampler's ({objective.proximal})"
    if objective.corrections:
        kinds = ", ".join(dict.fromkeys(correction.kind for correction in objective.corrections))
        yield f"corrections weight tokens or leave them out ({kinds})"
    if objective.entropy.is_on:
        yield "there is an entropy bonus"
    if kl.coef > 0 and kl.place == "reward":
        yield "the KL is taken off the rewards, and the advantage shown is that of the rewards without it"
    elif kl.coef > 0 and (kl.estimator != "k3" or kl.unbiased):
        yield f"the KL to the reference is {'k3 times the ratio' if kl.unbiased else kl.estimator}"
