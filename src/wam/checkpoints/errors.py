"""What can be wrong with weights from elsewhere: one named error per fault, all of them a `CheckpointError`.

Every message names the file or tensor, what was found, what was expected and what to do about it. Nothing in a
checkpoint is ever executed, whether it is refused or not.
"""


class CheckpointError(ValueError):
    """Base of all faults below; catch this to refuse any unusable checkpoint."""


class SourceNotFoundError(CheckpointError):
    """Neither a folder, nor a preset, nor a repository that can be reached."""


class ForeignCheckpointError(CheckpointError):
    """The files are readable, but they are not weights that this project knows."""


class TruncatedFileError(CheckpointError):
    """A file ends before the tensors that its header promises, or its header cannot be read."""


class MissingShardError(CheckpointError):
    """A shard that the index names, or that the numbering promises, does not exist."""


class MissingPartError(CheckpointError):
    """A component, a file or a configuration that is needed is not in the checkpoint."""


class UnsafeFileError(CheckpointError):
    """Reading the file would execute code that it contains; it was not executed."""


class WrongDtypeError(CheckpointError):
    """A weight is stored as something that is not a floating-point number."""


class MismatchError(CheckpointError):
    """Weights are missing, unexpected or of the wrong shape."""


class UnknownEmbodimentError(CheckpointError):
    """A robot was asked for that the checkpoint has no statistics of, or that nobody described."""


class DiskSpaceError(CheckpointError):
    """The disk has less space than the result needs."""


class OutputError(CheckpointError):
    """The place to write to is taken by something else."""
