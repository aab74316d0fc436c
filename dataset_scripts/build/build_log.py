"""What a build tells about itself: each worker's log → `build_report.json`, `pixel_statistics.json`.

Every worker of `_generate_examples` writes one small file beside the data when it is done; the parent
process merges them, so the counts do not depend on the number of processes.
"""

import json
import logging
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataset_scripts.build.layout import BUILD_REPORT_FILE, STATISTICS_FILE
from dataset_scripts.build.pixel_statistics import PixelHistogram
from dataset_scripts.build.records import Problem
from dataset_scripts.errors import TooManyBadFilesError
from dataset_scripts.reading.grayscale import GrayImage

logger = logging.getLogger(__name__)


_PREFIX = "worker-log-"

_NAMED_IN_ERROR = 20

FEWEST_BAD_FILES = 10


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

    def write(self, name: str = "") -> None:
        """Hand the counts over to the parent process, in a file of a unique name unless given one."""
        if self.folder is None:
            return
        content = {
            "bad_files": self.bad_files,
            "problems": self.problems,
            "images": [[source, split, count] for (source, split), count in self.images.items()],
            "histogram": self.histogram.to_json(),
        }
        path = self.folder / f"{_PREFIX}{name or uuid.uuid4().hex}.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def most_bad_files(total: int, max_bad_fraction: float) -> int:
    """Return how many of `total` files may be unreadable; a small dataset may always have ten."""
    return max(FEWEST_BAD_FILES, int(max_bad_fraction * total))


def write_reports(
    folder: Path,
    *,
    log_dir: Path | None = None,
    dataset: str,
    config: str,
    manifest: str,
    max_bad_fraction: float,
) -> None:
    """Merge the workers' logs into the two JSON files in `folder`, and remove them.

    The logs lie in `log_dir`, or in `folder` too.

    Raises:
        TooManyBadFilesError: more files are unreadable than allowed; the message lists them.
    """
    paths = sorted((log_dir or folder).glob(f"{_PREFIX}*.json"))
    logs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    images: dict[str, dict[str, int]] = {}
    for source, split, count in (entry for log in logs for entry in log["images"]):
        by_split = images.setdefault(source, {})
        by_split[split] = by_split.get(split, 0) + count
    problems = sorted(
        (problem for log in logs for problem in log["problems"]),
        key=lambda problem: (problem["source"], problem["kind"], problem["name"], problem["detail"]),
    )
    bad = [problem for problem in problems if problem["is_bad"]]
    built = sum(count for by_split in images.values() for count in by_split.values())
    allowed = most_bad_files(built + len(bad), max_bad_fraction)
    if len(bad) > allowed:
        names = "\n".join(
            f"  {problem['source']}: {problem['name']} ({problem['kind']}: {problem['detail']})"
            for problem in bad[:_NAMED_IN_ERROR]
        )
        raise TooManyBadFilesError(
            f"{len(bad)} files are unreadable so far; at most {allowed} are allowed (max_bad_fraction "
            f"{max_bad_fraction}). The first are:\n{names}\n"
            "Copy or download them again, or raise max_bad_fraction if they are known to be lost."
        )
    counts: dict[str, dict[str, int]] = {}
    for problem in problems:
        kinds = counts.setdefault(problem["source"], {})
        kinds[problem["kind"]] = kinds.get(problem["kind"], 0) + 1
    report = {
        "dataset": dataset,
        "config": config,
        "manifest": manifest,
        "images": {source: dict(sorted(by_split.items())) for source, by_split in sorted(images.items())},
        "problem_counts": counts,
        "problems": problems,
    }
    _write_json(folder / BUILD_REPORT_FILE, report)
    histogram = PixelHistogram.merged(log["histogram"] for log in logs)
    if histogram.images:
        _write_json(folder / STATISTICS_FILE, histogram.statistics())
    for path in paths:
        path.unlink()


def summary_lines(folder: Path) -> list[str]:
    """What a finished build holds and what it left out, a line a source and a line of problems.

    Args:
        folder: where build_report.json lies.
    """
    report = read_report(folder)
    lines = [
        f"{source}: " + ", ".join(f"{split} {count:,}" for split, count in sorted(splits.items()))
        for source, splits in report["images"].items()
    ]
    left_out = [
        f"{source} {count:,} {kind}"
        for source, kinds in report["problem_counts"].items()
        for kind, count in kinds.items()
    ]
    links = sum(kinds.get("link_out_of_folder", 0) for kinds in report["problem_counts"].values())
    not_followed = "; links that leave their folder are not followed (docs/data.md)" if links else ""
    noted = f"{', '.join(left_out) or 'nothing'} (named in {BUILD_REPORT_FILE}){not_followed}"
    return [*lines, f"left out or noted: {noted}"]


def read_report(folder: Path | str) -> dict[str, Any]:
    """Read `build_report.json` of a built dataset's folder."""
    report: dict[str, Any] = json.loads((Path(folder) / BUILD_REPORT_FILE).read_text(encoding="utf-8"))
    return report


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
