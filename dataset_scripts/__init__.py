"""The data room: raw folders of medical images → one dataset with labels, splits and statistics."""

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
