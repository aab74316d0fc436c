"""What a user can cause: each error says what was found, what was wanted and what to do next.

Stands below everything: builders raise these, `medhiera` adds its own (medhiera/errors.py), and a command
shows any `UserError` as one message.
"""

DICOM_PACKAGES = 'run pip install ".[dicom]" in the clone, "medhiera[dicom]" where it is installed'
"""What brings pydicom and the decoders of compressed DICOM; the project is on no package index."""


class UserError(Exception):
    """A user can mend the cause; the message says how. The base of every such error in this project."""


class DataLayoutError(UserError, FileNotFoundError):
    """A folder does not look like its source: folders, lists or images are missing."""


class LabelFileError(UserError, ValueError):
    """A label file can be opened but not understood: a column is missing, or no row is usable."""


class TooManyBadFilesError(UserError, ValueError):
    """More files are unreadable than `max_bad_fraction` allows."""


class WorkerEndedError(UserError, RuntimeError):
    """The system has killed a worker process of a build."""


class BadImageError(ValueError):
    """One file cannot become an image; the build counts it, names it and continues.

    Args:
        kind: one word for the build report, e.g. "truncated".
        detail: what the decoder said, without a path.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.kind, self.detail)
