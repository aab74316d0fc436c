"""A dataset that this project did not write, as `data_dir`: on the Hub, of Parquet, of `save_to_disk`.

Below cocktail.py, which builds what `as_own_folder` leaves like any folder of your own.
"""

from dataclasses import replace
from pathlib import Path

from huggingface_hub import file_exists

from dataset_scripts import SOURCES
from dataset_scripts.build.layout import BUILD_FILE
from dataset_scripts.own.dataset_rows import extract_dataset, holds_dataset, opening_errors, was_extracted
from dataset_scripts.own.labels import NOT_NAMED, Columns
from medhiera.config.arguments import DataArguments


def is_own_dataset(options: DataArguments) -> bool:
    """Whether data_dir is a dataset that this project did not write: images and labels in some columns."""
    folder = Path(options.data_dir)
    if folder.is_dir():
        return not any((folder / source.folder).is_dir() for source in SOURCES) and holds_dataset(folder)
    try:
        return not file_exists(options.data_dir, BUILD_FILE, repo_type="dataset")
    except opening_errors():  # it cannot be reached, or is no id: loading says which
        if options.dataset_config or Columns.of(options) != NOT_NAMED:
            return True
        return bool(was_extracted(options.data_dir, "", NOT_NAMED, _place(options)))


def as_own_folder(options: DataArguments) -> DataArguments:
    """The options of a dataset's images and labels, once they lie in a folder.

    Raises:
        DataLayoutError: it cannot be opened, or has several configurations and none of them is named.
        LabelFileError: its columns cannot be meant.
    """
    config, columns = options.dataset_config or "", Columns.of(options)
    found = extract_dataset(options.data_dir, config, columns, _place(options))
    return replace(
        options,
        data_dir=str(found.folder),
        dataset_config=None,
        image_column=None,
        label_column=found.label_column,
        patient_column=None,
    )


def _place(options: DataArguments) -> Path:
    return Path(options.build_dir or "cocktail") / "datasets"
