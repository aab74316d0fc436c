"""Exceptions of the data room: each says what was found, what was wanted and what to do next.

Stands below every builder; `medhiera` and the scripts let them through to the user unchanged.
"""


class DataLayoutError(FileNotFoundError):
    """A folder does not look like its source: folders, lists or images are missing."""


class LabelFileError(ValueError):
    """A label file can be opened but not understood: a column is missing, or no row is usable."""


class TooManyBadFilesError(ValueError):
    """More files are unreadable than `max_bad_fraction` allows."""


class BadImageError(ValueError):
    """One file cannot become an image; the build counts it, names it and goes on.

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
