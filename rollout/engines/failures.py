"""What an engine raises, in a sentence."""

from pydantic import ValidationError

from rollout.errors import EngineError


def as_engine_error(name: str, what: str, error: BaseException) -> EngineError:
    """What an engine raised, with whose it is and what it was doing; an `EngineError` as it is."""
    if isinstance(error, EngineError):
        return error
    failure = EngineError(f"{name}: the engine {what}: {type(error).__name__}: {_in_words(error)}")
    failure.__cause__ = error
    return failure


def _in_words(error: BaseException) -> str:
    """An error in one line. Pydantic's has more, with the values and where to read of them; of vLLM's own configuration
    that means nothing to a user."""
    if isinstance(error, ValidationError):
        words = "; ".join(str(problem["msg"]) for problem in error.errors(include_url=False, include_context=False))
        return " ".join(words.split())
    return " ".join(str(error).split())
