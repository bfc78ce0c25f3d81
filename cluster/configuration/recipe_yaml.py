"""The YAML that recipes, overrides and a run's `config.yaml` are written in: YAML 1.2, errors with file and line.

Scalars are those of the core schema of YAML 1.2 with whole numbers in decimal alone: `1e-5` is a number; `on`, `1:30`,
`0x10`, `1_000` and dates are text, as a person who wrote them may have meant. ruamel.yaml's own table would read the
last three otherwise.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node, ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver

from rollout.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_MAX_DEPTH = 64
"""Mappings and lists inside each other: the parser recurses, and Python's own limit would be no sentence."""

_NO_FOLDING = 2**31
"""Columns of a line that is written: where ruamel folds a quoted text behind an escape, a space more is read back."""


def parse_yaml(text: str, source: str) -> Any:
    """The value of one YAML document; `source` names it in errors. Raises ConfigError."""
    try:
        return _yaml().load(text)
    except MaxDepthExceededError as error:
        where = f"{source}, line {error.problem_mark.line + 1}"
        raise ConfigError(f"{where}: lists and mappings stand more than {_MAX_DEPTH} deep inside each other") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else source
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}: this is no valid YAML: {' '.join(problem.split())}") from error
    except YAMLError as error:  # a character that YAML does not allow has a position, but no mark
        raise ConfigError(f"{source}: this is no valid YAML: {' '.join(str(error).split())}") from error


def parse_scalar(text: str, source: str) -> Any:
    """The value of `key=text` on the command line.

    Text that starts with a bracket, brace or quote is YAML; other text is null, a truth value, a number, or else
    itself, character for character: `task.template=Q: {question} #1` needs no quoting against YAML's syntax.
    """
    if text.startswith(("[", "{", '"', "'")):
        return parse_yaml(text, source)
    for scalar in _SCALARS:
        if scalar.pattern.match(text):
            return scalar.read(text)
    return text


def dump_yaml(value: Any) -> str:
    """YAML that `parse_yaml` reads back to an equal value: floats keep all their digits, strings that look like
    another type are quoted, keys keep their order."""
    text = StringIO()
    _yaml().dump(value, text)
    return text.getvalue()


def _to_float(text: str) -> float:
    special = text.lower().lstrip("+-")
    if special == ".inf":
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if special == ".nan" else float(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scalar:
    """One row of the schema: which plain text is a value of which type."""

    tag: str
    pattern: re.Pattern[str]
    first: str
    """Characters that it may begin with: the resolver looks rows up by them."""
    read: Callable[[str], Any]
    """The value of a text that fits. Raises ValueError for a number with more digits than Python reads."""


_SCALARS = (
    _Scalar(tag="null", pattern=re.compile(r"(?:~|null|Null|NULL|)\Z"), first="~nN", read=lambda _: None),
    _Scalar(
        tag="bool",
        pattern=re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
        first="tTfF",
        read=lambda text: text.lower() == "true",
    ),
    _Scalar(tag="int", pattern=re.compile(r"[-+]?[0-9]+\Z"), first="-+0123456789", read=int),
    _Scalar(
        tag="float",
        pattern=re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        first="-+.0123456789",
        read=_to_float,
    ),
)


class _Resolver(BaseResolver):
    """Which type a plain scalar has: `_SCALARS`, for reading and for writing."""

    def __init__(self, version: Any = None, loader: Any = None) -> None:
        super().__init__(loader)
        self._loader_version = version  # what YAML compares to see whether this resolver is still the right one

    @property
    def processing_version(self) -> tuple[int, int]:
        """1.2 whatever a `%YAML` line says: there is one way in which a recipe is read."""
        return (1, 2)


class _Constructor(SafeConstructor):
    """Builds plain values only; every tag beyond those of the schema is an error."""

    yaml_constructors: dict[Any, Any] = {}  # noqa: RUF012 - the name and type that ruamel looks up

    def __init__(self, preserve_quotes: bool | None = None, loader: Any = None) -> None:
        super().__init__(preserve_quotes=preserve_quotes, loader=loader)
        self.deep_construct = True  # what a value holds is built with it, so that one that holds itself is seen

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The value of a node. ruamel would leave null where an alias leads back into what it stands in."""
        if node in self.recursive_objects:
            raise ConstructorError(None, None, "this value contains itself", node.start_mark)
        return super().construct_object(node, deep=deep)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping whose keys are scalars and differ: ruamel's own error for two equal ones repeats their values,
        which may be secrets."""
        first_line: dict[object, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, ScalarNode):
                raise ConstructorError(None, None, "a list or mapping cannot be a key", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in first_line:
                problem = f"the key {key_node.value!r} stands here again, first in line {first_line[key]}"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            first_line[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _Representer(SafeRepresenter):
    """Writes what the constructor reads."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Always: a value that occurs twice is written twice, as a person reads this file."""
        return True

    def represent_str(self, data: str) -> Any:
        """Marks such as U+0085 would be written as line breaks, which read back as spaces, but in double quotes."""
        is_plain = all(character.isprintable() or character == "\n" for character in data)
        return self.represent_scalar(f"{_TAG}str", data, style=None if is_plain else '"')


def _construct(scalar: _Scalar) -> Callable[[_Constructor, Node], Any]:
    def construct(constructor: _Constructor, node: Node) -> Any:
        text = constructor.construct_scalar(node)
        try:
            if scalar.pattern.match(text):
                return scalar.read(text)
        except ValueError as error:
            problem = f"a number of {len(text)} digits is too long"
            raise ConstructorError(None, None, problem, node.start_mark) from error
        # Only a tag that was written out gets here: `!!int x`.
        raise ConstructorError(None, None, f"{text!r} is no {scalar.tag}", node.start_mark)

    return construct


for _scalar in _SCALARS:
    # The empty string in the list of first characters stands for an empty scalar.
    _first = [*_scalar.first, ""] if _scalar.pattern.match("") else [*_scalar.first]
    _Resolver.add_implicit_resolver_base(f"{_TAG}{_scalar.tag}", _scalar.pattern, _first)
    _Constructor.add_constructor(f"{_TAG}{_scalar.tag}", _construct(_scalar))
_Constructor.add_constructor(f"{_TAG}str", SafeConstructor.construct_yaml_str)
_Constructor.add_constructor(f"{_TAG}seq", SafeConstructor.construct_yaml_seq)
_Constructor.add_constructor(f"{_TAG}map", SafeConstructor.construct_yaml_map)
_Constructor.add_constructor(None, SafeConstructor.construct_undefined)
_Representer.add_representer(str, _Representer.represent_str)


def _yaml() -> YAML:
    """A reader and writer of its own for each document: one keeps state while it works."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.Constructor = _Constructor
    yaml.Representer = _Representer
    yaml.max_depth = _MAX_DEPTH
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # declared as its default, None
    yaml.width = _NO_FOLDING
    return yaml
