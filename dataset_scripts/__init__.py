"""The data room: raw folders of medical images → one dataset with labels, splits and statistics.

Names are imported when they are first used: a command that only prints its help need not wait for `datasets`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_scripts.brats2020 import Brats2020
    from dataset_scripts.build.records import Source
    from dataset_scripts.chestxray14 import ChestXray14
    from dataset_scripts.chexpert import Chexpert
    from dataset_scripts.cocktail import SOURCES, Cocktail
    from dataset_scripts.covid_radiography import CovidRadiography
    from dataset_scripts.covidx_cxr import CovidxCxr
    from dataset_scripts.findings import FINDINGS, label_names
    from dataset_scripts.image_folder import ImageFolder
    from dataset_scripts.iu_xray import IuXray
    from dataset_scripts.mimic_cxr import MimicCxr
    from dataset_scripts.phantom.cohort import write_phantom_cohort
    from dataset_scripts.phantom.reports import write_phantom_reports
    from dataset_scripts.rsna_pneumonia import RsnaPneumonia

_HOMES = {
    "FINDINGS": "findings",
    "SOURCES": "cocktail",
    "Brats2020": "brats2020",
    "ChestXray14": "chestxray14",
    "Chexpert": "chexpert",
    "Cocktail": "cocktail",
    "CovidRadiography": "covid_radiography",
    "CovidxCxr": "covidx_cxr",
    "ImageFolder": "image_folder",
    "IuXray": "iu_xray",
    "MimicCxr": "mimic_cxr",
    "RsnaPneumonia": "rsna_pneumonia",
    "Source": "build.records",
    "label_names": "findings",
    "write_phantom_cohort": "phantom.cohort",
    "write_phantom_reports": "phantom.reports",
}
"""Name → the module of this package that defines it."""

__all__ = [
    "FINDINGS",
    "SOURCES",
    "Brats2020",
    "ChestXray14",
    "Chexpert",
    "Cocktail",
    "CovidRadiography",
    "CovidxCxr",
    "ImageFolder",
    "IuXray",
    "MimicCxr",
    "RsnaPneumonia",
    "Source",
    "label_names",
    "write_phantom_cohort",
    "write_phantom_reports",
]


def __getattr__(name: str) -> Any:
    """One of the names above, from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
