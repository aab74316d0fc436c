"""The README.md of an exported dataset: what `load_dataset` needs to know, and what a reader should.

The JSON reports and statistics beside the data, and what each `Source` says of itself → here → `README.md`
and `LICENSE.md`.
It computes nothing.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_scripts.build.atomic_files import write_atomically
from dataset_scripts.build.build_log import kinds_left_out
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.layout import (
    BUILD_REPORT_FILE,
    CARD_FILE,
    LEAKAGE_REPORT_FILE,
    LICENCE_FILE,
    SHARDS_FOLDER,
    STATISTICS_FILE,
)
from dataset_scripts.build.origin import DatasetOrigin, origin_from_json
from dataset_scripts.build.records import Source
from dataset_scripts.findings import REPORT_COLUMNS
from dataset_scripts.markdown import escape_markdown, front_matter
from dataset_scripts.splits import SPLITS


def write_card(folder: Path, config: SourceConfig, labels: Sequence[str], sources: Sequence[Source]) -> None:
    """Write README.md: a configuration a source and "all", labels, counts, sources, leakage, statistics.

    Args:
        folder: of the exported dataset, with its reports.
        config: what it was built with.
        labels: names, in the order of the `labels` column.
        sources: at least those that have an image in it.
    """
    report = _read(folder / BUILD_REPORT_FILE)
    origin = origin_from_json(report.get("own_images"))
    built = [_stated(source, origin) for source in sources if source.name in report["images"]]
    title = _own_title(built, origin) or "Medical image cocktail"
    tags = {tag for source in built for tag in source.hub_tags}
    header = {
        "pretty_name": f"{title} (MedHiera)",
        "license": "other",
        "license_name": "see-sources",
        "license_link": LICENCE_FILE,
        "size_categories": [size_category(sum(sum(counts.values()) for counts in report["images"].values()))],
        "task_categories": [
            "image-classification",
            "image-feature-extraction",
            *(["image-to-text"] if config.has_reports else []),
        ],
        "tags": ["medical", "radiology", *sorted(tags), "masked-autoencoder"],
        "configs": _configs(folder),
    }
    parts = [
        front_matter(header).rstrip("\n"),
        f"# {escape_markdown(title)}",
        'Built with MedHiera: `load_dataset(..., "all")`, or one source by its name. Columns: image '
        f"({_image_column(config.is_raw)}), image_id, source, patient_id, labels (1 present, 0 absent, NaN "
        "not annotated; names in `findings`), age_years, sex, view, boxes (pixels of the stored image), "
        "nih_image and rsna_image (the picture's name in ChestX-ray14 and in the RSNA challenge, where it is "
        "known to be theirs), is_phantom"
        f"{_report_columns(config.has_reports)}. "
        f"Split: `{escape_markdown(config.name)}`. Image size: {_size(config.stored_size)}.",
        "## Labels\n\nIn the order of `labels`: " + ", ".join(map(escape_markdown, labels)) + ".",
        "## Images\n\n" + _count_table(report["images"]),
        "## Left out\n\n" + _left_out(report),
        *_noted(report),
        "## Leakage\n\n" + _leakage(folder / LEAKAGE_REPORT_FILE),
        "## Pixel statistics\n\n" + _statistics(folder / STATISTICS_FILE),
        "## Sources\n\n"
        + "\n\n".join(_source(source, labels, source.name in config.phantoms) for source in built),
        "## Use\n\nFor research. Nothing here is fit for diagnosis. Each source keeps its own licence: read "
        "it before you share this dataset.",
    ]
    write_atomically(folder / CARD_FILE, "\n\n".join(parts) + "\n")
    licences = [f"- {escape_markdown(source.name)}: {escape_markdown(source.license)}" for source in built]
    head = "Each source keeps its own licence; none of them is given by whoever shares this dataset."
    write_atomically(folder / LICENCE_FILE, "\n".join([head, "", *licences]) + "\n")


def _own_title(built: Sequence[Source], origin: DatasetOrigin | None) -> str:
    """The name of your own images' dataset or folder, where nothing else was built; else ""."""
    is_own_alone = [source.label_names for source in built] == [None]
    return origin.public_name or origin.folder if is_own_alone and origin is not None else ""


def _stated(source: Source, origin: DatasetOrigin | None) -> Source:
    """A source; of your own images, with what their dataset says of itself."""
    if source.label_names is not None or origin is None or not origin.public_name:
        return source
    return replace(
        source,
        description=f"{source.description} They are of the dataset {origin.public_name}.",
        license=origin.terms or source.license,
        homepage=origin.address,
    )


def size_category(images: int) -> str:
    """The Hub's word for how many rows a dataset has: "1K<n<10K"."""
    bounds = [(1_000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M")]
    if images < bounds[0][0]:
        return "n<1K"
    for (_, low), (most, high) in itertools.pairwise(bounds):
        if images < most:
            return f"{low}<n<{high}"
    return "10M<n<100M"


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _configs(folder: Path) -> list[dict[str, Any]]:
    sources = sorted(
        path.name for path in (folder / SHARDS_FOLDER).iterdir() if any(path.glob("*-of-*.parquet"))
    )
    configs: list[dict[str, Any]] = []
    for name, pattern in [("all", "*"), *((source, source) for source in sources)]:
        files = [
            {"split": split, "path": f"{SHARDS_FOLDER}/{pattern}/{split}-*.parquet"}
            for split in SPLITS
            if any((folder / SHARDS_FOLDER).glob(f"{pattern}/{split}-*.parquet"))
        ]
        configs.append({"config_name": name, "data_files": files})
    configs[0]["default"] = True
    return configs


def _image_column(is_raw: bool) -> str:
    if is_raw:
        return "8-bit gray bytes, row after row: pixels, height, width"
    return "8-bit gray"


def _report_columns(has_reports: bool) -> str:
    return f', {", ".join(REPORT_COLUMNS)} ("" where there is none)' if has_reports else ""


def _size(image_size: int) -> str:
    return f"shorter side at most {image_size} pixels" if image_size else "native"


def _count_table(images: dict[str, dict[str, int]]) -> str:
    splits = [split for split in SPLITS if any(split in by_split for by_split in images.values())]
    lines = ["| source | " + " | ".join(splits) + " |", "|---" * (len(splits) + 1) + "|"]
    for source, by_split in images.items():
        lines.append(
            f"| {escape_markdown(source)} | "
            + " | ".join(str(by_split.get(split, 0)) for split in splits)
            + " |"
        )
    return "\n".join(lines)


def _left_out(report: dict[str, Any]) -> str:
    """What is not in the data, of what the folders and lists hold."""
    left_out = kinds_left_out(report)
    table = _problem_table(report, "files or rows", lambda kind: kind in left_out)
    return table or "Nothing: every file that a list or folder names was there and readable."


def _noted(report: dict[str, Any]) -> list[str]:
    """A section on what is unknown or odd, or was decided, of what is in the data; none without any."""
    left_out = kinds_left_out(report)
    table = _problem_table(report, "times", lambda kind: kind not in left_out)
    return [f"## Noted\n\n{table}"] if table else []


def _problem_table(report: dict[str, Any], counted: str, is_wanted: Callable[[str], bool]) -> str:
    rows = [
        f"| {escape_markdown(source)} | {escape_markdown(kind)} | {count} |"
        for source, kinds in report["problem_counts"].items()
        for kind, count in kinds.items()
        if is_wanted(kind)
    ]
    head = [f"| source | kind | {counted} |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", f"Names in `{BUILD_REPORT_FILE}`."]) if rows else ""


def _leakage(path: Path) -> str:
    if not path.is_file():
        return "One source alone: nothing to compare."
    report = _read(path)
    if report["allow_leakage"]:
        return (
            f"**Leakage allowed**, as in the MedTransformer paper: {len(report['allowed'])} training images "
            f"show held-out images{_whose(report)}. Test results of a model trained on this are not clean."
            f"{_protected(report)}{_duplicates(report)}"
        )
    count = len(report["dropped"])
    text = f"{count} training images that show held-out images were removed{_whose(report)}."
    return f"{text}{_protected(report)}{_duplicates(report)} Pairs in `{LEAKAGE_REPORT_FILE}`."


def _protected(report: dict[str, Any]) -> str:
    if not (protected := report["protected"]):
        return ""
    shown = protected["shown"]
    return (
        f" {protected['images']} images that are held out elsewhere were protected too: {shown} training "
        f"{'image' if shown == 1 else 'images'} showed one."
    )


def _duplicates(report: dict[str, Any]) -> str:
    text = ""
    if count := len(report["training_duplicates"]):
        names = " and ".join(map(escape_markdown, report["training_reference"]))
        text += f" {count} more show training images of {names} and were kept."
    if report["source_duplicates"] is not None:
        text += f" Of near-duplicates in one source {len(report['source_duplicates'])} were left out."
    if count := len(report["held_out_duplicates"]):
        dropped = report["dropped_validation_images"]
        text += f" {count} validation images show test images of their source: {dropped} were left out, "
        text += f"{count - dropped} kept."
    if count := len(report["label_conflicts"]):
        text += f" The labels of {count} pairs contradict each other (`label_conflicts`); none was changed."
    return text


def _whose(report: dict[str, Any]) -> str:
    """Of which sources they are, and whose held-out images they show."""
    pairs = report["allowed"] if report["allow_leakage"] else report["dropped"]
    own = Counter(pair["image_id"].split("/", 1)[0] for pair in pairs)
    shown = {name: held_out["shown"] for name, held_out in report["held_out"].items() if held_out["shown"]}
    parts = [
        f"{words} {', '.join(f'{escape_markdown(name)} {count}' for name, count in counts.items())}"
        for words, counts in (("of", own), ("showing images of", shown))
        if counts
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _statistics(path: Path) -> str:
    if not path.is_file():
        return "There is no training split."
    statistics = _read(path)
    return (
        f"Of {statistics['images']} training images, each weighted equally, in [0, 1]: mean "
        f"{statistics['mean']:.4f}, standard deviation {statistics['std']:.4f} (mean of each image's own: "
        f"{statistics['mean_of_stds']:.4f})."
    )


def _source(source: Source, labels: Sequence[str], is_phantom: bool) -> str:
    parts = [f"### {escape_markdown(source.name)}"]
    if is_phantom:
        parts.append("**Synthetic phantoms in its layout: none is an image of a patient.** Of the real set:")
    parts.append(escape_markdown(source.description))
    if source.label_names is not None:
        annotated = [name for name in labels if name in source.label_names]
        if len(annotated) == len(labels):
            parts.append("Labels: all are annotated.")
        else:
            names = ", ".join(map(escape_markdown, annotated))
            parts.append(
                f"Labels: {names} annotated; the others are NaN." if names else "Labels: none; all are NaN."
            )
    parts.append(f"License: {escape_markdown(source.license)}")
    if source.homepage:
        parts.append(f"Get it from {escape_markdown(source.homepage)}.")
    if source.citation:
        parts.append(f"Cite: {escape_markdown(source.citation)}")
    return "\n\n".join(parts)
