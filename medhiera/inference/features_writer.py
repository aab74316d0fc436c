"""Writes the Parquet file of `embed.py`, resumable after a kill anywhere.

embedding.py → here → features_file.py. Parquet cannot be appended to, so rows gather in an Arrow stream
beside it (`OUTPUT.partial`), which becomes the file when all of them are there.
"""

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from safetensors.torch import save_file
from torch import Tensor

from dataset_scripts.build.atomic_files import whole_file
from medhiera.errors import UserError
from medhiera.inference.features_file import FEATURES, Header, file_key, header_of, read_header, row_key
from medhiera.output import write_error

_ROWS_AT_ONCE = 16_384


class FeaturesWriter:
    """Rows of one file, old and new.

    Args:
        output: the file, a canonical path.
        header: of the rows to come.

    Attributes:
        done: key → digest of what the file held, of the rows that are there; "" of a dataset's.

    Raises:
        UserError: the file is something else, or of another model or data.
    """

    def __init__(self, output: Path, header: Header) -> None:
        self.output, self.header = output, header
        self.journal = output.with_name(f"{output.name}.partial")
        self._schema = header.schema()
        self._older = self._read_older()
        self._cut_journal()
        self._stale: set[str] = set()
        self._appended: set[str] = set()
        self.done: dict[str, str] = {}
        for table in self._tables(self._without_features):
            contents = table["content"].to_pylist() if "content" in table.column_names else [""] * len(table)
            self.done |= dict(zip(self._keys(table), contents, strict=True))

    @property
    def tokens_folder(self) -> Path:
        """Where grids of tokens lie."""
        return self.output.with_suffix(".tokens")

    def forget(self, keys: Collection[str]) -> None:
        """Leave rows out of the file, unless they are appended anew."""
        self._stale |= set(keys)

    def append(self, columns: dict[str, Any], features: Tensor, tokens: Tensor | None) -> None:
        """Keep the rows of a batch, all of them or none.

        Args:
            columns: those of the header, one value a row.
            features: (rows, size), float32.
            tokens: (rows, grid rows, grid columns, size); None where the header has none.

        Raises:
            UserError: the disk is full, or the file cannot be written to.
        """
        keys = self._keys(pa.table({name: pa.array(columns[name]) for name in self._key_columns}))
        with self._written():
            if tokens is not None:
                name = self._save_tokens(keys, tokens)
                columns = columns | {
                    "tokens_file": [name] * len(keys), "tokens_row": list(range(len(keys)))
                }  # fmt: skip
            flat = pa.array(features.numpy().astype(np.float32).ravel())
            values = {FEATURES: pa.FixedSizeListArray.from_arrays(flat, self.header.size), **columns}
            batch = pa.record_batch(
                [_as_array(values[column.name], column.type) for column in self._schema], schema=self._schema
            )
            with self.journal.open("ab", buffering=0) as raw:
                before = raw.seek(0, os.SEEK_END)
                try:
                    if not before:
                        _write_all(raw, self._schema.serialize())
                    _write_all(raw, batch.serialize())
                except OSError:
                    raw.truncate(before)
                    raise
        self._appended |= set(keys)

    def finish(self, order: Sequence[str]) -> int:
        """Write the file: rows that were not asked for as they stood, then those asked for in their order.

        Args:
            order: keys of what was asked for; those without a row are passed over.

        Returns:
            Rows of the file.

        Raises:
            UserError: it cannot be written.
        """
        tables = [table for table in self._tables(self._whole) if len(table)]
        everything = pa.concat_tables(tables) if tables else self._schema.empty_table()
        last: dict[str, int] = {}  # of several rows the newest counts
        for row, key in enumerate(self._keys(everything)):
            last.pop(key, None)
            last[key] = row
        for key in self._stale - self._appended:
            last.pop(key, None)
        asked = set(order)
        rows = [row for key, row in last.items() if key not in asked]
        rows += [last[key] for key in dict.fromkeys(order) if key in last]
        is_unchanged = self._older is not None and rows == list(range(len(everything)))
        if self.journal.is_file() or not is_unchanged:
            with self._written():
                with whole_file(self.output) as part, parquet.ParquetWriter(part, self._schema) as writer:
                    for start in range(0, len(rows), _ROWS_AT_ONCE):
                        writer.write_table(everything.take(pa.array(rows[start : start + _ROWS_AT_ONCE])))
                self.journal.unlink(missing_ok=True)
        self._remove_tokens(everything.take(pa.array(rows, pa.int64())))
        return len(rows)

    def _save_tokens(self, keys: Sequence[str], tokens: Tensor) -> str:
        """Write a batch's grids under a name that its rows and values give; the name."""
        digest = hashlib.blake2b("\n".join(keys).encode(), digest_size=8)
        digest.update(tokens.numpy().tobytes())
        name = f"{digest.hexdigest()}.safetensors"
        self.tokens_folder.mkdir(exist_ok=True)
        with whole_file(self.tokens_folder / name) as part:
            save_file({"tokens": tokens.contiguous()}, part)
        return name

    def _remove_tokens(self, table: pa.Table) -> None:
        """Delete grids of which the file has no row any more, and what a kill left half written."""
        if self.header.tokens and self.tokens_folder.is_dir():
            named = set(table["tokens_file"].unique().to_pylist())
            for path in self.tokens_folder.iterdir():
                if path.name not in named and path.name.removesuffix(".part").endswith(".safetensors"):
                    path.unlink()

    @property
    def _key_columns(self) -> tuple[str, ...]:
        return ("split", "image_id") if self.header.data else ("path",)

    def _keys(self, table: pa.Table) -> list[str]:
        columns = [table[name].to_pylist() for name in self._key_columns]
        if self.header.data:
            return [row_key(split, image_id) for split, image_id in zip(*columns, strict=True)]
        return [file_key(self.output.parent / path) for path in columns[0]]

    def _read_older(self) -> Path | None:
        """The finished file, if one is there.

        Raises:
            UserError: it is something else, or of another model or data.
        """
        if not self.output.is_file() or not self.output.stat().st_size:
            return None
        self._check(read_header(self.output, "--output"), self.output)
        return self.output

    def _cut_journal(self) -> None:
        """Take a batch that a kill cut off away from what is left of an earlier run.

        Raises:
            UserError: it is something else, or of another model or data.
        """
        if not self.journal.is_file():
            return
        end, start = 0, self._schema.serialize().to_pybytes()
        try:
            with pa.memory_map(str(self.journal)) as source:
                reader = pa.ipc.open_stream(source)
                self._check(header_of(reader.schema, self.journal, "--output"), self.journal)
                end = source.tell()
                while True:
                    reader.read_next_batch()
                    end = source.tell()
        except (StopIteration, pa.ArrowInvalid, OSError) as error:
            # Killed in the middle of a batch, or of the schema; else it is a file of the user's own.
            if not end and not start.startswith(self.journal.read_bytes()):
                raise UserError(
                    f"{self.journal} is there and is not what `medhiera embed` leaves of an "
                    "unfinished --output; "
                    "move it, or name another --output"
                ) from error
        with self._written():
            os.truncate(self.journal, end)
            if not end:
                self.journal.unlink()

    def _tables(self, read: Any) -> Iterator[pa.Table]:
        """What is there: the finished file, then what is left of an interrupted run."""
        if self._older is not None:
            yield read(self._older)
        if self.journal.is_file():
            with pa.memory_map(str(self.journal)) as source:
                table = pa.ipc.open_stream(source).read_all()
            yield table

    def _without_features(self, path: Path) -> pa.Table:
        return parquet.read_table(path, columns=self.header.columns)

    def _whole(self, path: Path) -> pa.Table:
        return parquet.read_table(path).select(self._schema.names).cast(self._schema)

    def _check(self, found: Header, file: Path) -> None:
        if (what := self.header.difference(found)) is not None:
            raise UserError(f"--output {file} holds features of {what}; name another file or delete it")

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """What keeps the file from being written, in words.

        Raises:
            UserError: in place of the system's error.
        """
        try:
            yield
        except OSError as error:
            message = f"{write_error('--output', self.output, error)}. Finished rows are kept: repeat the "
            raise UserError(f"{message}command to resume") from error


def _as_array(values: Any, kind: pa.DataType) -> pa.Array:
    """A column of a batch: Arrow already, or a list."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def _write_all(raw: Any, content: pa.Buffer) -> None:
    view = memoryview(content)
    while len(view):
        view = view[raw.write(view) :]
