"""Installed packages that programs may import besides the standard library, such as numpy."""

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

PACKAGES_FOLDER = "/packages"
"""Where programs find them."""
_SHARED = frozenset(
    {"abc", "array", "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions"}
    | {"functools", "heapq", "io", "itertools", "json", "math", "numbers", "operator", "os", "queue", "random", "re"}
    | {"statistics", "string", "struct", "sys", "threading", "time", "types", "typing"}
)
"""Modules that solutions import, and that do nothing when they are imported."""
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))", re.MULTILINE)
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*([^;]*)(;.*)?")


@lru_cache(maxsize=8)
def shown_packages(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of a path here and the path in the sandbox, for the distributions `names` and all that they require.

    Raises:
        ValueError: one is not installed here.
    """
    found: dict[str, str] = {}
    known: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if _normal(name) in known:
            continue
        known.add(_normal(name))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ValueError(f"the package {name!r} is not installed here: install it, or leave it out") from error
        for path in _top_level(distribution.files or ()):
            source = Path(str(distribution.locate_file(path))).resolve()
            if source.exists():
                found[str(source)] = f"{PACKAGES_FOLDER}/{path}"
        waiting += _required(distribution.requires or ())
    return tuple(sorted(found.items()))


def preloaded_modules(source: str, packages: tuple[str, ...]) -> tuple[str, ...]:
    """Which modules the runs of a program can share, as far as a look at its text tells: all of them trusted."""
    named = {
        name.split()[0].partition(".")[0]
        for one, several in _IMPORT.findall(source)
        for name in (one or several).split(",")
        if name.strip()
    }
    return tuple(sorted(named & (_SHARED | {imported_name(package) for package in packages})))


@lru_cache(maxsize=8)
def importable_modules(packages: tuple[str, ...]) -> frozenset[str]:
    """Modules that are in a sandbox with `packages`, by their first name."""
    shown = {target.rpartition("/")[2].partition(".")[0] for _, target in shown_packages(packages)}
    return sys.stdlib_module_names | shown


@lru_cache(maxsize=64)
def imported_name(name: str) -> str:
    """The module that the distribution `name` is imported by: "sklearn" of "scikit-learn".

    Raises:
        ValueError: it is not installed here, or has no module.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(f"the package {name!r} is not installed here: install it, or leave it out") from error
    found = [path.removesuffix(".py") for path in _top_level(distribution.files or ())]
    modules = [module for module in found if module.isidentifier() and not module.startswith("_")]
    if not modules:
        raise ValueError(f"the package {name!r} has no module that a program could import")
    return next((module for module in modules if module == name.replace("-", "_").lower()), modules[0])


def _top_level(files: Iterable[importlib.metadata.PackagePath]) -> list[str]:
    """Folders and modules of a distribution beside its metadata; shared libraries of numpy's are in a second folder."""
    names = {path.parts[0] for path in files}
    return sorted(name for name in names if name not in ("..", "__pycache__") and not name.endswith(".pth"))


def _required(requirements: Sequence[str]) -> list[str]:
    """The names among `requirements` that hold here; a requirement for an extra or another platform may not."""
    required = []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        assert match is not None, requirement
        if match.group(3) is None or "extra" not in match.group(3):
            required.append(match.group(1))
    return [name for name in required if _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
