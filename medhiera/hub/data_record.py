"""What a record says of the data that a stage read.

Below record.py, whose trained stages hold one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from datasets import Dataset
from pydantic import ConfigDict

from dataset_scripts import rsna_pneumonia
from dataset_scripts.build.origin import DatasetOrigin
from dataset_scripts.image_folder import SOURCE
from medhiera.data.build_reports import LeakageCounts, are_patients_guessed, own_images_origin
from medhiera.data.cocktail import (
    BuiltDataset,
    are_drawn,
    by_source,
    count_without_patient,
    phantom_sources,
    shared_patients,
)

OWN = SOURCE.name
"""Of your own images, as a source."""

STRICT = ConfigDict(extra="forbid")
"""A key that no field has is refused: of another version's record it may be the one that matters."""


@dataclass
class DataRecord:
    """What a stage read: images of each source by split and by use; patients it trained and scored on.

    `is_phantom`: every image it used is drawn; `phantom_sources`: the sources of which it used drawn images;
    `patients_guessed`: by the names of the files; `images_without_patient`: of those used, each its own;
    `own_images`: the dataset that these come from; `hub_copy`: that on the Hub whose built data was read.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    images: dict[str, dict[str, int]]
    is_phantom: bool
    split_scheme: str
    leakage: LeakageCounts
    trained_on: dict[str, int]
    validated_on: dict[str, int]
    tested_on: dict[str, int] = field(default_factory=dict)
    shared_patients: dict[str, int] = field(default_factory=dict)
    phantom_sources: list[str] = field(default_factory=list)
    patients_guessed: bool = False
    images_without_patient: int = 0
    own_images: DatasetOrigin | None = None
    hub_copy: DatasetOrigin | None = None

    @classmethod
    def of(
        cls, data: BuiltDataset, used: Mapping[str, Dataset], seen_before: Mapping[str, int] | None = None
    ) -> "DataRecord":
        """Count.

        Args:
            data: the opened data.
            used: rows by use: `trained_on`, `validated_on`, and `tested_on` where the test split is scored.
            seen_before: see LeakageCounts.
        """
        return cls(
            images={split: by_source(rows) for split, rows in data.rows.items()},
            is_phantom=all(are_drawn(rows) for rows in used.values()),
            split_scheme=data.split_scheme,
            leakage=replace(data.leakage(), seen_before=dict(seen_before or {})),
            shared_patients=shared_patients(used),
            phantom_sources=sorted(set[str]().union(*map(phantom_sources, used.values()))),
            patients_guessed=are_patients_guessed(data.folder),
            images_without_patient=count_without_patient(used),
            own_images=own_images_origin(data.folder),
            hub_copy=data.hub_copy,
            **{use: by_source(rows) for use, rows in used.items()},
        )

    @property
    def scheme_leaks(self) -> bool:
        """Whether it was split by RSNA's lists of `mrm`, which part images, not patients."""
        return self.split_scheme == "mrm" and rsna_pneumonia.SOURCE.name in self.trained_on

    @property
    def hub_datasets(self) -> list[str]:
        """Ids of the datasets on the Hub that were read, of real images that were trained on."""
        is_own = OWN in self.trained_on and OWN not in self.phantom_sources
        read = [self.own_images if is_own else None, self.hub_copy]
        return [] if self.is_phantom else [one.hub_id for one in read if one is not None and one.hub_id]


@dataclass
class PreprocessingRecord:
    """Resize and crop in pixels, mean and standard deviation in units of [0, 1], the model's channels."""

    image_size: int
    resize_size: int
    mean: float
    std: float
    channels: int = 3
