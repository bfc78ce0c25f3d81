"""Estimators and surrogates of the user's own: `kind: own` with an import path, and params for its keywords."""

import functools
from collections.abc import Callable
from typing import Any

from learner.objective import OwnAdvantage
from learner.surrogate_config import OwnSurrogate
from rollout.call_params import checked_params
from rollout.module_loading import load_object


def load_own(config: OwnAdvantage | OwnSurrogate) -> Callable[..., Any]:
    """The function, with its params filled in.

    Errors: `ConfigError` where the path names nothing that can be called, importing it fails, or the params do not fit
    its signature.
    """
    part, given = ("advantage", "groups") if isinstance(config, OwnAdvantage) else ("surrogate", "ratios")
    what = f"learner.objective.{part}.function {config.function!r}"
    function = load_object(config.function, what=what)
    return functools.partial(function, **checked_params(function, config.params, what=what, given=given))
