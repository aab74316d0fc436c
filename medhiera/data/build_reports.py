"""What the reports beside built data say that a record keeps: leaks, guessed patients, your images' dataset.

build_report.json and leakage_report.json → here → cocktail.py and hub/data_record.py.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.build.build_log import kinds_left_out, read_report
from dataset_scripts.build.layout import BUILD_REPORT_FILE, LEAKAGE_REPORT_FILE
from dataset_scripts.build.origin import DatasetOrigin, origin_from_json

_NAMED = 3


@dataclass
class LeakageCounts:
    """What the leakage guard of a build counted, from leakage_report.json, and what was seen before it.

    Attributes:
        is_checked: the build compared images; False where it had nothing to compare, or left no report.
        held_out: images of the validation and test splits.
        compared: training images whose pixels were compared with any.
        dropped: training images that show a held-out one, and were left out.
        allowed: training images that show a held-out one, and were kept as asked for.
        protected: images of the user's own held-out list, which the training images were compared with too.
        unsure: of those dropped or allowed, found by a score near the threshold: to be looked at.
        unsure_drawn: of these, drawn images, which are alike.
        seen_before: by split, held-out images that the stages before or the teacher were trained on, as
            allowed (training_images.count_seen); empty where none is known of.
    """

    is_checked: bool = False
    held_out: int = 0
    compared: int = 0
    dropped: int = 0
    allowed: int = 0
    protected: int = 0
    unsure: int = 0
    unsure_drawn: int = 0
    seen_before: dict[str, int] = field(default_factory=dict)

    @property
    def were_kept(self) -> bool:
        """Whether held-out images were learned from, here or before, as allowed."""
        return bool(self.allowed or self.seen_before)


def read_leakage(folder: Path) -> LeakageCounts:
    """Counts from leakage_report.json; the pairs' names stay with the data.

    Args:
        folder: of the built data.
    """
    if not (path := folder / LEAKAGE_REPORT_FILE).is_file():
        return LeakageCounts()
    report = json.loads(path.read_text(encoding="utf-8"))
    near = report.get("near_threshold", {})
    return LeakageCounts(
        is_checked=True,
        held_out=report["held_out_images"],
        compared=report["compared_images"],
        dropped=len(report["dropped"]),
        allowed=len(report["allowed"]),
        protected=(report.get("protected") or {}).get("images", 0),
        unsure=near.get("images", 0),
        unsure_drawn=near.get("drawn", 0),
    )


def split_left_out(folder: Path, split: str) -> str:
    """Why a split is empty, where all of its images were left out of the build; empty where none was.

    Args:
        folder: of the built data.
        split: that it does not have.
    """
    if not (folder / BUILD_REPORT_FILE).is_file():
        return ""
    report = read_report(folder)
    kinds = kinds_left_out(report)
    lost = [one for one in report["problems"] if one["split"] == split and one["kind"] in kinds]
    if not lost:
        return ""
    named = "; ".join(f"{one['name']}: {one['kind']}, {one['detail']}" for one in lost[:_NAMED])
    more = f"; and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else ""
    what = "the 1 image of it was left out" if len(lost) == 1 else f"all {len(lost):,} were left out"
    return f"{what} ({named}{more}); mend that, or add images"


def are_patients_guessed(folder: Path) -> bool:
    """Whether the names of files told whose image each is, by build_report.json; False where there is none.

    Args:
        folder: of the built data.
    """
    if not (folder / BUILD_REPORT_FILE).is_file():
        return False
    return any(kinds.get("patient_by_name") for kinds in read_report(folder)["problem_counts"].values())


def is_test_drawn(folder: Path) -> bool:
    """Whether your own images named no test split, so that some of them were drawn; False without a report.

    Args:
        folder: of the built data.
    """
    if not (folder / BUILD_REPORT_FILE).is_file():
        return False
    return any(
        problem["kind"] == "split_cut" and problem["name"] in ("splits", "test")  # own/splits.py
        for problem in read_report(folder)["problems"]
    )


def own_images_origin(folder: Path) -> DatasetOrigin | None:
    """What names the dataset of your own images, by build_report.json; None where nothing does.

    Args:
        folder: of the built data.
    """
    if not (folder / BUILD_REPORT_FILE).is_file():
        return None
    return origin_from_json(read_report(folder).get("own_images"))
