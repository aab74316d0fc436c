"""What a run writes into its folder when it begins, for those who start from one of its checkpoints.

Stands on record.py; lineage.py reads it where there is no record of a finished stage yet.
"""

from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from dataset_scripts.build.atomic_files import write_json
from medhiera.hub.record import BegunRecord, parse_record
from medhiera.layout import RUN_FILE, read_json_file

_READER = TypeAdapter(BegunRecord)


def write_beginning(record: BegunRecord, folder: Path) -> None:
    """Write RUN_FILE, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    write_json(folder / RUN_FILE, asdict(record), indent=2)


def read_beginning(folder: Path) -> BegunRecord | None:
    """The content of RUN_FILE; None where there is no such file.

    Raises:
        UserError: it is damaged, or of another version.
    """
    file = folder / RUN_FILE
    return parse_record(read_json_file(file), file, _READER) if file.is_file() else None
