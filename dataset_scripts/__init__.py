"""The data room: raw folders of medical images → one dataset with labels, splits and statistics."""

from typing import TYPE_CHECKING, Any

from dataset_scripts.brats2020 import Brats2020
from dataset_scripts.chestxray14 import ChestXray14
from dataset_scripts.covid_radiography import CovidRadiography
from dataset_scripts.covidx_cxr import CovidxCxr
from dataset_scripts.findings import FINDINGS, label_names
from dataset_scripts.image_folder import ImageFolder

if TYPE_CHECKING:
    from dataset_scripts.cocktail import Cocktail
    from dataset_scripts.phantom.cohort import write_phantom_cohort

__all__ = [
    "FINDINGS",
    "Brats2020",
    "ChestXray14",
    "Cocktail",
    "CovidRadiography",
    "CovidxCxr",
    "ImageFolder",
    "label_names",
    "write_phantom_cohort",
]


def __getattr__(name: str) -> Any:
    """Import the two modules that are also command lines when asked for: `python -m` wants them fresh."""
    if name == "Cocktail":
        from dataset_scripts.cocktail import Cocktail

        return Cocktail
    if name == "write_phantom_cohort":
        from dataset_scripts.phantom.cohort import write_phantom_cohort

        return write_phantom_cohort
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
