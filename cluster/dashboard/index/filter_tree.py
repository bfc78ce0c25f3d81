"""The tree of a filter: what `filters` makes of a text and `index_query` evaluates."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class Compare:
    """`value` is a float for a number, text for text, None for `none` (operators = and != alone)."""

    field: str
    """Its full name, or reward.NAME."""
    operator: Literal["<", "<=", ">", ">=", "=", "!=", "~", "!~"]
    value: float | str | None


@dataclass(frozen=True, slots=True)
class Between:
    """Ends included."""

    field: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag is set."""

    field: str


Node = And | Or | Not | Compare | Between | Flag
