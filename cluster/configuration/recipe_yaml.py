"""The YAML that recipes and overrides are written in: YAML 1.2's scalars, no duplicate keys, errors with file and line.

PyYAML reads YAML 1.1, where `1e-5` is a string, `010` is 8, `1:30` is 90, `on` is a truth value and a date is an
object. A learning rate that silently became a string, or a seed that became octal, is what this file prevents.
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

from rollout.errors import ConfigError

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of one YAML document; `source` names it in errors. Raises ConfigError."""
    try:
        return yaml.load(text, Loader=_RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else source
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}: this is no valid YAML: {problem}") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow has a position, but no mark
        raise ConfigError(f"{source}: this is no valid YAML: {' '.join(str(error).split())}") from error


def parse_scalar(text: str, source: str) -> Any:
    """The value of `key=text` on the command line.

    Text that starts with a bracket, brace or quote is YAML; other text is null, a truth value, a number, or else
    itself, character for character: `task.template=Q: {question} #1` needs no quoting against YAML's syntax.
    """
    if text.startswith(("[", "{", '"', "'")):
        return parse_yaml(text, source)
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return _to_float(text)
    return text


def dump_yaml(value: Any) -> str:
    """YAML that `parse_yaml` reads back to an equal value: floats keep all their digits, strings that look like
    another type are quoted, keys keep their order."""
    return yaml.dump(value, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=110)


def _to_float(text: str) -> float:
    special = text.lower().lstrip("+-")
    if special == ".inf":
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if special == ".nan" else float(text)


class _RecipeLoader(yaml.SafeLoader):
    """Builds plain values only; `!!python/...` tags are errors, as in SafeLoader."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - the name and type that PyYAML looks up

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys differ: PyYAML keeps the last of two equal keys without a word."""
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here again, first in line {seen[key]}", key_node.start_mark
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=True)


class _RecipeDumper(yaml.SafeDumper):
    """Writes what the loader reads."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - the name and type that PyYAML looks up

    def ignore_aliases(self, data: Any) -> bool:
        return True  # a value that occurs twice is written twice: a person reads this file


# The empty string in the lists of first characters stands for an empty scalar.
for _class in (_RecipeLoader, _RecipeDumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
    _class.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_RecipeLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_RecipeLoader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _to_float(node.value))
_RecipeDumper.add_representer(
    float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", _float_text(value))
)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML writes marks such as U+0085 as line breaks, which read back as spaces, unless the text is double-quoted.
    is_plain = all(character.isprintable() or character == "\n" for character in value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_plain else '"')


_RecipeDumper.add_representer(str, _represent_text)


def _float_text(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return ".nan" if math.isnan(value) else (".inf" if value > 0 else "-.inf")
