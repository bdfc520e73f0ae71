"""The errors that foreworld raises on purpose: each says what, where and what to do."""

from __future__ import annotations


class ForeworldError(Exception):
    """Base of every error that a user can cause and mend; the CLI prints it as one sentence."""


class SpecError(ForeworldError):
    """A space, observation or action does not fit the model or the library."""


class ConfigError(ForeworldError):
    """A configuration field is unknown or out of range."""


class DataError(ForeworldError):
    """A dataset is missing, damaged, too short or of another convention."""


class TooFewEpisodes(DataError):
    """A guarantee was asked for that so few episodes cannot give; the message says how many are needed."""


class CheckpointError(ForeworldError):
    """A checkpoint is missing, damaged or belongs to another model."""


class EnvironmentFault(ForeworldError):
    """An environment cannot be made, or it broke its own contract."""


class OutputExists(ForeworldError):
    """The output is already there; nothing is overwritten unless asked."""


class WriteFailed(ForeworldError, OSError):
    """The disk refused a write; the message names the path and the remedy, and what was there before is intact."""


class InUse(ForeworldError):
    """Another writer holds the folder; two would spoil each other's work."""


class UnknownName(ForeworldError):
    """A name is not in the registry; the message lists near matches."""


class NonFinite(ForeworldError):
    """A loss, gradient or parameter became NaN or infinite; the message names it."""


class MissingExtra(ForeworldError):
    """An optional package is not installed; the message names the extra to install."""


class MissingCapability(ForeworldError):
    """The model does not provide what was asked of it; the message names the remedy."""
