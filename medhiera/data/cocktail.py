"""Opens the built data, or builds it first.

Stands between the builders and the selection of rows.
"""

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import snapshot_download
from transformers import TrainingArguments

from dataset_scripts import SOURCES, Cocktail, label_names
from dataset_scripts.build.build_file import check_complete
from dataset_scripts.build.build_log import note_lines
from dataset_scripts.build.chest_column import LEARNED
from dataset_scripts.build.label_rows import patient_of_one_image
from dataset_scripts.build.layout import BUILD_FILE, BUILD_REPORT_FILE, LEAKAGE_REPORT_FILE
from dataset_scripts.build.origin import DatasetOrigin
from dataset_scripts.build.pixel_statistics import read_statistics
from dataset_scripts.findings import IS_PHANTOM
from dataset_scripts.image_folder import SOURCE as OWN_SOURCE
from dataset_scripts.image_folder import ImageFolder, is_own_folder, missing_splits
from dataset_scripts.own.labels import NOT_NAMED, Columns, check_named
from dataset_scripts.splits import SPLIT_SCHEMES
from medhiera.config.arguments import DataArguments
from medhiera.data.build_reports import LeakageCounts, read_leakage, split_left_out
from medhiera.data.columns import has_exclusive_labels, read_column
from medhiera.data.own_dataset import as_own_folder, is_own_dataset
from medhiera.data.shards import open_in_place
from medhiera.errors import UserError
from medhiera.formatting import mark_of
from medhiera.layout import offline_reason

logger = logging.getLogger(__name__)


def missing_validation(
    data_dir: Path, is_test_scored: bool = False, options: DataArguments | None = None
) -> list[str]:
    """A sentence where a run would find no image to train or validate on: before hours of building.

    Args:
        data_dir: as the recipe has it; built data is not looked into.
        is_test_scored: the run scores the test split too; asked of your own folder alone.
        options: of the recipe, which may say what the columns of your own table mean.

    Raises:
        UserError: your own folder is looked into, and its CSV cannot be read or no image is there.
    """
    if _is_own_folder(data_dir):
        wanted = ("train", "validation", *(["test"] if is_test_scored else []))
        return missing_splits(data_dir, wanted, NOT_NAMED if options is None else Columns.of(options))
    present = [source.folder for source in SOURCES if (data_dir / source.folder).is_dir()]
    holding = [source.folder for source in SOURCES if "validation" in source.held_out_splits]
    own = OWN_SOURCE.folder
    if set(holding) & set(present) == {own}:
        return [
            f"{own}: {fault}; or add one of {', '.join(set(holding) - {own})}, which hold some out"
            for fault in missing_splits(data_dir / own, ("validation",))
        ]
    if not present or set(holding) & set(present):
        return []
    return [
        f"data_dir holds {', '.join(present)} and so no validation images; add {' or '.join(holding)}, which "
        "hold some out"
    ]


@dataclass(frozen=True)
class BuiltDataset:
    """The built cocktail, ready to read.

    Attributes:
        rows: splits `train`, `validation`, `test` (those it has).
        names: the label names, in the order of the `labels` column.
        mean: pixel mean of its training split, in units of [0, 1]; NaN without one (data to evaluate on).
        std: pixel standard deviation, in the same units.
        split_scheme: how ChestX-ray14 was split (official, medtransformer), RSNA (mrm) or IU X-Ray (r2gen).
        folder: where the built data and its reports lie.
        is_reused: it was there already.
        mean_of_stds: mean of its training images' own standard deviations.
        hub_copy: the dataset on the Hub that it was read from, built already.
    """

    rows: DatasetDict
    names: list[str]
    mean: float
    std: float
    split_scheme: str
    folder: Path
    is_reused: bool
    mean_of_stds: float = math.nan
    hub_copy: DatasetOrigin | None = None

    @property
    def is_exclusive(self) -> bool:
        """Whether each image has exactly one of the labels."""
        return has_exclusive_labels(next(iter(self.rows.values())))

    @property
    def is_exported(self) -> bool:
        """Whether data_dir was built data, and not the files that it was built from."""
        return (self.folder / BUILD_FILE).is_file()

    def split(self, name: str) -> Dataset:
        """One split.

        Raises:
            UserError: the data has no such split.
        """
        if name not in self.rows and (lost := split_left_out(self.folder, name)):
            raise UserError(f"the data has no {name} split, only {sorted(self.rows)}: {lost}")
        if name not in self.rows and self.is_own_alone():
            raise UserError(
                f"the data has no {name} split, only {sorted(self.rows)}: your table (labels.csv, or "
                f"another) has no row with split {name} whose image is in the folder; without a table, no "
                f"folder {name} holds an image. Give some patients this split, or leave the splits out, so "
                "that a part is held out"
            )
        if name not in self.rows:
            holding = [source.name for source in SOURCES if name in source.held_out_splits]
            raise UserError(
                f"the data has no {name} split, only {sorted(self.rows)}; add one of the sources that hold "
                f"images out for it: {holding}"
            )
        return self.rows[name]

    def is_own_alone(self) -> bool:
        """Whether all rows are of your own folder."""
        return all(by_source(rows).keys() == {OWN_SOURCE.name} for rows in self.rows.values())

    def leakage(self) -> LeakageCounts:
        """Counts from leakage_report.json; the pairs' names stay with the data."""
        return read_leakage(self.folder)


def open_cocktail(
    options: DataArguments, training: TrainingArguments | None = None, *, wants_contours: bool = False
) -> BuiltDataset:
    """Open the data that data_dir names, and build it first where it is raw.

    Args:
        options: where the data lies, where built data is kept, at which size. data_dir is a folder with the
            sources, or your own folder (images/ and a CSV), or what `python -m dataset_scripts` wrote,
            here or on the Hub, or any other dataset (own_dataset.py).
        training: with several ranks, lets the first build while the others wait.
        wants_contours: raw data is built with chest regions, by our network unless `contours` says otherwise.

    Raises:
        UserError: data_dir is neither a folder nor a dataset on the Hub that can be reached; `sources` or
            `source_weights` names a source that is in none of its splits.
        DataLayoutError: the folder holds none of this, or built data that is not whole.
    """
    folder = Path(options.data_dir)
    if (folder / BUILD_FILE).is_file():
        check_complete(folder)
    with training.main_process_first(local=False) if training else contextlib.nullcontext():
        if (folder / BUILD_FILE).is_file():
            rows, built, is_reused = *_load_exported(options.data_dir, options.build_dir), True
        elif is_own_dataset(options):
            rows, built, is_reused = _build(as_own_folder(options), wants_contours)
        elif not folder.is_dir():
            rows, built, is_reused = *_load_exported(options.data_dir, options.build_dir), True
        else:
            rows, built, is_reused = _build(options, wants_contours)
    scheme = _built_scheme(built) or options.split_scheme
    if (built / BUILD_FILE).is_file():
        _check_build(options, built, scheme, is_training=training is not None)
    if is_reused:
        logger.info("the data was built before and its sources have not changed: reused")
    if (built / BUILD_REPORT_FILE).is_file():
        for line in note_lines(built):
            logger.info("%s", line)
        logger.info("the report of the build lies in %s", built)
    _check_sources(options, rows)
    if training is not None and "train" not in rows:
        raise UserError(f"--data_dir {options.data_dir} has no train split to train on, only {sorted(rows)}")
    statistics = read_statistics(built) if "train" in rows else {"mean": math.nan, "std": math.nan}
    return BuiltDataset(
        rows=rows,
        names=label_names(next(iter(rows.values())).features),
        mean=statistics["mean"],
        std=statistics["std"],
        split_scheme=scheme,
        folder=built,
        is_reused=is_reused,
        mean_of_stds=statistics.get("mean_of_stds", math.nan),
        hub_copy=_hub_copy(options.data_dir, built),
    )


def _build(options: DataArguments, wants_contours: bool) -> tuple[DatasetDict, Path, bool]:
    """The rows of raw folders, built unless they were before; where they lie; whether they were there."""
    builder_class = ImageFolder if _is_own_folder(Path(options.data_dir)) else Cocktail
    is_shrunk = bool(options.stored_size)  # at native size raw bytes would be gigabytes more than PNGs
    compression = "raw" if options.compression == "auto" and is_shrunk else options.compression
    columns = Columns.of(options)
    check_named(options.data_dir, options.dataset_config or "", columns, builder_class is ImageFolder)
    builder = builder_class(
        data_dir=options.data_dir,
        build_dir=options.build_dir,
        split_scheme=options.split_scheme,
        stored_size=options.stored_size or 0,
        max_bad_fraction=options.max_bad_fraction,
        allow_leakage=options.allow_leakage,
        protect=options.protect or "",
        keep_duplicates=options.keep_duplicates,
        nih_mapping=options.nih_mapping or "",
        compression=compression,
        contours=options.contours or (LEARNED if wants_contours else ""),
        **columns.named(),
    )
    builder.download_and_prepare(num_proc=options.build_num_proc)
    return builder.as_dataset(), Path(builder.cache_dir), builder.is_reused


def lies_in_data(output: Path, data: Path) -> bool:
    """Whether a folder to write into is the data's, or in it where images are looked for.

    Args:
        output: the folder.
        data: what `data_dir` names; a Hub id is no folder.
    """
    output, data = output.resolve(), data.resolve()
    if not data.is_dir() or not output.is_relative_to(data):
        return False
    folders = {source.folder for source in SOURCES}
    first, *_ = (*output.relative_to(data).parts, "")
    return not first or first in folders or not any((data / name).is_dir() for name in folders)


def _is_own_folder(data_dir: Path) -> bool:
    return not (data_dir / BUILD_FILE).is_file() and is_own_folder(data_dir, SOURCES)


def _check_sources(options: DataArguments, rows: DatasetDict) -> None:
    """Say what each split holds.

    Raises:
        UserError: a source is asked for that no split holds.
    """
    present: set[str] = set()
    for split, chosen in rows.items():
        sources = by_source(chosen)
        present |= sources.keys()
        counts = ", ".join(f"{source} {count:,}" for source, count in sources.items())
        logger.info("%-10s %6s images (%s)", split, f"{len(chosen):,}", counts)
    for field, wanted in (("sources", options.sources or []), ("source_weights", options.source_weights)):
        if unknown := sorted(set(wanted) - present):
            folders = {source.folder: source.name for source in SOURCES}
            meant = [f"; the images of {name} are {folders[name]!r}" for name in unknown if name in folders]
            raise UserError(
                f"{field} names {unknown}, which no split holds; the data holds {sorted(present)}"
                + "".join(meant)
            )


def _load_exported(data_dir: str, cache_dir: str | None) -> tuple[DatasetDict, Path]:
    """Parquet that `python -m dataset_scripts` wrote, here or on the Hub, and where its reports lie."""
    folder = Path(data_dir)
    if folder.is_dir() and (rows := open_in_place(folder, cache_dir)) is not None:
        return rows, folder
    try:
        rows = load_dataset(data_dir, "all", cache_dir=cache_dir)
        if folder.is_dir():
            return rows, folder
        reports = snapshot_download(
            data_dir, repo_type="dataset", allow_patterns="*.json", cache_dir=cache_dir
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"--data_dir {data_dir} is neither a folder here nor a dataset on the Hub that can be reached "
            f"({offline_reason(data_dir, 'dataset') or error}); name the folder that holds the sources"
        ) from error
    return rows, Path(reports)


def _hub_copy(data_dir: str, built: Path) -> DatasetOrigin | None:
    """The dataset on the Hub whose reports lie in a snapshot of it; None of data that was built here."""
    if Path(data_dir).is_dir() or not (built / BUILD_FILE).is_file():
        return None
    return DatasetOrigin(hub_id=data_dir, revision=built.name)


def _built_scheme(built: Path) -> str | None:
    """The split scheme that exported data was built with; None of data that has none."""
    build = built / BUILD_FILE
    if not build.is_file():
        return None
    scheme = str(json.loads(build.read_text(encoding="utf-8"))["config"]).split("-")[0]
    return scheme if scheme in SPLIT_SCHEMES else None


def _check_build(options: DataArguments, built: Path, scheme: str, is_training: bool) -> None:
    """Options that only a build obeys must be those this data was built with.

    Raises:
        UserError: it was built with another split, or with leaks or near-duplicates dropped or kept as is
            not asked for.
    """
    faults = []
    report = built / LEAKAGE_REPORT_FILE
    if scheme != options.split_scheme:
        faults.append(f"it was built with split_scheme: {scheme}, wanted is {options.split_scheme}")
    if is_training and report.is_file():
        found = json.loads(report.read_text(encoding="utf-8"))
        if found["allow_leakage"] != options.allow_leakage:
            kept = "kept" if found["allow_leakage"] else "left out"
            faults.append(f"its leaks are {kept}, and the recipe has allow_leakage: {options.allow_leakage}")
        kept_each = "all" if found.get("source_duplicates") is None else "once"
        if kept_each != options.keep_duplicates:
            faults.append(f"it keeps near-duplicates {kept_each}, wanted is {options.keep_duplicates}")
    for name in ("nih_mapping", "contours", "protect"):
        if is_training and getattr(options, name):
            faults.append(f"{name} is read when data is built, and this is built already")
    named = [*Columns.of(options).named(), *(["dataset_config"] if options.dataset_config else [])]
    if named:
        faults.append(f"{' and '.join(named)} are of your own images or of a dataset that is not built yet")
    if faults:
        raise UserError(
            f"--data_dir {options.data_dir} is built data: {'; '.join(faults)}. Change the option, or give "
            "the folder of the sources, which is built as asked"
        )


def by_source(rows: Dataset) -> dict[str, int]:
    """Number of images by source, largest first."""
    counts = {
        entry["values"]: entry["counts"] for entry in read_column(rows, "source").value_counts().to_pylist()
    }
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def phantom_sources(rows: Dataset) -> set[str]:
    """The sources of which every image here is drawn, see dataset_scripts/build/phantom_mark.py."""
    if IS_PHANTOM not in rows.column_names:
        return set()
    sources, drawn = read_column(rows, "source"), read_column(rows, IS_PHANTOM).fill_null(False)
    real = set(sources.filter(pc.invert(drawn)).unique().to_pylist())
    return set(sources.filter(drawn).unique().to_pylist()) - real


def are_drawn(rows: Dataset) -> bool:
    """Whether all images are phantoms: then they may be shown, and no number of theirs is of patients."""
    return len(rows) > 0 and phantom_sources(rows) == by_source(rows).keys()


def figure_mark(*rows: Dataset, is_smoke_run: bool) -> str:
    """What every figure says of itself: that nothing follows from it for patients. Empty for a full run.

    Args:
        *rows: that the model learned from or was scored on.
        is_smoke_run: the model only proves the software.
    """
    return mark_of(
        is_smoke_run=is_smoke_run,
        has_phantoms=any(phantom_sources(those) for those in rows),
        has_images=not all(are_drawn(those) for those in rows),
    )


def shared_patients(used: Mapping[str, Dataset]) -> dict[str, int]:
    """How many patients of the rows to validate or test on are trained on too, where any is.

    Args:
        used: rows by use, `trained_on` among them.
    """
    patients = {use: set(read_column(rows, "patient_id").to_pylist()) for use, rows in used.items()}
    trained = patients.pop("trained_on")
    return {use: len(those & trained) for use, those in patients.items() if those & trained}


def count_without_patient(used: Mapping[str, Dataset]) -> int:
    """How many images no patient is known of, so that each counts as one of its own (`image FILE`).

    Args:
        used: rows by use.
    """
    count = 0
    for rows in used.values():
        columns = (read_column(rows, name).to_pylist() for name in ("source", "image_id", "patient_id"))
        for source, image, patient in zip(*columns, strict=True):
            count += patient == f"{source}/{patient_of_one_image(image.removeprefix(f'{source}/'))}"
    return count
