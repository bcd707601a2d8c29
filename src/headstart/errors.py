"""Every error that headstart raises on purpose.

A message says what failed, what was received, what was expected and what to do next. The command line prints the message
and nothing else; a traceback is for errors that are not here.
"""


class HeadstartError(Exception):
    """An expected failure; the message is written for the person who asked for the work.

    Parameters
    ----------
    message : str
        What failed, what was received, what was expected.
    hint : str
        What to do next, the end of the text of the error. Parameters stand as in Python, between backticks:
        `overwrite=True`. The command line prints their options instead.
    """

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.hint = hint


class DataError(HeadstartError, ValueError):
    """A folder, manifest, label or split is not usable as it was given."""


class ImageError(HeadstartError, ValueError):
    """One image cannot be read; the message is the reason, without the path."""


class WeightsError(HeadstartError, ValueError):
    """The weights of a backbone are missing, unreadable or not the ones that were asked for."""


class CacheError(HeadstartError, OSError):
    """A feature cache is missing, damaged, in use or of an unknown version."""


class RecipeMismatchError(HeadstartError, ValueError):
    """Features made by one recipe met a cache or a head made by another; the message names the fields that differ."""


class ParameterError(HeadstartError, ValueError):
    """A parameter of a head is unknown, or has a value that it cannot have; the message says which it can."""


class BundleError(HeadstartError, ValueError):
    """A saved head is missing, damaged, or holds something that may not be loaded."""


class MissingExtraError(HeadstartError, ImportError):
    """An optional dependency is not installed; the message gives the pip line."""


class StorageError(HeadstartError, OSError):
    """A bucket or an object in it cannot be listed, read or written; the message never holds a key."""
