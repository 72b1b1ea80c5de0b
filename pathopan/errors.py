"""Every error that pathopan raises on purpose.

::

    PathopanError
      SlideError                        about one slide; a batch marks it failed and goes on
        UnreadableSlide (OSError)       missing, truncated, corrupt or of an unknown format
        MissingMpp (ValueError)         no micrometres per pixel: pass --slide-mpp or fill the manifest's mpp column
        UpsamplingRefused (ValueError)  the slide is coarser than the network needs
      BundleError
        UnknownBundle (KeyError)        no bundle of that name or folder
        ChecksumMismatch (ValueError)   weights differ from what bundle.json promises
        IncompatibleBundle (ValueError) taxonomy, format version or tensors do not fit
      DatasetError
        UnknownLabel (ValueError)       a label that the taxonomy does not map
      ConfigError (ValueError)          unknown key or impossible value
      ManifestError (ValueError)        a slide list that cannot be used as it stands
      ResultError (OSError)             a results folder that is missing or incomplete
        FolderInUse                     another process writes there
      SchemaError (ValueError)          a table whose columns or dtypes are wrong
      ShapeMismatch (ValueError)        arrays that must agree in shape
      RuntimeUnavailable (ImportError)  a runtime or device that this machine does not offer
      MissingExtra (ImportError)        an optional dependency is not installed
      ProcessDied (RuntimeError)        a child process crashed or was killed
        ProcessStalled (TimeoutError)   a child process said nothing for too long, and was ended

Each inherits the base *and* the builtin a caller would expect. A message says what went wrong, with which value, and
what to do about it.
"""

from __future__ import annotations


class PathopanError(Exception):
    """Base of all errors raised on purpose."""

    def __str__(self) -> str:
        """Give the message as it was written (KeyError would quote it)."""
        return " ".join(str(part) for part in self.args)


class SlideError(PathopanError):
    """Something about one slide; other slides are unaffected."""


class UnreadableSlide(SlideError, OSError):
    """The file is missing, truncated, corrupt or of an unknown format."""


class MissingMpp(SlideError, ValueError):
    """The slide does not say how many micrometres a pixel spans."""


class UpsamplingRefused(SlideError, ValueError):
    """The network's mpp is much finer than the slide's."""


class BundleError(PathopanError):
    """Something about a bundle of weights."""


class UnknownBundle(BundleError, KeyError):
    """No bundle has that name, and no folder of that name is a bundle."""


class ChecksumMismatch(BundleError, ValueError):
    """The weights are not the ones that bundle.json describes."""


class IncompatibleBundle(BundleError, ValueError):
    """The bundle's format, taxonomy or tensors do not fit this version."""


class DatasetError(PathopanError):
    """Something about a data set on disk."""


class UnknownLabel(DatasetError, ValueError):
    """A data set holds a label that the taxonomy does not map."""


class ConfigError(PathopanError, ValueError):
    """A setting is unknown or has an impossible value."""


class ManifestError(PathopanError, ValueError):
    """A list of slides cannot be used as it stands."""


class ResultError(PathopanError, OSError):
    """A results folder is missing, incomplete or of another version."""


class FolderInUse(ResultError):
    """Another process is writing into a run's folder."""


class SchemaError(PathopanError, ValueError):
    """A table lacks a column or holds one of the wrong dtype."""


class ShapeMismatch(PathopanError, ValueError):
    """Two arrays that must agree in shape do not."""


class RuntimeUnavailable(PathopanError, ImportError):
    """The runtime or device asked for cannot be used on this machine."""


class MissingExtra(PathopanError, ImportError):
    """An optional dependency is needed and not installed."""


class ProcessDied(PathopanError, RuntimeError):
    """A child process crashed, or was killed.

    Parameters
    ----------
    message : str
        What it died of.
    log : str
        The end of what it printed.
    """

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class ProcessStalled(ProcessDied, TimeoutError):
    """A child process said nothing for too long, and was ended."""
