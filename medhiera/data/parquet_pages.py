"""Where the images of a Parquet shard lie in its file, so that each can be read alone and in place.

pyarrow decodes whole row groups, a hundred images to get one. What an export writes is stored plainly (no
compression, no dictionary), so an image's bytes stand in the file as they are, and only their place must be
known. The footer and the page index say where each page begins; both are Thrift structs.

Stands below stored_images.py, which reads, and shards.py, which asks once for all images of a build.

Source: https://github.com/apache/parquet-format, `parquet.thrift`, Encodings.md and PageIndex.md; the compact
protocol of https://github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

import functools
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medhiera.errors import UserError

_UNCOMPRESSED = 0
_PLAIN = 0
_DATA_PAGE = 0
_MOST_MAPPED = 512
"""Files that a process keeps mapped, a million images; each costs a file handle, of 1,024 or more."""


@functools.lru_cache(_MOST_MAPPED)
def map_file(path: str, modified: int) -> mmap.mmap:
    """A file mapped into memory, read only; what a forked worker inherits of it is as good as its own.

    Args:
        path: of the file.
        modified: when it was written, in nanoseconds (`st_mtime_ns`), as the data was opened.

    Raises:
        UserError: it was written again since: what was known of its places and images is of another file.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_mtime_ns != modified:
            raise UserError(
                f"{path} was replaced since the data was opened. An export must stay as it is while it is "
                "read; start the command again"
            )
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _Thrift:
    """Reads values of Thrift's compact protocol; a struct is a dict from field number to value."""

    def __init__(self, content: "mmap.mmap | bytes", position: int = 0) -> None:
        self.content = content
        self.position = position

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2:  # a field that is a bool has its value in its type
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                head = self._byte()
                count = head >> 4 if head >> 4 < 15 else self._varint()
                if head & 15 in (1, 2):
                    return [self._byte() == 1 for _ in range(count)]
                return [self._value(head & 15) for _ in range(count)]
            case 12:
                return self.struct()
        raise ValueError(f"Thrift type {kind}, which Parquet does not have")

    def _byte(self) -> int:
        self.position += 1
        return self.content[self.position - 1]

    def _bytes(self, count: int) -> bytes:
        self.position += count
        return self.content[self.position - count : self.position]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


@dataclass(frozen=True)
class Pages:
    """The pages of one column of a shard, in the order of its rows.

    Attributes:
        starts: (pages,), the first byte of each in the file.
        ends: (pages,), the byte after its last.
        first_rows: (pages + 1,), the shard's row that each begins with, and at last the number of rows.
    """

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    first_rows: npt.NDArray[np.int64]

    @property
    def of_rows(self) -> npt.NDArray[np.int64]:
        """(rows,), the page that each row's value lies in."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.first_rows))


def find_pages(content: mmap.mmap, column: str) -> Pages:
    """Where a column's pages lie.

    Args:
        content: a Parquet file.
        column: a leaf that holds bytes, such as `image.pixels`; no list.

    Raises:
        ValueError: its values do not stand in the file as they are; says why.
    """
    footer_end = len(content) - 8
    length = int.from_bytes(content[footer_end : footer_end + 4], "little")
    starts: list[int] = []
    ends: list[int] = []
    first_rows: list[int] = []
    rows = 0
    for group in _Thrift(content[footer_end - length : footer_end]).struct()[4]:
        chunk = _chunk(group[1], column)
        for page in _Thrift(content, chunk[4]).struct()[1]:
            starts.append(page[1])
            ends.append(page[1] + page[2])
            first_rows.append(rows + page[3])
        rows += group[3]
    pages = Pages(*(np.array(numbers, np.int64) for numbers in (starts, ends, [*first_rows, rows])))
    if rows:
        first_value(content, starts[0])  # refuses pages of another form
    return pages


def _chunk(columns: list[dict[int, Any]], name: str) -> dict[int, Any]:
    """A row group's part of a column; its fields are those of Parquet's ColumnChunk."""
    for chunk in columns:
        described = chunk[3]
        if b".".join(described[3]).decode() == name:
            if described[4] != _UNCOMPRESSED or 11 in described:
                raise ValueError(f"{name} is compressed, or a dictionary stands before it")
            if 4 not in chunk:
                raise ValueError("the file has no page index")
            return chunk
    raise ValueError(f"there is no column {name}")


def first_value(content: mmap.mmap, page: int) -> int:
    """The place of a page's first value: four bytes of its length, then itself; the others follow it.

    Args:
        content: the file.
        page: first byte of the page.

    Raises:
        ValueError: the page is of another form.
    """
    reader = _Thrift(content, page)
    header = reader.struct()
    described = header.get(5, {})
    if header[1] != _DATA_PAGE or described.get(2) != _PLAIN:
        raise ValueError("its values are encoded otherwise than plainly")
    levels = int.from_bytes(content[reader.position : reader.position + 4], "little")
    return reader.position + 4 + levels  # the levels say which values are null; none is


def value_in_page(content: mmap.mmap, page: int, index: int) -> memoryview:
    """A value of a page whose values' lengths are not known before.

    Args:
        content: the file.
        page: first byte of the page.
        index: number of the value in it.
    """
    place = first_value(content, page)
    for _ in range(index):
        place += 4 + int.from_bytes(content[place : place + 4], "little")
    length = int.from_bytes(content[place : place + 4], "little")
    return memoryview(content)[place + 4 : place + 4 + length]


def places_of_known_lengths(pages: Pages, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each value begins, without a look into any page: a page ends with its values.

    Args:
        pages: of the column.
        lengths: (rows,), of each value in bytes.

    Returns:
        (rows,), the first byte of each value in the file.
    """
    before = np.concatenate([[0], np.cumsum(lengths + 4)])  # each stands behind four bytes of its length
    page = pages.of_rows
    return np.asarray(pages.ends[page] - before[pages.first_rows[page + 1]] + before[:-1] + 4, np.int64)
