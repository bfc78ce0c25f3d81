"""Where modules are found, and imports of large libraries without the garbage collector going through what they make.

People keep a reward.py beside their run, or a types.py. A folder of theirs must not stand before our packages, nor
before Python's: it is searched last, and only for what a configuration names.
"""

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from rollout.errors import ConfigError

OWN_PACKAGES = ("rollout", "reward", "learner", "cluster")
ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds our packages: a repository, a copy of one, or site-packages."""
USER_FOLDERS = "SHOAL_USER_FOLDERS"
"""Environment variable of our processes: folders in which modules of the user's are looked for, behind all others."""
SAFE_PYTHON = ("-P",)
"""Options of a Python that is started for us: without it `-c` and `-m` put the working directory first."""


def ours_first(folders: Iterable[str]) -> list[str]:
    """Folders of an import path in their order, but last, behind ours, those with a module named like one of our
    packages. Ours is named even where it was not: an editable install is asked after all folders."""
    absolute = [os.path.abspath(folder) for folder in folders]
    shadowing = [folder for folder in absolute if shadows_ours(folder)]
    others = [folder for folder in absolute if folder not in shadowing]
    return others + [str(ROOT)] * (str(ROOT) not in others) + shadowing


def shadows_ours(folder: str) -> bool:
    """Whether a module in `folder` has the name of a package of ours."""
    specs = ((name, PathFinder.find_spec(name, [folder])) for name in OWN_PACKAGES)
    return any(spec and spec.origin and Path(spec.origin).resolve().parent != ROOT / name for name, spec in specs)


def python_path() -> list[str]:
    """PYTHONPATH of a process that is started for us, where ours need not be installed: before what the user's has."""
    # site-packages would stand before Python's own modules, some of which it may have in an older form.
    ours = [] if ROOT.name in ("site-packages", "dist-packages") else [str(ROOT)]
    theirs = [folder for folder in _of_the_environment("PYTHONPATH") if not shadows_ours(folder)]
    return list(dict.fromkeys([*ours, *theirs]))


def user_folders() -> list[str]:
    """Where modules of the user's are looked for: the folder where the program was started, in every process of it,
    and those of PYTHONPATH that would stand in front of ours."""
    shadowing = [folder for folder in _of_the_environment("PYTHONPATH") if shadows_ours(folder)]
    return list(dict.fromkeys([*_of_the_environment(USER_FOLDERS), os.getcwd(), *shadowing]))


def load_object(path: str, *, what: str) -> Any:
    """What an import path `module:name` of the user's names; it can be called. `what` begins every error's sentence.

    Errors: `ConfigError` when it is no import path, cannot be imported, is not there or cannot be called.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{what} is no import path: write it as `module:function`")
    # A console script does not have the working directory on its path, and people keep their reward beside their run.
    # Last, so that a file there cannot replace an installed package.
    folders = user_folders()
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"{what}: module {module_name!r} was not found in {os.getcwd()} or among the installed packages; "
                "correct the path or start from the folder that holds it" + _taken(module_name, folders)
            ) from error
        raise ConfigError(
            f"{what}: importing {module_name!r} needs the module {error.name!r}, which is not installed"
        ) from error
    except Exception as error:  # boundary: the user's module may raise anything while it is imported
        raise ConfigError(f"{what}: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(
                f"{what}: module {module_name!r} has no attribute {attribute!r}" + _taken(module_name, folders)
            )
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{what} is a {type(found).__name__}, which cannot be called")
    return found


def _taken(module_name: str, folders: Sequence[str]) -> str:
    """What to do where the user's file has the name of a module that stands before it."""
    first = module_name.partition(".")[0]
    files = [os.path.join(folder, f"{first}.py") for folder in folders]
    found = sys.modules.get(first)
    where = getattr(found, "__file__", None) or "Python itself"
    own = [file for file in files if os.path.isfile(file) and os.path.realpath(file) != os.path.realpath(where)]
    return f"; the name {first!r} is that of {where}, so rename {own[0]}" if found is not None and own else ""


def _of_the_environment(name: str) -> list[str]:
    return [os.path.abspath(entry) for entry in os.environ.get(name, "").split(os.pathsep) if entry]


@contextmanager
def loading_modules() -> Iterator[None]:
    """Around imports alone, such as that of vLLM: its modules are hundreds of thousands of objects that live as long as
    the process.

    The collector would go through them again and again, which is a fifth of the import, and half a second of each full
    collection later: vLLM asks for five of those when an engine starts. Afterwards everything that is alive counts as
    permanent (`gc.freeze`), also garbage in cycles, which is why nothing large is made here.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or extensions report at the end that what they made has leaked
        if was_enabled:
            gc.enable()
