"""What a build tells about itself: each worker's log → `build_report.json`, `pixel_statistics.json`.

Every worker hands over its counts when it is done; the parent process merges them, so they do not depend on
the number of processes. A log that lies on the disk in whole says that its part of the build is done.
"""

import difflib
import json
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataset_scripts.build.atomic_files import read_json, write_json
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.layout import (
    BUILD_REPORT_FILE,
    LEAKAGE_REPORT_FILE,
    LEAKAGE_SHEET_FILE,
    STATISTICS_FILE,
)
from dataset_scripts.build.origin import DatasetOrigin
from dataset_scripts.build.pixel_statistics import PixelHistogram
from dataset_scripts.build.records import Problem
from dataset_scripts.errors import TooManyBadFilesError
from dataset_scripts.reading.grayscale import GrayImage

logger = logging.getLogger(__name__)


_PREFIX = "worker-log-"

_NAMED_IN_ERROR = 20

FEWEST_BAD_FILES = 10

_MOST_ABSENT = 0.1  # of the images that a list names; more look like a fault

_LEFT_OUT = frozenset(
    "absent ambiguous_name bad_line conflicting_class conflicting_row duplicate empty_folder hidden_file "
    "leak link_out_of_folder no_image no_label_row no_picture not_listed patient_in_test "
    "patient_in_validation same_file same_name unmatched_name".split()
)
"""Kinds of files or rows that are not in the data, beside the unreadable files; the other kinds are of images
that were built."""

_SAID_WHOLE = (
    "patient_by_name", "split_cut", "no_class", "class_column", "column_passed_over", "other_folder"
)  # fmt: skip
"""Kinds whose details a user should read: decisions about all images."""

_ADVICE = {
    "link_out_of_folder": "links that leave their folder are not followed (docs/data.md)",
    "not_drawn": "a folder of phantoms holds other files too, so it counts as real: keep phantoms apart",
    "no_patient": "an image without a patient counts as a patient of its own, so films of one person may "
    "stand in training and test, and intervals are too narrow: write a table with image, patient and label, "
    "and name each image's patient in it",
    "nih_split_unknown": "patients whom ChestX-ray14 holds out may be trained on: put its label file and two "
    "lists beside (docs/data.md)",
    "patients_unknown": "films of one person may stand in training and test: give nih_mapping (docs/data.md)",
}


@dataclass(slots=True)
class BuildLog:
    """One worker's counts. `folder` None (streaming) means problems go to the log only."""

    folder: Path | None
    bad_files: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    histogram: PixelHistogram = field(default_factory=PixelHistogram)

    def report(self, problem: Problem, is_bad: bool = False) -> None:
        """Count and name a problem; `is_bad` says that a file could not be read."""
        self.bad_files += is_bad
        self.problems.append({**asdict(problem), "is_bad": is_bad})
        if self.folder is None:
            logger.warning("%s: %s: %s %s", problem.source, problem.name, problem.kind, problem.detail)

    def count(self, source: str, split: str, image: GrayImage) -> None:
        """Count one built image, with its pixels if it is a training image."""
        self.images[source, split] += 1
        if split == "train":
            self.histogram.add(image)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain numbers and text, for a worker to hand over."""
        return {
            "bad_files": self.bad_files,
            "problems": self.problems,
            "images": [[source, split, count] for (source, split), count in self.images.items()],
            "histogram": self.histogram.to_json(),
        }

    def write(self, name: str = "") -> None:
        """Hand the counts over to the parent process, in a file of a unique name unless given one."""
        if self.folder is not None:
            write_json(log_path(self.folder, name or uuid.uuid4().hex), self.to_json())


def log_path(folder: Path, name: str) -> Path:
    """Return where the log of this name lies."""
    return folder / f"{_PREFIX}{name}.json"


def is_log(path: Path) -> bool:
    """Say whether a file is a worker's log."""
    return path.name.startswith(_PREFIX)


def read_log(path: Path) -> dict[str, Any] | None:
    """Read a log; None if it is absent or damaged, so that its part of the build is to be done."""
    log = read_json(path)
    wanted = BuildLog(None).to_json()
    if not isinstance(log, dict) or any(type(log.get(name)) is not type(wanted[name]) for name in wanted):
        return None
    return log


def read_logs(folder: Path) -> list[dict[str, Any]]:
    """Read every log in a folder."""
    logs = (read_log(path) for path in sorted(folder.iterdir()) if is_log(path))
    return [log for log in logs if log is not None]


def most_bad_files(total: int, max_bad_fraction: float) -> int:
    """Return how many of `total` files may be unreadable; a small dataset may always have ten."""
    return max(FEWEST_BAD_FILES, int(max_bad_fraction * total))


def write_reports(
    folder: Path,
    logs: Iterable[dict[str, Any]],
    *,
    files: int,
    dataset: str,
    config: SourceConfig,
    origin: DatasetOrigin | None = None,
) -> None:
    """Merge the workers' logs into the two JSON files in `folder`.

    Args:
        folder: of the built data.
        logs: what every worker handed over.
        files: how many source files were to be read.
        dataset: the builder's name.
        config: what was asked for.
        origin: of your own images, where it is known.

    Raises:
        TooManyBadFilesError: more files are unreadable than allowed; the message lists them.
    """
    logs = list(logs)
    images: dict[str, dict[str, int]] = {}
    for source, split, count in (entry for log in logs for entry in log["images"]):
        by_split = images.setdefault(source, {})
        by_split[split] = by_split.get(split, 0) + count
    problems = sorted(
        (problem for log in logs for problem in log["problems"]),
        key=lambda problem: (problem["source"], problem["kind"], problem["name"], problem["detail"]),
    )
    _check_bad_files([problem for problem in problems if problem["is_bad"]], files, config.max_bad_fraction)
    counts: dict[str, dict[str, int]] = {}
    for problem in problems:
        kinds = counts.setdefault(problem["source"], {})
        kinds[problem["kind"]] = kinds.get(problem["kind"], 0) + 1
    report = {
        "dataset": dataset,
        "config": config.name,
        "manifest": config.manifest,
        **({} if origin is None else {"own_images": asdict(origin)}),
        "images": {source: dict(sorted(by_split.items())) for source, by_split in sorted(images.items())},
        "problem_counts": counts,
        "problems": problems,
    }
    write_json(folder / BUILD_REPORT_FILE, report, indent=1)
    histogram = PixelHistogram.merged(log["histogram"] for log in logs)
    if histogram.images:
        write_json(folder / STATISTICS_FILE, histogram.statistics(), indent=1)
    else:
        (folder / STATISTICS_FILE).unlink(missing_ok=True)  # of an earlier build in this folder


def _check_bad_files(bad: list[dict[str, Any]], files: int, max_bad_fraction: float) -> None:
    allowed = most_bad_files(files, max_bad_fraction)
    if len(bad) <= allowed:
        return
    names = "\n".join(
        f"  {problem['source']}: {problem['name']} ({problem['kind']}: {problem['detail']})"
        for problem in bad[:_NAMED_IN_ERROR]
    )
    raise TooManyBadFilesError(
        f"{len(bad)} files are unreadable so far; at most {allowed} of {files} are allowed (max_bad_fraction "
        f"{max_bad_fraction}). The first are:\n{names}\n"
        "Copy or download them again, or raise max_bad_fraction if they are known to be lost."
    )


def summary_lines(folder: Path) -> list[str]:
    """What a finished build holds, a line a source, and what was left out and noted (`note_lines`).

    Args:
        folder: where build_report.json lies.
    """
    report = read_report(folder)
    lines = [
        f"{source}: " + ", ".join(f"{split} {count:,}" for split, count in sorted(splits.items()))
        for source, splits in report["images"].items()
    ]
    held = {split for splits in report["images"].values() for split in splits}
    if missing := [split for split in ("train", "validation", "test") if split not in held]:
        lines.append(
            f"no image in {' and '.join(missing)}: training wants train and validation, evaluation wants test"
        )
    return [*lines, *note_lines(folder)]


def note_lines(folder: Path) -> list[str]:
    """What was left out of a finished build and what was noted, each in a line of its own.

    Args:
        folder: where build_report.json lies.
    """
    report = read_report(folder)
    not_there = kinds_left_out(report)
    left_out: list[str] = []
    noted: list[str] = []
    for source, kinds in report["problem_counts"].items():
        for kind, count in kinds.items():
            if kind not in _SAID_WHOLE:  # they are said in words
                (left_out if kind in not_there else noted).append(f"{source} {count:,} {kind}")
    named = f" (named in {BUILD_REPORT_FILE})"
    lines = [
        *_leak_sentence(folder),
        f"left out: {', '.join(left_out)}{named}" if left_out else "no file left out",
    ]
    lines += [f"noted: {', '.join(noted)}{named}"] if noted else []
    met = {kind for kinds in report["problem_counts"].values() for kind in kinds}
    lines += [sentence for kind, sentence in _ADVICE.items() if kind in met]
    lines += _absent_sentences(report)
    lines += naming_faults(report["problems"])
    return lines + [problem["detail"] for problem in report["problems"] if problem["kind"] in _SAID_WHOLE]


def _absent_sentences(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each source of whose named images more than a tenth have no file."""
    sentences = []
    for source, kinds in report["problem_counts"].items():
        absent = sum(kinds.get(kind, 0) for kind in ("absent", "unmatched_name", "ambiguous_name"))
        named = absent + sum(report["images"].get(source, {}).values())
        if absent > _MOST_ABSENT * named:
            sentences.append(
                f"{source}: {absent:,} of {named:,} images that a list names are not in the folder"
            )
    return sentences


def kinds_left_out(report: Mapping[str, Any]) -> frozenset[str]:
    """Return the kinds of problems that say of a file or row that it is not in the data.

    Args:
        report: build_report.json.
    """
    return _LEFT_OUT | {problem["kind"] for problem in report["problems"] if problem["is_bad"]}


def naming_faults(problems: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each source with as many names without a file as files without a name, and like them.

    Args:
        problems: of build_report.json, with source, kind and name.
    """
    names: dict[str, dict[str, list[str]]] = {}
    for problem in problems:
        if problem["kind"] in ("absent", "not_listed"):
            names.setdefault(problem["source"], {}).setdefault(problem["kind"], []).append(problem["name"])
    sentences = []
    for source, found in names.items():
        absent, unnamed = found.get("absent", []), found.get("not_listed", [])
        pairs = [(name, _most_like(name, unnamed)) for name in absent[:5]]
        if len(absent) == len(unnamed) > 0 and all(file for _, file in pairs):
            counted = "1 name has no file and 1 file has no name" if len(absent) == 1 else (
                f"{len(absent):,} names have no file and as many files have no name"
            )  # fmt: skip
            sentences.append(
                f"{source}: {counted}, which looks like a fault of naming: {pairs[0][0]!r} is named, "
                f"and {pairs[0][1]!r} is in the folder; where they are the same, write it as the file has it"
            )
    return sentences


def _most_like(name: str, files: list[str]) -> str | None:
    """The file, of the first thousand, whose name without folder and suffix is most like this one's."""
    by_stem = {Path(file).stem: file for file in files[:1000]}
    near = difflib.get_close_matches(Path(name).stem, by_stem, n=1)
    return by_stem[near[0]] if near else None


def _leak_sentence(folder: Path | str) -> list[str]:
    """How many training images show a held-out one; nothing where the leakage guard left no report."""
    report = read_json(Path(folder) / LEAKAGE_REPORT_FILE)
    if not report or not report["compared_images"]:
        return []
    found = len(report["dropped"]) + len(report["allowed"])
    kept = " and were kept (allow_leakage)" if report["allowed"] else ""
    near, unsure = report.get("near_threshold", {"images": 0}), ""
    if near["images"]:
        alike = ", and drawn chests are alike" if near["drawn"] else ""
        unsure = (
            f", {near['images']:,} of them by a score below {near['below']:.2f}, near the threshold of "
            f"{report['threshold']:.2f}{alike}: look at them in {LEAKAGE_SHEET_FILE}"
        )
    return [f"{found:,} of {report['compared_images']:,} training images show a held-out one{kept}{unsure}"]


def read_report(folder: Path | str) -> dict[str, Any]:
    """Read `build_report.json` of a built dataset's folder."""
    report: dict[str, Any] = json.loads((Path(folder) / BUILD_REPORT_FILE).read_text(encoding="utf-8"))
    return report
