"""The labels, their order and the columns of every built dataset: the one place that knows them.

Stands at the bottom: builders write these columns, training reads the label names back from them.
"""

from collections.abc import Sequence

import datasets

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "No Finding",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)

NOT_ANNOTATED = float("nan")

RAW_IMAGE = {
    "pixels": datasets.Value("large_binary"),
    "height": datasets.Value("int32"),
    "width": datasets.Value("int32"),
}
"""The column `image` of data that is built with `compression: raw`: gray bytes, row after row."""

CHEST_REGION = "chest_region"
"""The column of data built with `contours`: where the chest lies, REGION_SIDE × REGION_SIDE bits of the whole
picture, row after row; null where no chest is shown."""

REGION_SIDE = 64

NIH_IMAGE, RSNA_IMAGE = "nih_image", "rsna_image"
"""The columns that name an image as ChestX-ray14 (its file) and RSNA (its patientId) do, whichever source it
came with; "" where that is not known. Both sets were copied into others under new names."""

IS_PHANTOM = "is_phantom"
"""The column that says whether an image is drawn (build/phantom_mark.py)."""

STUDY_ID = "study_id"
"""The column of data with reports that names the study of an image: SLUG/STUDY, "" of a source without any.
One report is about all images of a study, and no split parts them."""

REPORT_FINDINGS, REPORT_IMPRESSION, REPORT_INDICATION = REPORT_SECTIONS = (
    "report_findings",
    "report_impression",
    "report_indication",
)
"""The columns of data with reports that hold their sections, as written but for white space; "" is absent."""

REPORT_COLUMNS = (STUDY_ID, *REPORT_SECTIONS)


def make_features(
    names: Sequence[str] = FINDINGS,
    *,
    is_exclusive: bool = False,
    is_raw: bool = False,
    has_regions: bool = False,
    has_reports: bool = False,
) -> datasets.Features:
    """Return the columns of a built dataset whose labels are `names`.

    The names ride in `findings` (a list of ClassLabel: what is present), which keeps them through
    Arrow, Parquet and the Hub; `labels` holds one float per name: 1 present, 0 absent, NaN not
    annotated. Where labels exclude each other, `findings` is a list of length 1, which says so.
    """
    finding = datasets.ClassLabel(names=list(names))
    box = {
        "finding": finding,
        "x": datasets.Value("float32"),
        "y": datasets.Value("float32"),
        "width": datasets.Value("float32"),
        "height": datasets.Value("float32"),
    }
    regions = {CHEST_REGION: datasets.Value("binary")} if has_regions else {}
    reports = {column: datasets.Value("string") for column in REPORT_COLUMNS} if has_reports else {}
    return datasets.Features(
        {
            "image": RAW_IMAGE if is_raw else datasets.Image(),
            "image_id": datasets.Value("string"),
            "source": datasets.Value("string"),
            "patient_id": datasets.Value("string"),
            "labels": datasets.List(datasets.Value("float32"), length=len(names)),
            "findings": datasets.List(finding, length=1 if is_exclusive else -1),
            "age_years": datasets.Value("float32"),
            "sex": datasets.Value("string"),
            "view": datasets.Value("string"),
            NIH_IMAGE: datasets.Value("string"),
            RSNA_IMAGE: datasets.Value("string"),
            IS_PHANTOM: datasets.Value("bool"),
            "boxes": datasets.List(box),
            **regions,
            **reports,
        }
    )


def label_names(features: datasets.Features) -> list[str]:
    """Return the label names of a built dataset, in the order of its `labels` column.

    Args:
        features: `dataset.features` of any dataset built here, loaded back from disk or the Hub.

    Raises:
        ValueError: the dataset was not built here.
    """
    findings = features.get("findings")
    names = getattr(getattr(findings, "feature", None), "names", None)
    if names is None:
        raise ValueError(
            "This dataset has no label names: wanted a column 'findings' that lists ClassLabels, got columns "
            f"{sorted(features)}. Build it with dataset_scripts, for example ImageFolder for your own images."
        )
    return list(names)


def is_exclusive(features: datasets.Features) -> bool:
    """Whether each image of a built dataset has exactly one of its labels, as class folders give it."""
    return getattr(features.get("findings"), "length", -1) == 1


def labels_line(features: datasets.Features) -> str:
    """`2 classes: NORMAL, PNEUMONIA`, or `15 findings: …` of a built dataset."""
    names = label_names(features)
    kind = "classes" if is_exclusive(features) else "finding" if len(names) == 1 else "findings"
    return f"{len(names)} {kind}: {', '.join(names)}"


def label_vector(present: Sequence[int]) -> tuple[float, ...]:
    """Return 1.0 at the indices of FINDINGS in `present` and 0.0 elsewhere."""
    return tuple(1.0 if index in present else 0.0 for index in range(len(FINDINGS)))


def no_labels() -> tuple[float, ...]:
    """Return the label vector of an image nobody annotated: all NaN."""
    return (NOT_ANNOTATED,) * len(FINDINGS)
