"""Surrogates: advantages and ratios -> the objective of each token, to be maximised.

A surrogate of a whole completion (GSPO, GMPO, RLOO) has the same value at each of its tokens: with the token weights
of `sequence_mean` their sum is the value itself.

Dimensions: N tokens, S completions.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from learner.algorithm.own import load_own
from learner.algorithm.tokens import Completions, bounded_exp
from learner.surrogate_config import Cispo, Dppo, Gmpo, OwnSurrogate, PolicyGradient, PpoClip, Sapo, SurrogateConfig
from rollout.errors import LearnerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """What a surrogate is made of. [N] each; 0 where a token is not trained on."""

    policy_N: Tensor
    """Log-probabilities (nats) under the current weights, with a gradient."""
    anchor_N: Tensor
    """Log-probabilities that the ratio is against, without one."""
    log_ratio_N: Tensor
    """`policy_N - anchor_N`."""
    ratio_N: Tensor
    """Its exponential, within e^+-20."""
    advantages_N: Tensor
    completions: Completions


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a surrogate gives."""

    objective_N: Tensor
    """To be maximised."""
    low_N: Tensor
    """bool; True where the ratio is held at the lower bound: no gradient of the ratio comes through."""
    high_N: Tensor
    """The same at the upper bound."""


class Surrogate(Protocol):
    """A function of one's own: `kind: own`, `function: my_package.losses:mine`, with `params` as keywords."""

    def __call__(self, ratios: Ratios) -> Objective:
        """The objective of each token, with its gradient."""
        ...


def surrogate_of(config: SurrogateConfig) -> Surrogate:
    """The function that a configuration names.

    Errors: `ConfigError` for one of one's own that cannot be loaded or takes other params; then what is returned raises
    `LearnerError` where the function gives something else than an objective for each token.
    """
    if isinstance(config, OwnSurrogate):
        return functools.partial(_checked, load_own(config), config.function)
    return functools.partial(_OF_KIND[type(config)], config=config)


def ppo_clip(ratios: Ratios, config: PpoClip) -> Objective:
    """min(r A, clip(r, 1 - eps, 1 + eps_high) A); with `dual_clip` c at least c A where A < 0, with `delta` the r of
    the first branch at most delta."""
    ratio_N, advantages_N = _ratio_at(ratios, config.level), ratios.advantages_N
    free_N = ratio_N if config.delta is None else ratio_N.clamp(max=config.delta)
    unclipped_N = free_N * advantages_N
    clipped_N = ratio_N.clamp(1.0 - config.eps, 1.0 + config.high) * advantages_N
    objective_N = torch.minimum(unclipped_N, clipped_N)
    with torch.no_grad():
        is_clipped_N = clipped_N < unclipped_N
        low_N, high_N = is_clipped_N & (advantages_N < 0), is_clipped_N & (advantages_N > 0)
        if config.delta is not None:
            high_N = high_N | ((advantages_N < 0) & (ratio_N > config.delta))
    if config.dual_clip is not None:
        bound_N = config.dual_clip * advantages_N
        with torch.no_grad():
            high_N = high_N | ((advantages_N < 0) & (objective_N < bound_N))
        objective_N = torch.where(advantages_N < 0, torch.maximum(objective_N, bound_N), objective_N)
    return Objective(objective_N=objective_N, low_N=low_N, high_N=high_N)


def gmpo(ratios: Ratios, config: Gmpo) -> Objective:
    """exp(mean_t clip(log r_t)) A, each log-ratio clipped on the side that its advantage pushes to."""
    high = config.eps if config.eps_high is None else config.eps_high
    is_positive_N = ratios.advantages_N > 0
    log_ratio_N = ratios.log_ratio_N
    clipped_N = torch.where(is_positive_N, log_ratio_N.clamp(max=high), log_ratio_N.clamp(min=-config.eps))
    completions = ratios.completions
    objective_N = completions.spread(bounded_exp(completions.means(clipped_N))) * ratios.advantages_N
    return Objective(
        objective_N=objective_N,
        low_N=~is_positive_N & (log_ratio_N < -config.eps),
        high_N=is_positive_N & (log_ratio_N > high),
    )


def cispo(ratios: Ratios, config: Cispo) -> Objective:
    """sg[clip(r, floor, cap)] A log p."""
    weight_N = ratios.ratio_N.detach().clamp(config.floor, config.cap)
    return Objective(
        objective_N=weight_N * ratios.advantages_N * ratios.policy_N,
        low_N=ratios.ratio_N < config.floor,
        high_N=ratios.ratio_N > config.cap,
    )


def sapo(ratios: Ratios, config: Sapo) -> Objective:
    """(4 / tau) sigmoid(tau (r - 1)) A; at r = 1 its gradient is that of r A. Nothing is held at a bound."""
    one = ratios.ratio_N.new_ones(())  # in the precision of the ratios: a plain number would be one of fp32
    tau_N = torch.where(ratios.advantages_N > 0, config.tau * one, config.tau_negative * one)
    gate_N = torch.sigmoid(tau_N * (ratios.ratio_N - 1.0)) * 4.0 / tau_N
    never_N = torch.zeros_like(ratios.completions.mask_N)
    return Objective(objective_N=gate_N * ratios.advantages_N, low_N=never_N, high_N=never_N)


def dppo(ratios: Ratios, config: Dppo) -> Objective:
    """r A, and 0 where p(policy) already moved further than the threshold in the direction of the advantage."""
    with torch.no_grad():
        distance_N = _DIVERGENCES[config.divergence](ratios.anchor_N.exp(), ratios.policy_N.exp())
        is_far_N = (distance_N > config.threshold) & ratios.completions.mask_N
        low_N = is_far_N & (ratios.advantages_N < 0) & (ratios.log_ratio_N < 0)
        high_N = is_far_N & (ratios.advantages_N > 0) & (ratios.log_ratio_N > 0)
    objective_N = ratios.ratio_N * ratios.advantages_N
    return Objective(
        objective_N=torch.where(low_N | high_N, torch.zeros_like(objective_N), objective_N), low_N=low_N, high_N=high_N
    )


def policy_gradient(ratios: Ratios, config: PolicyGradient) -> Objective:  # noqa: ARG001  # it has no options
    """r A."""
    never_N = torch.zeros_like(ratios.completions.mask_N)
    return Objective(objective_N=ratios.ratio_N * ratios.advantages_N, low_N=never_N, high_N=never_N)


def _ratio_at(ratios: Ratios, level: str) -> Tensor:
    if level == "token":
        return ratios.ratio_N
    completions = ratios.completions
    if level == "product":
        return completions.spread(bounded_exp(completions.sums(ratios.log_ratio_N)))
    sequence_N = completions.spread(bounded_exp(completions.means(ratios.log_ratio_N)))
    if level == "sequence":
        return sequence_N
    # sg[s] p / sg[p] (GSPO-token): the value of the completion's ratio, each token's own gradient.
    return sequence_N.detach() * (ratios.policy_N - ratios.policy_N.detach()).exp()


def _total_variation(from_N: Tensor, to_N: Tensor) -> Tensor:
    """[N] of "this token or another" under both."""
    return (to_N - from_N).abs()


def _bernoulli_kl(from_N: Tensor, to_N: Tensor) -> Tensor:
    """[N] KL(from || to) of "this token or another", nats. 0 log 0 is 0."""
    # Rounding may give a log-probability above 0.
    from_N, to_N = from_N.clamp(max=1.0), to_N.clamp(max=1.0)
    rest_from_N, rest_to_N = 1.0 - from_N, 1.0 - to_N
    this_N: Tensor = torch.special.xlogy(from_N, from_N) - torch.special.xlogy(from_N, to_N)
    another_N: Tensor = torch.special.xlogy(rest_from_N, rest_from_N) - torch.special.xlogy(rest_from_N, rest_to_N)
    return this_N + another_N


def _checked(function: Surrogate, name: str, ratios: Ratios) -> Objective:
    """What a function of the user's gives, or a sentence on what is wrong with it."""
    found = function(ratios)
    if not isinstance(found, Objective):
        raise LearnerError(f"{name} gave a {type(found).__name__}, expected a learner.algorithm.surrogates.Objective")
    expected = ratios.advantages_N.shape
    for part in ("objective_N", "low_N", "high_N"):
        shape = getattr(getattr(found, part), "shape", None)
        if shape != expected:
            raise LearnerError(f"{name}: {part} has the shape {shape}, expected {expected}: one value for each token")
    return found


_DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"tv": _total_variation, "kl": _bernoulli_kl}
_OF_KIND: dict[type, Callable[..., Objective]] = {
    PpoClip: ppo_clip,
    Gmpo: gmpo,
    Cispo: cispo,
    Sapo: sapo,
    Dppo: dppo,
    PolicyGradient: policy_gradient,
}
