"""The configuration of a run: all of it, and what differs from the defaults."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from cluster.config import RunConfig
from cluster.configuration.loading import parse_config
from cluster.run_files import CONFIG
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

_MISSING = object()


def config_page(store: "RunStore") -> dict[str, Any]:
    """`/api/runs/{run}/config`. `note` tells why nothing is known of the defaults, where that is so."""
    values = store.config()
    changed: list[dict[str, Any]] = []
    note = ""
    if values is not None:
        try:
            changed = changed_values(parse_config(store.config_text(), source=CONFIG))
        except ConfigError as error:  # of another version of the project, or a secret was taken out of it
            note = f"differences to the defaults are unknown: {error}"
    return {"config": values or {}, "changed": changed, "yaml": store.config_text(), "note": note}


def changed_values(config: RunConfig) -> list[dict[str, Any]]:
    """`changed` of the API, in the order of the configuration. What has no default is always among them, with null."""
    return [
        {"key": key, "value": to_jsonable_python(value), "default": to_jsonable_python(default)}
        for key, value, default in _differences(config, _MISSING, "")
    ]


def _differences(model: BaseModel, default: object, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value, default). `default` is the whole model's, where it has one of the same kind."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if type(default) is type(model):
            usual = getattr(default, name)
        else:
            usual = field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _differences(value, usual, f"{prefix}{name}.")
        elif usual is PydanticUndefined:
            yield f"{prefix}{name}", value, None
        elif value != usual:
            yield f"{prefix}{name}", value, usual
