"""The options of a command that say how the user's own table or dataset is read.

They become `Columns` (own/labels.py) and the configuration that own/dataset_rows.py reads.
"""

import argparse


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """How the user's own table or dataset is read.

    Args:
        parser: gets them, as a group.
    """
    own = parser.add_argument_group("your own table, or any dataset of the Hub or of Parquet")
    own.add_argument("--dataset_config", help="which configuration, of a dataset that has several")
    for what, held in (
        ("image", "images, or their file names"), ("label", "each image's class"), ("patient", "the patient")
    ):  # fmt: skip
        own.add_argument(
            f"--{what}_column", help=f"which holds {held}; as in training (default: found by type or name)"
        )
