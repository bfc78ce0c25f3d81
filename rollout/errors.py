"""One picklable error for each boundary. The command line prints their text as one sentence."""


class ShoalError(Exception):
    """Something that a person can act on: the message says what, where, what was got and what to do."""


class ConfigError(ShoalError):
    """A configuration that cannot run; nothing was started."""


class DataError(ShoalError):
    """A task, row or data set that cannot be used."""


class ModelError(ShoalError):
    """A model directory, hub id or package that cannot be loaded."""


class EngineError(ShoalError):
    """The inference engine failed or was asked for what it cannot do."""


class WorldError(ShoalError):
    """An environment that raised, hung, died or answered with something that is no answer."""


class WeightSyncError(ShoalError):
    """Weights did not arrive as they were sent, or the engine does not compute with them."""


class CheckpointError(ShoalError):
    """A checkpoint that is incomplete, altered, or from a run of another shape; nothing was loaded from it."""


class LearnerError(ShoalError):
    """The learner's ranks could not come together."""


class StepGivenUpError(ShoalError):
    """A training step was ended before it moved the weights, since the run is to stop: nothing is wrong with it."""
