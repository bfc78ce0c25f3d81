"""Configuration of the surrogate: advantages and ratios to the objective of each token."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rollout.config import Config

IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class PpoClip(Config):
    """min(r A, clip(r, 1 - eps, 1 + eps_high) A) (PPO, arXiv 1707.06347; GRPO, DAPO, GSPO)."""

    kind: Literal["ppo_clip"] = "ppo_clip"
    level: Literal["token", "sequence", "sequence_token", "product"] = "token"
    """Of what r is the ratio: of a token; of a completion, as the geometric mean of its tokens (GSPO, arXiv
    2507.18071); of a completion, with the gradient of each token of its own (GSPO-token); of a completion, as the
    product of its tokens (RLOO, arXiv 2402.14740). A completion's ratio stands at each of its tokens: the aggregation
    `sequence_mean` counts it once, `sequence_sum` once for each token (LUSPO, arXiv 2602.05261), as `token_mean` and
    `token_sum` do."""
    eps: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped at 1 - eps below."""
    eps_high: float | None = Field(default=None, gt=0)
    """And at 1 + eps_high above; null takes `eps`. Above it is clip-higher (DAPO, arXiv 2503.14476)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Where the advantage is negative the objective is at least this times it (arXiv 1912.09729); null has no bound."""
    delta: float | None = Field(default=None, gt=1)
    """Upper bound of the unclipped ratio (two-sided clip, INTELLECT-2, arXiv 2505.07291), above 1 + eps_high; null has
    none."""

    @property
    def high(self) -> float:
        """Epsilon of the upper bound."""
        return self.eps if self.eps_high is None else self.eps_high

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.delta is not None and self.delta <= 1.0 + self.high:
            raise ValueError(
                f"delta is {self.delta:g} and the clip ends at 1 + {self.high:g}: delta would bound ratios that the "
                "clip lets through; set it above"
            )
        return self


class Gmpo(Config):
    """Geometric mean of the clipped ratios of a completion times its advantage (GMPO, arXiv 2507.20673)."""

    kind: Literal["gmpo"] = "gmpo"
    eps: float = Field(default=0.4, gt=0)
    """Log-ratios are clipped at -eps where the advantage is negative."""
    eps_high: float | None = Field(default=None, gt=0)
    """And at eps_high where it is positive; null takes `eps`."""


class Cispo(Config):
    """sg[min(r, cap)] A log p: every token keeps its gradient (CISPO, MiniMax-M1, arXiv 2506.13585)."""

    kind: Literal["cispo"] = "cispo"
    cap: float = Field(default=5.0, gt=0)
    """Highest ratio, itself: not 1 + an epsilon."""
    floor: float = Field(default=0.0, ge=0)
    """Lowest ratio."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.floor >= self.cap:
            raise ValueError(f"floor is {self.floor:g} and cap is {self.cap:g}; floor must be below cap")
        return self


class Sapo(Config):
    """(4 / tau) sigmoid(tau (r - 1)) A: a gate that closes softly (SAPO, arXiv 2511.20347)."""

    kind: Literal["sapo"] = "sapo"
    tau: float = Field(default=1.0, gt=0)
    """Steepness where the advantage is positive."""
    tau_negative: float = Field(default=1.05, gt=0)
    """And where it is not."""


class Dppo(Config):
    """r A, without the tokens whose probability already moved too far in the advantage's direction (DPPO,
    arXiv 2602.04879)."""

    kind: Literal["dppo"] = "dppo"
    divergence: Literal["tv", "kl"] = "tv"
    """Of the sampled token against all others: difference of probabilities, or Bernoulli KL(sampler || policy)."""
    threshold: float = Field(default=0.2, gt=0)
    """Above it a token has no gradient."""


class PolicyGradient(Config):
    """r A, unclipped. On-policy its gradient is that of REINFORCE: A grad log p."""

    kind: Literal["policy_gradient"] = "policy_gradient"


class OwnSurrogate(Config):
    """A surrogate of one's own; `learner.algorithm.surrogates.Surrogate` says what it is called with."""

    kind: Literal["own"] = "own"
    function: str = Field(pattern=IMPORT_PATH)
    """Import path `module:function`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""


SurrogateConfig = Annotated[
    PpoClip | Gmpo | Cispo | Sapo | Dppo | PolicyGradient | OwnSurrogate, Field(discriminator="kind")
]
