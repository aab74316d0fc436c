"""BraTS 2020: multi-modal brain MRI with gliomas, as axial slices.

Raw folder → `list_images` → builder, which reads the volumes by reading/nifti.py. What it holds, its terms
and whom to cite stand in `SOURCE` below.

Layout: `BraTS20_*_NNN/*_{flair,t1,t1ce,t2}.nii` or `.nii.gz`; the segmentation is never an image.
"""

import re

from dataset_scripts.build.builder import SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import FolderScan, ImageRecord, Source, SourceListing
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import no_labels

MODALITIES = ("flair", "t1", "t1ce", "t2")

_VOLUME = re.compile(r"(?:.*/)?([^/]+)/[^/]*_(flair|t1ce|t1|t2)\.nii(?:\.gz)?", re.IGNORECASE)


def list_images(scan: FolderScan, config: SourceConfig) -> SourceListing:
    """List the volumes of a BraTS folder: all train, a record a volume.

    Raises:
        DataLayoutError: no volume.
    """
    listing = SourceListing(SOURCE, scan.root)
    volumes: dict[str, dict[str, str]] = {}
    for path in scan.files:
        match = _VOLUME.fullmatch(path)
        if match is None:
            continue
        subject, modality = match[1], match[2].lower()
        known = volumes.setdefault(subject, {})
        if modality in known:
            listing.report("same_name", path, f"the same volume as {known[modality]}, which is used")
        else:
            known[modality] = path
    if not volumes:
        raise DataLayoutError(
            f"{SOURCE.folder}: no volume found. Wanted BraTS20_*_NNN/*_flair.nii[.gz] and t1, t1ce, t2 "
            f"beside it; found {sorted({path.split('/', 1)[0] for path in scan.files})[:12]}. "
            f"Point data_dir at the folder that holds the subjects.{scan.links_advice()}"
        )
    links = [match for link in scan.links_out if (match := _VOLUME.fullmatch(link))]
    linked = {(match[1], match[2].lower()) for match in links}
    for subject in sorted(volumes):
        for modality in MODALITIES:
            if modality not in volumes[subject] and (subject, modality) in linked:
                continue  # it is there, and named with the links
            if modality not in volumes[subject]:
                listing.report(
                    "absent", f"{subject}/{subject}_{modality}.nii.gz", "missing modality", "train"
                )
                continue
            record = ImageRecord(
                image_id=f"{SOURCE.name}/{subject}/{modality}",
                source=SOURCE.name,
                patient_id=f"{SOURCE.name}/{subject}",
                path=volumes[subject][modality],
                labels=no_labels(),
                is_volume=True,
            )
            listing.splits.setdefault("train", []).append(record)
    listing.report_passed_over(scan)
    return listing


SOURCE = Source(
    name="BraTS 2020",
    folder="MICCAI_BraTS2020_TrainingData",
    list_images=list_images,
    title="BraTS 2020",
    description="Multi-modal brain MRI with gliomas, as axial slices: 369 training subjects, each with four "
    "volumes (FLAIR, T1, T1 with contrast, T2) of 240x240x155 voxels of 1 mm, skull-stripped, co-registered, "
    "int16 NIfTI. Ten slices a volume make 14,760 images. There is no chest in it.",
    license="Free for research after registration.",
    homepage="https://www.med.upenn.edu/cbica/brats2020/data.html",
    citation='Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE TMI '
    '2015; Bakas et al., "Advancing The Cancer Genome Atlas glioma MRI collections with expert segmentation '
    'labels and radiomic features", Scientific Data 2017.',
    shows_chest=False,
)


class Brats2020(SourceBuilder):
    """Builder of BraTS 2020; `data_dir` is the folder described above."""

    SOURCES = (SOURCE,)
