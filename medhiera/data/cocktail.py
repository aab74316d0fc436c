"""Opens the built data, or builds it first.

Stands between the builders and the selection of rows.
"""

import contextlib
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import snapshot_download
from transformers import TrainingArguments

from dataset_scripts import SOURCES, Cocktail, label_names
from dataset_scripts.build.build_log import summary_lines
from dataset_scripts.build.layout import BUILD_FILE, BUILD_REPORT_FILE, PHANTOM_FILE
from dataset_scripts.build.pixel_statistics import read_statistics
from dataset_scripts.image_folder import ImageFolder
from medhiera.config.arguments import DataOptions
from medhiera.errors import RecipeError

logger = logging.getLogger(__name__)


def missing_validation(data_dir: Path) -> list[str]:
    """A sentence where the sources under a folder hold no validation image out: before hours of building.

    Args:
        data_dir: as the recipe has it; folders of one's own and built data are not looked into.
    """
    present = [source.folder for source in SOURCES if (data_dir / source.folder).is_dir()]
    holding = [source.folder for source in SOURCES if "validation" in source.held_out_splits]
    if not present or set(holding) & set(present):
        return []
    return [
        f"data_dir holds {', '.join(present)} and so no validation images; add {' or '.join(holding)}, which "
        "hold some out"
    ]


@dataclass(frozen=True)
class OpenCocktail:
    """The built cocktail, ready to read.

    Attributes:
        rows: splits `train`, `validation`, `test` (those it has).
        names: the label names, in the order of the `labels` column.
        mean: pixel mean of its training split, in units of [0, 1].
        std: pixel standard deviation, in the same units.
        is_phantom: made by write_phantom_cohort, not of patients.
        folder: where the built data and its reports lie.
        is_reused: it was there already.
    """

    rows: DatasetDict
    names: list[str]
    mean: float
    std: float
    is_phantom: bool
    folder: Path
    is_reused: bool

    def split(self, name: str) -> Dataset:
        """One split.

        Raises:
            RecipeError: the data has no such split.
        """
        if name not in self.rows:
            holding = [source.name for source in SOURCES if name in source.held_out_splits]
            raise RecipeError(
                f"the data has no {name} split, only {sorted(self.rows)}; add one of the sources that hold "
                f"images out for it: {holding}"
            )
        return self.rows[name]

    def caption(self, text: str) -> str:
        """A picture's title; phantoms are said to be phantoms inside the picture."""
        return f"{text} (synthetic phantoms)" if self.is_phantom else text

    def record(self) -> dict[str, Any]:
        """What metrics.json keeps of the data."""
        images = {split: by_source(rows) for split, rows in self.rows.items()}
        return {"images": images, "is_phantom": self.is_phantom, "leakage": self._leakage()}

    def _leakage(self) -> dict[str, Any]:
        """Counts from leakage_report.json; the pairs' names stay with the data."""
        path = self.folder / "leakage_report.json"
        if not path.is_file():
            return {"is_checked": False}
        report = json.loads(path.read_text(encoding="utf-8"))
        return {
            "is_checked": True,
            "held_out": report["held_out_images"],
            "compared": report["compared_images"],
            "dropped": len(report["dropped"]),
            "allowed": len(report["allowed"]),
        }


def open_cocktail(options: DataOptions, training: TrainingArguments | None = None) -> OpenCocktail:
    """Open the data that data_dir names, and build it first where it is raw.

    Args:
        options: where the data lies, where built data is kept, at which size. data_dir is a folder with the
            sources, or a folder of one's own (images/ and a CSV), or what `python -m dataset_scripts` wrote,
            here or on the Hub.
        training: with several ranks, lets the first build while the others wait.

    Raises:
        RecipeError: data_dir is neither a folder nor a dataset on the Hub that can be reached; `sources` or
            `mixing` names a source that is in none of its splits.
        DataLayoutError: the folder holds none of this.
    """
    folder = Path(options.data_dir)
    if (folder / BUILD_FILE).is_file() or not folder.is_dir():
        with training.main_process_first(local=False) if training else contextlib.nullcontext():
            rows, built = _load_exported(options.data_dir, options.build_dir)
        if training is not None:
            _refuse_other_build(options, built)
        is_reused = True
    else:
        builder_class = ImageFolder if (folder / "images").is_dir() else Cocktail
        builder = builder_class(
            data_dir=options.data_dir,
            cache_dir=options.build_dir,
            config_name=options.split,
            image_size=options.build_size or 0,
            max_bad_fraction=options.max_bad_fraction,
            allow_leakage=options.allow_leakage,
            nih_mapping=options.nih_mapping or "",
        )
        built = Path(builder.cache_dir)
        is_reused = built.is_dir()
        with training.main_process_first(local=False) if training else contextlib.nullcontext():
            builder.download_and_prepare(num_proc=options.build_num_proc)
        rows = builder.as_dataset()
    if is_reused:
        logger.info("the data was built before and its sources have not changed: reused")
    if (built / BUILD_REPORT_FILE).is_file():
        for line in summary_lines(built)[-1:]:
            logger.info("%s; the report lies in %s", line, built)
    there: set[str] = set()
    for split, chosen in rows.items():
        sources = by_source(chosen)
        there |= sources.keys()
        counts = ", ".join(f"{source} {count:,}" for source, count in sources.items())
        logger.info("%-10s %6s images (%s)", split, f"{len(chosen):,}", counts)
    for field, asked in (("sources", options.sources or []), ("mixing", options.weights())):
        if unknown := sorted(set(asked) - there):
            raise RecipeError(
                f"{field} names {unknown}, which no split holds; the data holds {sorted(there)}"
            )
    statistics = read_statistics(built)
    return OpenCocktail(
        rows=rows,
        names=label_names(rows["train"].features),
        mean=statistics["mean"],
        std=statistics["std"],
        is_phantom=any((place / PHANTOM_FILE).is_file() for place in (folder, built)),
        folder=built,
        is_reused=is_reused,
    )


def _load_exported(data_dir: str, cache_dir: str | None) -> tuple[DatasetDict, Path]:
    """Parquet that `python -m dataset_scripts` wrote, here or on the Hub, and where its reports lie."""
    try:
        rows = load_dataset(data_dir, "all", cache_dir=cache_dir)
        if Path(data_dir).is_dir():
            return rows, Path(data_dir)
        reports = snapshot_download(
            data_dir, repo_type="dataset", allow_patterns="*.json", cache_dir=cache_dir
        )
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"--data_dir {data_dir} is neither a folder here nor a dataset on the Hub that can be reached "
            f"({error}); name the folder that holds the sources"
        ) from error
    return rows, Path(reports)


def _refuse_other_build(options: DataOptions, built: Path) -> None:
    """Options that only a build obeys must be those this data was built with.

    Raises:
        RecipeError: it was built with another split, or with leaks dropped or kept as is not asked for.
    """
    faults = []
    build, report = built / BUILD_FILE, built / "leakage_report.json"
    split = json.loads(build.read_text(encoding="utf-8"))["config"].split("-")[0] if build.is_file() else None
    if split in ("official", "medtransformer") and split != options.split:
        faults.append(f"it was built with split: {split}, and the recipe has {options.split}")
    if report.is_file():
        is_allowed = json.loads(report.read_text(encoding="utf-8"))["allow_leakage"]
        if is_allowed != options.allow_leakage:
            kept = "kept" if is_allowed else "left out"
            faults.append(f"its leaks are {kept}, and the recipe has allow_leakage: {options.allow_leakage}")
    if options.nih_mapping:
        faults.append("nih_mapping is read when data is built, and this is built already")
    if faults:
        raise RecipeError(
            f"--data_dir {options.data_dir} is built data: {'; '.join(faults)}. Change the recipe, or give "
            "the folder of the sources, which is built as asked"
        )


def by_source(rows: Dataset) -> dict[str, int]:
    """Number of images by source, largest first."""
    return dict(Counter(rows["source"]).most_common())
