"""The README.md of an exported dataset: what `load_dataset` needs to know, and what a reader should.

The JSON reports and statistics beside the data → here → `README.md`. It computes nothing.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from dataset_scripts import brats2020, chestxray14, covid_radiography, covidx_cxr, image_folder
from dataset_scripts.build.builder import SourceConfig
from dataset_scripts.build.layout import BUILD_REPORT_FILE, STATISTICS_FILE
from dataset_scripts.build.layout import LEAKAGE_REPORT_FILE as LEAKAGE_FILE
from dataset_scripts.splits import SPLITS

_MODULES: dict[str, ModuleType] = {
    module.SOURCE: module for module in (chestxray14, covid_radiography, covidx_cxr, brats2020, image_folder)
}


def write_card(folder: Path, config: SourceConfig, labels: Sequence[str]) -> None:
    """Write README.md: a configuration a source and "all", labels, counts, sources, leakage, statistics."""
    report = _read(folder / BUILD_REPORT_FILE)
    header = {
        "license": "other",
        "license_name": "see-sources",
        "task_categories": ["image-classification", "feature-extraction"],
        "tags": ["medical", "radiology", "chest-x-ray", "masked-autoencoder"],
        "configs": _configs(folder),
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        "# Medical image cocktail",
        'Built with MedHiera: `load_dataset(..., "all")`, or one source by its name. Columns: image (8-bit '
        "gray), image_id, source, patient_id, labels (1 present, 0 absent, NaN not annotated; names in "
        "`findings`), age_years, sex, view, boxes (pixels of the stored image). Split: "
        f"`{config.name}`. Image size: {_size(config.image_size)}.",
        "## Labels\n\nIn the order of `labels`: " + ", ".join(labels) + ".",
        "## Images\n\n" + _count_table(report["images"]),
        "## Left out or noteworthy\n\n" + _problem_table(report["problem_counts"]),
        "## Leakage\n\n" + _leakage(folder / LEAKAGE_FILE),
        "## Pixel statistics\n\n" + _statistics(folder / STATISTICS_FILE),
        "## Sources\n\n" + "\n\n".join(_source(source) for source in report["images"]),
        "## Use\n\nFor research. Nothing here is fit for diagnosis. Each source keeps its own licence: read "
        "it before you share this dataset.",
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _configs(folder: Path) -> list[dict[str, Any]]:
    sources = sorted(path.name for path in (folder / "data").iterdir())
    configs: list[dict[str, Any]] = []
    for name, pattern in [("all", "*"), *((source, source) for source in sources)]:
        files = [
            {"split": split, "path": f"data/{pattern}/{split}-*.parquet"}
            for split in SPLITS
            if any((folder / "data").glob(f"{pattern}/{split}-*.parquet"))
        ]
        configs.append({"config_name": name, "data_files": files})
    configs[0]["default"] = True
    return configs


def _size(image_size: int) -> str:
    return f"shorter side at most {image_size} pixels" if image_size else "native"


def _count_table(images: dict[str, dict[str, int]]) -> str:
    splits = [split for split in SPLITS if any(split in by_split for by_split in images.values())]
    lines = ["| source | " + " | ".join(splits) + " |", "|---" * (len(splits) + 1) + "|"]
    for source, by_split in images.items():
        lines.append(f"| {source} | " + " | ".join(str(by_split.get(split, 0)) for split in splits) + " |")
    return "\n".join(lines)


def _problem_table(counts: dict[str, dict[str, int]]) -> str:
    if not counts:
        return "Nothing: every listed file was there and readable."
    rows = [
        f"| {source} | {kind} | {count} |"
        for source, kinds in counts.items()
        for kind, count in kinds.items()
    ]
    return "\n".join(
        ["| source | kind | files |", "|---|---|---|", *rows, "", f"Names in `{BUILD_REPORT_FILE}`."]
    )


def _leakage(path: Path) -> str:
    if not path.is_file():
        return "One source alone: nothing to compare."
    report = _read(path)
    if report["allow_leakage"]:
        return (
            f"**Leakage allowed**, as in the MedTransformer paper: {len(report['allowed'])} training images "
            "show held-out ChestX-ray14 images. Test results of a model trained on this are not clean."
        )
    return (
        f"{len(report['dropped'])} training images that show held-out ChestX-ray14 images were removed; "
        f"{len(report['training_duplicates'])} more show ChestX-ray14 training images and were kept. Pairs "
        f"in `{LEAKAGE_FILE}`."
    )


def _statistics(path: Path) -> str:
    if not path.is_file():
        return "There is no training split."
    statistics = _read(path)
    return (
        f"Of {statistics['images']} training images, each weighted equally, in [0, 1]: mean "
        f"{statistics['mean']:.4f}, standard deviation {statistics['std']:.4f} (mean of each image's own: "
        f"{statistics['mean_of_stds']:.4f})."
    )


def _source(source: str) -> str:
    facts = inspect.getdoc(_MODULES[source]) or ""
    return f"### {source}\n\n{facts}"
