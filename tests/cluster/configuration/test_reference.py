"""The list of keys: whole, with help for each, and the page in docs/ is what the classes say."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from cluster.configuration.reference import find_keys, help_of, list_keys
from cluster.configuration.reference_text import format_keys, format_page
from cluster.configuration.schema import KIND, kinds_of, place_of
from rollout.config import Config
from rollout.errors import ConfigError

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def classes_below(root: type[BaseModel]) -> set[type[BaseModel]]:
    """Every configuration class that is reached from this one, by whatever fields."""
    found: set[type[BaseModel]] = set()
    waiting = [root]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.add(model)
            for field in model.model_fields.values():
                place = place_of(field)
                waiting += [*place.models, *(inner for item, _ in place.items() for inner in item.models)]
    return found


def test_every_field_of_every_class_has_help() -> None:
    classes = classes_below(RunConfig)
    assert len(classes) >= 20
    without = {f"{m.__name__}.{name}" for m in classes for name, field in m.model_fields.items() if not help_of(field)}
    # A kind that says nothing but which class it is has that class's docstring.
    without -= {f"{model.__name__}.{KIND}" for model in classes if len(kinds_of(model)) == 1}
    assert without == set(), "write a docstring under the field"
    assert [model.__name__ for model in classes if not model.__doc__] == []


def test_a_section_that_is_left_out_has_the_defaults_of_its_keys() -> None:
    """Each key has one default: else what a section gets would depend on whether one of its keys was written."""
    for model in classes_below(RunConfig):
        for name, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True, validated_data={})
            if isinstance(default, BaseModel):
                assert default == type(default)(), f"{model.__name__}.{name}"


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == format_page(list_keys()), (
        "run: shoal config --format markdown > docs/configuration.md"
    )


def test_every_key_of_a_run_is_listed() -> None:
    listed = {key.path for key in list_keys()}

    def check(value: object, path: str) -> None:
        assert path in listed
        if isinstance(value, dict) and path != "task.params":
            for name, child in value.items():
                check(child, f"{path}.{name}")

    for name, value in load_config("quickstart").model_dump(mode="json").items():
        check(value, name)


def test_a_key_has_type_range_default_and_help() -> None:
    (key,) = find_keys("reward.max_failure_fraction", list_keys())
    assert (key.type, key.default, key.kind) == ("number, above 0 and at most 1", "0.5", None)
    assert key.help.startswith("Above this share in two steps in a row the run ends")
    (key,) = find_keys("rollout.on_weight_sync", list_keys())
    assert (key.type, key.default) == ("one of drain, keep", '"drain"')
    (key,) = find_keys("task.dataset", list_keys())
    assert (key.type, key.default, key.kind) == ("text", "required", "hub")
    assert [key.kind for key in find_keys("task.path", list_keys())] == ["jsonl, parquet", "gsm8k"]
    assert [key.path for key in find_keys("reward.functions.3.weight", list_keys())] == ["reward.functions.N.weight"]
    assert [key.path for key in find_keys("task.params.max_digits", list_keys())] == ["task.params"] * 2
    assert len(find_keys("checkpoint", list_keys())) == 4


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("learner.lrr", r"^learner\.lrr: no such key; did you mean learner\.lr\?$"),
        ("lerner.lr", r"^lerner: no such key; did you mean learner\?$"),
        ("steps.x", r"^steps: this is one value, it has no key 'x'$"),
        (
            "eval.sampling.zz",
            r"no such key; allowed here: max_tokens, stop, stop_token_ids, temperature, top_k, top_p$",
        ),
    ],
)
def test_a_key_that_is_not_there_is_told(key: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        find_keys(key, list_keys())


def test_lists_mappings_and_kinds_of_a_made_up_class() -> None:
    class Flat(Config):
        """One value."""

        kind: Literal["flat"] = "flat"
        level: float = Field(default=0.5, ge=0)
        """How high."""

    class Steep(Config):
        """Two values."""

        kind: Literal["steep"] = "steep"
        slope: float
        """How fast."""

    class Made(Config):
        """The root."""

        shapes: dict[str, tuple[Annotated[Flat | Steep, Field(discriminator="kind")], ...]] = Field(
            default_factory=dict
        )
        """By name."""
        pair: tuple[int, str | None] = (1, None)
        """Two of them."""
        shape: Annotated[Flat | Steep, Field(discriminator="kind")] = Steep(slope=2.0)
        """One of them."""

    text = format_keys(list_keys(Made))
    assert "pair: list of 2: integer, text or null; default: [1, null]\n    Two of them." in text
    assert "shape: mapping with a kind: flat, steep\n    One of them." in text
    assert "shape.kind: one of flat, steep; default: steep" in text
    assert "shape.level (kind flat): number, at least 0; default: 0.5\n    How high." in text
    assert "shape.slope (kind steep): number; required\n    How fast." in text
