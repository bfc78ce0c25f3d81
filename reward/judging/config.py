"""Params of the reward functions that ask a server: `judge` and `http`. docs/judges.md has what each mode gives."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rollout.config import Config
from rollout.endpoint.address import checked_address

Mode = Literal["score", "reference", "rubric", "pairwise", "rank"]
COMPARING: tuple[Mode, ...] = ("pairwise", "rank")
"""Modes that look at a group, so that one completion alone has no score."""


class ServerLimits(Config):
    """How a server is asked. Requests and tokens are of the whole run: each reward worker keeps its share."""

    requests_at_once: int = Field(default=16, ge=1)
    """Requests on their way at the same time, those that wait to be tried again included."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests in any minute, those that are tried again included; null is no limit."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens of prompts and replies in any minute; a request counts with an estimate until the server tells. Null is no
    limit."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Time for one answer; then the request is tried again."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Time for all requests of a group, with every wait and every further attempt. What has no answer by then is
    `timeout`."""

    def share(self, num_workers: int) -> "ServerLimits":
        """What one of so many reward workers may do. Errors: `ValueError` where that is less than one request."""
        shares: dict[str, int] = {}
        for name in ("requests_at_once", "requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            if limit is None:
                continue
            if limit < num_workers:
                raise ValueError(
                    f"limits.{name} is {limit}, which {num_workers} reward workers cannot share; raise it, or lower "
                    "reward.num_workers"
                )
            shares[name] = limit // num_workers
        return self.model_copy(update=shares)


class AskedConfig(Config):
    """What the functions that ask a server have in common."""

    api_key_env: str | None = None
    """Name of the environment variable with the key that the server wants; null sends none. The key itself is in no
    file."""
    limits: ServerLimits = ServerLimits()


class JudgeConfig(AskedConfig):
    """A model behind an OpenAI-compatible address judges completions."""

    base_url: str
    """Address of the server, as `http://host:8000/v1`; `/chat/completions` below it is asked."""
    model: str
    """Name under which the server has the judge."""
    mode: Mode = "score"
    """What the judge is asked for: a `score` for each completion, whether it agrees with the `reference` (the row's
    ground truth), a `rubric` of several criteria, the better of two (`pairwise`), or the `rank` of all of a group."""
    instructions: str = ""
    """What makes a completion good, in words, for every mode."""
    scale: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest score that the judge may give in mode `score`; they become 0 and 1."""
    rubric: str | None = None
    """With mode `rubric`: a TOML file of criteria."""
    opponents: int | None = Field(default=None, ge=2)
    """With mode `pairwise`: completions of the group that each one is compared with, an even number; null compares all
    with all."""
    reads: Literal["answer", "completion"] = "answer"
    """What the judge sees: the completion without its thought (`<think>...</think>`), or all of it."""
    temperature: float = Field(default=0.0, ge=0)
    """That the judge samples with."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest reply of the judge, its thought included."""
    system_turn: bool = True
    """Whether the rules stand in a system turn; else before the texts in the user's, for a judge whose chat template
    has none."""
    structured: bool = False
    """Ask the server to hold the reply to the form of a verdict (`response_format` with a JSON schema), where it can:
    for small models, which then cannot think before their verdict."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More keys of the request's body, as `{chat_template_kwargs: {enable_thinking: false}}`."""
    gold: str | None = None
    """Name of another component of the reward that is known to be right, as a `math` of weight 0: how often the judge
    agrees with it is a metric."""

    @property
    def address(self) -> str:
        """Of the server."""
        return self.base_url

    @property
    def address_key(self) -> str:
        """Param with the address."""
        return "base_url"

    @property
    def faults_of(self) -> str:
        """Params to look at where a server refuses for good."""
        return "base_url, model or api_key_env"

    def num_requests(self, group_size: int) -> int:
        """That a group takes when each gets its answer at once."""
        if self.mode == "rank":
            return 1
        if self.mode == "pairwise":
            return group_size * min(self.opponents or group_size - 1, group_size - 1)
        return group_size

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, base_url: str) -> str:
        return checked_address(base_url, key="base_url", mend="api_key_env")

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, extra: dict[str, Any]) -> dict[str, Any]:
        own = sorted({"model", "messages", "temperature", "max_tokens", "stream", "n"} & extra.keys())
        if own:
            raise ValueError(f"extra has {own[0]}, which the judge sets itself; leave it out")
        return extra

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale is [{self.scale[0]:g}, {self.scale[1]:g}], expected the lowest score first")
        for key, mode in (("rubric", "rubric"), ("opponents", "pairwise")):
            if getattr(self, key) is not None and self.mode != mode:
                raise ValueError(f"{key} is of mode {mode}, and mode is {self.mode}; leave one of them out")
        if self.mode == "rubric" and self.rubric is None:
            raise ValueError("mode is rubric, and rubric is not set; set it to a TOML file of criteria")
        if self.structured and "response_format" in self.extra:
            raise ValueError("structured is true and extra has a response_format; leave one of them out")
        if self.opponents is not None and self.opponents % 2:
            raise ValueError(
                f"opponents is {self.opponents}, expected an even number: each meets as many on both sides"
            )
        return self


class HttpConfig(AskedConfig):
    """An address of the user's scores groups."""

    url: str
    """Address to which each group is posted as JSON."""
    columns: tuple[str, ...] | None = None
    """Columns of the row that are sent; null sends all."""

    @property
    def address(self) -> str:
        """Of the server."""
        return self.url

    @property
    def address_key(self) -> str:
        """Param with the address."""
        return "url"

    @property
    def faults_of(self) -> str:
        """Params to look at where a server refuses for good."""
        return "url or api_key_env"

    def num_requests(self, _group_size: int) -> int:
        """That a group takes when each gets its answer at once."""
        return 1

    @field_validator("url")
    @classmethod
    def _check_address(cls, url: str) -> str:
        return checked_address(url, key="url", mend="api_key_env")


ASKED: dict[str, type[JudgeConfig] | type[HttpConfig]] = {"judge": JudgeConfig, "http": HttpConfig}
"""Reward functions that ask a server -> their params."""
