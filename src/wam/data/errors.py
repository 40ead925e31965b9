"""What can be wrong with a data set: one named error per fault, all of them a `DatasetError`.

Every message names the file or field, what was found, what was expected and what to do about it.
"""

PLAIN = (ValueError, OSError, ImportError)
"""Errors of any room whose message says all that a user needs; others keep their trace, for those who mend it."""


class DatasetError(ValueError):
    """Base of all faults below; catch this to refuse any unusable data set."""


class UnsupportedVersionError(DatasetError):
    """`meta/info.json` declares a format version that this reader does not speak."""


class MissingFileError(DatasetError):
    """A file that the metadata points to does not exist."""


class MissingCameraError(DatasetError):
    """A camera was asked for that the data set does not have, or whose video is not listed."""


class MissingColumnError(DatasetError):
    """A declared or requested column is not in the parquet file."""


class NonFiniteError(DatasetError):
    """A state or action holds NaN or infinity."""


class TruncatedVideoError(DatasetError):
    """A video cannot be opened, or ends before the frames that the metadata promises."""


class RowCountError(DatasetError):
    """The number of rows or episodes on disk contradicts `meta/info.json`."""


class SpecMismatchError(DatasetError):
    """An episode, or a reopened data set, does not have the declared features."""


class DatasetLockedError(DatasetError):
    """Another process is writing this data set, or this folder of results."""


class StaleCacheError(DatasetError):
    """A latent cache was made from other data, another tokenizer or another embodiment."""


class TokenizerMemoryError(DatasetError):
    """A tokenizer remembers more of the past than a latent cache can hold."""
