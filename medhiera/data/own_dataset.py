"""A dataset that this project did not write, as `data_dir`: on the Hub, of Parquet, of `save_to_disk`.

Below cocktail.py, which builds what `as_own_folder` leaves like any folder of your own.
"""

from dataclasses import replace
from pathlib import Path

from dataset_scripts import SOURCES
from dataset_scripts.own.dataset_rows import extract_dataset, is_dataset
from dataset_scripts.own.labels import Columns
from medhiera.config.arguments import DataArguments


def is_own_dataset(options: DataArguments) -> bool:
    """Whether data_dir is a dataset that this project did not write: images and labels in some columns."""
    config, columns = options.dataset_config or "", Columns.of(options)
    return is_dataset(options.data_dir, config, columns, _place(options), SOURCES)


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
