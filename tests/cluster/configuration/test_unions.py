"""A field may be one of several classes told apart by `kind`, wherever it stands: here in a made-up configuration."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from cluster.config import RunConfig
from cluster.configuration.loading import build
from cluster.configuration.overrides import merge
from cluster.configuration.schema import alternatives, place_of
from rollout.config import Config
from rollout.errors import ConfigError


class Sum(Config):
    """Adds."""

    kind: Literal["sum"] = "sum"
    bias: float = 0.0


class Scaled(Config):
    """Multiplies what others give."""

    kind: Literal["scaled", "times"] = "scaled"
    factor: float
    of: "tuple[Term, ...]" = ()


Term = Annotated[Sum | Scaled, Field(discriminator="kind")]


class Part(Config):
    """A level between."""

    term: Term = Sum(bias=1.0)
    other: Term | None = None


class Made(Config):
    """The root."""

    first: Sum | Scaled = Field(discriminator="kind", default=Scaled(factor=2.0))
    terms: tuple[Term, ...] = ()
    named: dict[str, Term] = Field(default_factory=dict)
    part: Part = Part()
    sum: int = 0
    """Named as a kind is."""


Scaled.model_rebuild()


def made(values: dict[str, Any], *overrides: str) -> Made:
    return build(Made, values, overrides, source="made")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("first", {"first": {"kind": "scaled", "factor": 3}}),
        ("part.other", {"part": {"other": {"kind": "scaled", "factor": 3}}}),
        ("terms.1", {"terms": [{"kind": "sum"}, {"kind": "scaled", "factor": 3}]}),
        ("named.a", {"named": {"a": {"kind": "scaled", "factor": 3}}}),
        ("terms.0.of.0", {"terms": [{"kind": "times", "factor": 1, "of": [{"kind": "scaled", "factor": 3}]}]}),
    ],
)
def test_another_kind_drops_the_old_ones_keys_at_any_depth(path: str, values: dict[str, Any]) -> None:
    def at(config: Any) -> Any:
        for part in path.split("."):
            key: Any = int(part) if part.isdigit() else part
            config = config[key] if isinstance(config, (dict, tuple)) else getattr(config, part)
        return config

    assert at(made(values, f"{path}.factor=4")) == Scaled(factor=4.0)
    assert at(made(values, f"{path}.bias=4", f"{path}.kind=sum")) == Sum(bias=4.0)
    assert at(made(values, f"{path}.kind=times", f"{path}.factor=5")).factor == 5.0
    with pytest.raises(ConfigError, match=rf"^made: {path}\.bias: no such key; allowed here: factor, kind, of$"):
        made(values, f"{path}.bias=4")
    with pytest.raises(ConfigError, match=rf"^made: {path}\.factor: got 'x', allowed: a number$"):
        made(values, f"{path}.factor=x")
    sentence = rf"^made: {path}\.kind: got 'sun', allowed: sum, scaled, times \(did you mean sum\?\)$"
    with pytest.raises(ConfigError, match=sentence):
        made(values, f"{path}.kind=sun")
    with pytest.raises(ConfigError, match=rf"^made: {path}: got 7, allowed: a mapping"):
        made(values, f"{path}=7")


def test_a_kind_that_is_left_out_is_that_of_the_default() -> None:
    assert made({}, "first.factor=3").first == Scaled(factor=3.0)
    assert made({"part": {"term": {"bias": 2}}}).part.term == Sum(bias=2.0)
    assert made({"part": {"term": {"bias": 2}}}, "part.term.kind=sum").part.term == Sum(bias=2.0)
    assert made({"first": {"factor": 3}}, "first.kind=sum").first == Sum()
    for path in ("part.other", "named.a"):  # there is no default to take it from
        with pytest.raises(ConfigError, match=rf"^made: {path}\.kind: missing; allowed: sum, scaled, times$"):
            made({}, f"{path}.bias=1")


def test_the_order_of_overrides_does_not_matter_for_a_kind_but_for_what_replaces_the_whole() -> None:
    both = ["terms=[{kind: sum, bias: 1}]", "terms.0.kind=scaled", "terms.0.factor=2"]
    assert made({}, *both).terms == (Scaled(factor=2.0),)
    assert made({}, both[0], both[2], both[1]).terms == (Scaled(factor=2.0),)
    inner = ["first.of=[{kind: sum}]", "first.of.0.factor=9", "first.of.0.kind=times", "first.factor=1"]
    expected = Scaled(kind="times", factor=1.0, of=(Scaled(kind="times", factor=9.0),))
    assert made({}, *inner, "first.kind=times").first == expected
    assert made({}, "first.kind=times", *inner).first == expected


def test_a_recipe_of_another_kind_replaces_what_its_base_says() -> None:
    base = {"first": {"factor": 3, "of": []}, "part": {"other": {"kind": "sum", "bias": 1}}}
    over = {"first": {"kind": "sum"}, "part": {"other": {"kind": "times", "factor": 2}}}
    assert merge(Made, base, over) == over
    same = {"first": {"kind": "scaled", "factor": 4}, "part": {"other": {"bias": 2}}}
    assert merge(Made, base, same) == {
        "first": {"kind": "scaled", "factor": 4, "of": []},
        "part": {"other": {"kind": "sum", "bias": 2}},
    }


def test_every_union_of_classes_in_the_configuration_is_told_apart_by_kind() -> None:
    def check(model: type[BaseModel], path: str, seen: set[type[BaseModel]]) -> None:
        for name, field in model.model_fields.items():
            place, key = place_of(field), f"{path}{name}"
            models = place.models
            assert len(models) < 2 or place.kinds, f"{key}: give each of {models} a literal `kind`"
            for inner in [*models, *(model for item, _ in place.items() for model in item.models)]:
                if inner not in seen:
                    check(inner, f"{key}.", seen | {inner})
            plain = [m for m in alternatives(field.annotation) if m is not type(None)]
            assert len(plain) == 1 or place.kinds, f"{key}: a value of several types cannot be told by its place"

    check(RunConfig, "", set())
    check(Made, "", set())
