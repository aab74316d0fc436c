"""The Parquet file of `embed.py`: its columns, what its rows have in common, and how it is read.

features_writer.py → here → `probe.py`; pandas and `load_dataset("parquet", …)` read it too.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from medhiera.errors import UserError
from medhiera.inference.picture_files import canonical_path

FEATURES = "features"
"""The column of vectors: a list of float32, the same length in every row."""

_METADATA = b"medhiera"
"""The key of the header in the file's schema."""

_FILE_COLUMNS = (pa.field("path", pa.string()), pa.field("content", pa.string()))

_ROW_COLUMNS = (
    pa.field("image_id", pa.string()),
    pa.field("source", pa.string()),
    pa.field("split", pa.string()),
    pa.field("patient_id", pa.string()),
    pa.field("labels", pa.list_(pa.float32())),
    pa.field("age_years", pa.float32()),
    pa.field("sex", pa.string()),
    pa.field("view", pa.string()),
    pa.field("is_trained_on", pa.bool_()),
)

_TOKEN_COLUMNS = (pa.field("tokens_file", pa.string()), pa.field("tokens_row", pa.int32()))


@dataclass(frozen=True)
class Header:
    """What the rows of a file have in common; stands in its schema as JSON, under the key `medhiera`.

    Attributes:
        model: a folder's own name or a Hub id.
        model_type: transformers' word for its architecture.
        fingerprint: of its weights and preprocessing.
        pooling: how one vector was made of an image's tokens.
        preprocessing: in words.
        size: of a vector.
        data: which built data the rows are of; empty where they are files.
        finding_names: of `labels`, in order; none where the rows are files.
        is_exclusive: each image has exactly one of the labels.
        is_phantom: the images are synthetic.
        split_scheme: how the data was split; empty where the rows are files.
        figure_mark: what figures say of the model and the data.
        tokens: (rows, columns, size) of the grids beside the file; none where there are none.
    """

    model: str
    model_type: str
    fingerprint: str
    pooling: str
    preprocessing: str
    size: int
    data: str = ""
    finding_names: list[str] = field(default_factory=list)
    is_exclusive: bool = False
    is_phantom: bool = False
    split_scheme: str = ""
    figure_mark: str = ""
    tokens: list[int] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of the columns but for features and tokens."""
        return [each.name for each in (_ROW_COLUMNS if self.data else _FILE_COLUMNS)]

    def schema(self) -> pa.Schema:
        """Of the file."""
        columns = list(_ROW_COLUMNS if self.data else _FILE_COLUMNS)
        if self.tokens:
            columns += _TOKEN_COLUMNS
        columns.append(pa.field(FEATURES, pa.list_(pa.float32(), self.size)))
        return pa.schema(columns, metadata={_METADATA: json.dumps(asdict(self))})

    def difference(self, other: "Header") -> str | None:
        """How rows of another header differ from these, in words; None where they may stand together."""
        for name, what in (
            ("fingerprint", "another model, or another preprocessing,"),
            ("data", "other data"),
            ("finding_names", "other findings"),
            ("tokens", "a file with grids of tokens" if other.tokens else "a file without grids of tokens"),
        ):
            if getattr(self, name) != getattr(other, name):
                return what
        return None


def text_of(name: str) -> str:
    """A file's name as Parquet can hold it: bytes that are no UTF-8 as backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def row_key(split: str, image_id: str) -> str:
    """What tells a row of a dataset from the others."""
    return f"{split}\x1f{image_id}"


def file_key(path: Path) -> str:
    """What tells a file from the others."""
    return text_of(str(canonical_path(path)))


def read_header(path: Path, option: str) -> Header:
    """What all rows of a file have in common.

    Args:
        path: of the file.
        option: of the command line, for messages.

    Raises:
        UserError: it is no file of embed.py.
    """
    try:
        schema = parquet.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{option} {path} is no Parquet file that `medhiera embed` wrote; name another file"
        ) from error
    return header_of(schema, path, option)


def header_of(schema: pa.Schema, path: Path, option: str) -> Header:
    """The same of a schema that was read already."""
    content = (schema.metadata or {}).get(_METADATA)
    if content is None or FEATURES not in schema.names:
        raise UserError(f"{option} {path} was not written by `medhiera embed`; name another file")
    try:
        return Header(**json.loads(content))
    except TypeError as error:
        raise UserError(
            f"{option} {path} was written by another version of `medhiera embed`; embed the images again "
            "into another file"
        ) from error


def read_features(path: Path) -> tuple[Header, pa.Table]:
    """A finished file, whole.

    Raises:
        UserError: there is none, it is something else, or it holds no row.
    """
    if not path.is_file():
        partial = path.with_name(f"{path.name}.partial")
        unfinished = "; `medhiera embed` has not finished it: repeat its command" if partial.is_file() else ""
        raise UserError(f"--features {path}: no such file{unfinished or '; `medhiera embed` writes one'}")
    header = read_header(path, "--features")
    table = parquet.read_table(path)
    if not len(table):
        raise UserError(f"--features {path} holds no image")
    return header, table


def feature_matrix(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(images, size), float32."""
    column = table[FEATURES].combine_chunks()
    return np.asarray(column.flatten()).reshape(len(table), -1)
