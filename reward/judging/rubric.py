"""A rubric: a TOML file of criteria with weights.

[[criteria]]
name = "sources"
question = "Is every claim backed by a source that is named?"
weight = 2.0
scale = [0, 2]
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from rollout.call_params import problem_of
from rollout.config import Config

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


class Criterion(Config):
    """One question of a rubric."""

    name: str
    """Letters, digits, `_` and `-`: how the verdict names it."""
    question: str = Field(min_length=1)
    """What the judge answers with a number."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Its part in the sum; below 0 for what is not wanted."""
    scale: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest number; they become 0 and 1."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"name is {name!r}, expected letters, digits, _ and -, 40 at most")
        return name

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not scale[0] < scale[1]:
            raise ValueError(f"scale is [{scale[0]:g}, {scale[1]:g}], expected the lowest number first")
        return scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubric:
    """Criteria in the order of their file."""

    criteria: tuple[Criterion, ...]

    def value_of(self, shares: Mapping[str, float]) -> float:
        """sum of weight * share / sum of the weights above 0; `shares` are from 0 to 1, by name. 1 is the most that can
        be reached; what is not wanted takes away, down to below 0."""
        above = sum(one.weight for one in self.criteria if one.weight > 0)
        return sum(one.weight * shares[one.name] for one in self.criteria) / above


def read_rubric(path: str) -> Rubric:
    """Errors: `ValueError` for a file that cannot be read or is no rubric: one sentence."""
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise ValueError(f"the rubric {path} cannot be read: {error}") from error
    listed = found.pop("criteria", None)
    if found or not isinstance(listed, list) or not listed:
        raise ValueError(f"the rubric {path} has {', '.join(found) or 'no criteria'}, expected [[criteria]] alone")
    criteria = tuple(_criterion(path, number, values) for number, values in enumerate(listed, start=1))
    names = [criterion.name for criterion in criteria]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the rubric {path} has two criteria named {twice[0]!r}; rename one")
    if all(criterion.weight <= 0 for criterion in criteria):
        raise ValueError(f"the rubric {path} has no criterion with a weight above 0; give one of them such a weight")
    return Rubric(criteria=criteria)


def _criterion(path: str, number: int, values: Any) -> Criterion:
    try:
        return Criterion.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"the rubric {path}: {problem_of(Criterion, error, f'criteria.{number}')}") from error
