"""The base of every builder: listings → sharded generation → dataset, report and statistics.

Raw folder → a source's `list_images` → here → Arrow or Parquet in `builder.cache_dir`, with
`build_report.json` and `pixel_statistics.json` beside the data.
"""

import contextlib
import errno
import importlib.util
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets.config import DATASET_INFO_FILENAME
from datasets.utils.py_utils import temporary_assignment

from dataset_scripts.build.build_log import (
    BuildLog,
    is_log,
    most_bad_files,
    naming_faults,
    read_logs,
    write_reports,
)
from dataset_scripts.build.chest_column import add_contours
from dataset_scripts.build.config import SourceConfig, check_options
from dataset_scripts.build.examples import build_examples
from dataset_scripts.build.named_files import check_paths, find_named_files
from dataset_scripts.build.origin import DatasetOrigin
from dataset_scripts.build.phantom_mark import drawn_sources, report_foreign_files
from dataset_scripts.build.records import (
    FolderScan,
    ImageRecord,
    Source,
    SourceListing,
    manifest_hash,
    scan_folder,
)
from dataset_scripts.build.reuse import drop_damaged_info, find_cache_damage, find_readable
from dataset_scripts.build.workers import end_with, forks_end_with_this_process
from dataset_scripts.errors import DICOM_PACKAGES, DataLayoutError, TooManyBadFilesError
from dataset_scripts.findings import FINDINGS, make_features
from dataset_scripts.reading.image_files import may_be_dicom
from dataset_scripts.splits import SPLITS

logger = logging.getLogger(__name__)

LISTING_LOG = "listing"  # the log of what was met before any image was opened

_RECORDS_PER_SHARD = 64  # a builder's unit of work: small enough to share out, large enough to hand over


class SourceBuilder(datasets.GeneratorBasedBuilder):
    """A datasets builder over one source, or over several that stand under one folder (the Cocktail).

    Children name their sources in `SOURCES`.

    Args:
        build_dir: where built data lies; the datasets library's cache if None.
        split_scheme: how ChestX-ray14 is split: "official" (test = the official list, validation = a part of
            the official training patients) or "medtransformer" (the test list in thirds, as in the paper);
            "mrm": RSNA by the lists of a published model, which leak (rsna_pneumonia.py);
            "r2gen": IU X-Ray by R2Gen's split (iu_xray.py).
        data_dir: the folder with the raw files.
        **options: any field of SourceConfig, and anything datasets.GeneratorBasedBuilder takes.

    Raises:
        DataLayoutError: data_dir is absent or holds none of the source's folders, or build_dir lies in one.
        UserError: an option is out of its range.
    """

    VERSION = datasets.Version("1.11.0")  # raise it when the same files build to other data
    BUILDER_CONFIG_CLASS = SourceConfig
    BUILDER_CONFIGS: ClassVar[list[SourceConfig]] = [
        SourceConfig(name="official", version=VERSION),
        SourceConfig(name="medtransformer", version=VERSION),
        SourceConfig(name="mrm", version=VERSION),
        SourceConfig(name="r2gen", version=VERSION),
    ]
    DEFAULT_CONFIG_NAME = "official"
    DEFAULT_WRITER_BATCH_SIZE = 100  # rows held in memory; native images are large
    SOURCES: ClassVar[tuple[Source, ...]]
    has_labels = True  # False of your own images where nothing labels them

    def __init__(
        self,
        build_dir: str | Path | None = None,
        *,
        split_scheme: str | None = None,
        data_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        if data_dir is None:
            raise DataLayoutError(
                f"{type(self).__name__} needs data_dir, the folder with the raw files. These datasets ask "
                "for registration or a licence, so they are never downloaded for you."
            )
        check_options(options)
        check_paths({"data_dir": Path(data_dir).resolve(), "build_dir": build_dir, **options})
        mapping = options.get("nih_mapping")
        extra = [Path(mapping)] if mapping else []
        found = self._scan(Path(data_dir).resolve())
        scans = [scan for _, scan in found]
        extra += [file for source, scan in found for file in scan.beside(source)]
        if build_dir is not None:
            _check_build_dir(Path(build_dir), scans)
        if any(source.has_reports for source, _ in found):
            options["has_reports"] = True  # named only where it is: other builds keep their folders
        if drawn := drawn_sources(found):
            options["phantoms"] = drawn
        options["manifest"] = manifest_hash([*scans, *find_named_files(options)], extra)
        super().__init__(
            cache_dir=None if build_dir is None else str(build_dir),
            config_name=split_scheme,
            data_dir=str(Path(data_dir).resolve()),  # one folder is one build, however it is named
            **options,
        )

    def _scan(self, data_dir: Path) -> list[tuple[Source, FolderScan]]:
        """Scan the folder of each source; a builder of one source reads data_dir itself."""
        return [(source, scan_folder(data_dir)) for source in self.SOURCES]

    def _info(self) -> datasets.DatasetInfo:
        features = make_features(
            FINDINGS,
            is_raw=self.config.is_raw,
            has_regions=bool(self.config.contours),
            has_reports=self.config.has_reports,
        )
        return datasets.DatasetInfo(description=type(self).__doc__ or "", features=features)

    def _make_split_generators_kwargs(self, prepare_split_kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"num_proc": prepare_split_kwargs.get("num_proc")}

    def _split_generators(
        self, dl_manager: datasets.DownloadManager, num_proc: int | None = None
    ) -> list[datasets.SplitGenerator]:
        log_dir = None if dl_manager.is_streaming else Path(self._output_dir)
        listings = self.list_records(log_dir, num_proc)
        roots = {listing.source.name: str(listing.root) for listing in listings}
        total = sum(len(records) for listing in listings for records in listing.splits.values())
        self._files = total
        most_bad = most_bad_files(total, self.config.max_bad_fraction)
        generators = []
        for split in SPLITS:
            records = [record for listing in listings for record in listing.splits.get(split, [])]
            if records:
                gen_kwargs = {
                    "shards": _cut(records),
                    "roots": roots,
                    "split": split,
                    "log_dir": log_dir,
                    "most_bad": most_bad,
                    "parent": os.getpid(),
                }
                generators.append(datasets.SplitGenerator(name=split, gen_kwargs=gen_kwargs))
        return generators

    def list_records(self, log_dir: Path | None, num_proc: int | None = None) -> list[SourceListing]:
        """List what will be built, without leaks; problems so far are logged to `log_dir`.

        Raises:
            DataLayoutError: the folders do not hold what they should, or no listed image is there.
            LabelFileError: a label file cannot be understood.
        """
        scans = self._scan(Path(self.config.data_dir))
        listings = [source.list_images(scan, self.config) for source, scan in scans]
        for listing in listings:
            assert listing.splits.keys() <= {"train", *listing.source.held_out_splits}, listing.source.name
        listings = self._remove_leaks(listings, log_dir, num_proc)
        if self.config.contours:
            add_contours(listings, self.config.contours)
        log = BuildLog(log_dir)
        for listing, (_, scan) in zip(listings, scans, strict=True):
            report_foreign_files(listing, scan)
            for problem in listing.problems:
                log.report(problem)
        log.write(LISTING_LOG)
        if not any(listing.splits.values() for listing in listings):
            raise DataLayoutError(_nothing_listed(listings))
        _check_extras(listings)
        return listings

    def _remove_leaks(
        self, listings: list[SourceListing], log_dir: Path | None, num_proc: int | None
    ) -> list[SourceListing]:
        """Hook for the merge and your own folder."""
        del log_dir, num_proc
        if self.config.protect or self.config.keep_duplicates == "once":
            raise DataLayoutError("protect and keep_duplicates are for Cocktail and ImageFolder alone.")
        return listings

    def find_origin(self) -> DatasetOrigin | None:
        """Hook for the merge and your own folder: what names the dataset of your own images."""
        return None

    def _generate_examples(
        self,
        shards: list[tuple[ImageRecord, ...]],
        roots: dict[str, str],
        split: str,
        log_dir: Path | None,
        most_bad: int,
        parent: int,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if log_dir is not None:  # a worker of this build, not a reader of a stream
            end_with(parent)
        log = BuildLog(log_dir)
        for record in (record for shard in shards for record in shard):
            for example in build_examples(record, roots[record.source], split, self.config, log):
                yield example["image_id"], example
            if log.bad_files > most_bad:
                break  # the parent process counts all workers' reports and raises
        log.write()

    def find_readable(self, folder: Path) -> str:
        """Say which file the build in a folder left out and could read by now; "" where there is none."""
        scans = self._scan(Path(self.config.data_dir))
        return find_readable(folder, {source.name: scan.root for source, scan in scans})

    def _build_cache_dir(self) -> str:
        """Name the folder of the cache; datasets then reads the dataset_info.json in it."""
        folder: str = super()._build_cache_dir()
        drop_damaged_info(Path(folder), self.info.features)
        return folder

    def download_and_prepare(self, output_dir: str | None = None, **options: Any) -> None:
        """Build the data, or find it built before: then `is_reused` is True.

        Data in the cache that is damaged, or that lacks files which can be read by now, is built again.

        Args:
            output_dir: another place than `cache_dir`, as in datasets.
            options: of datasets.DatasetBuilder.download_and_prepare.
        """
        self.is_reused = False
        if output_dir is None and (Path(self.cache_dir) / DATASET_INFO_FILENAME).is_file():
            if reason := find_cache_damage(self) or self.find_readable(Path(self.cache_dir)):
                logger.warning("the data in %s is built again: %s", self.cache_dir, reason)
                self.info.splits = None  # else datasets wants as many images as before
                options["download_mode"] = datasets.DownloadMode.REUSE_CACHE_IF_EXISTS  # not its data
            self.is_reused = "download_mode" not in options
        super().download_and_prepare(output_dir, **options)

    def _download_and_prepare(
        self, dl_manager: datasets.DownloadManager, verification_mode: Any, **prepare_split_kwargs: Any
    ) -> None:
        """Build in a folder of this run alone: datasets goes on in what a killed run left behind.

        Its logs would count twice, and a worker that outlived it by a moment would write between ours.
        """
        folder = Path(self._output_dir)
        _empty(folder)
        work = folder / f"run-{uuid.uuid4().hex}"
        work.mkdir()
        with (
            temporary_assignment(self, "_output_dir", str(work)),
            forks_end_with_this_process(),
            _disk_full_in_words(),
        ):
            super()._download_and_prepare(dl_manager, verification_mode, **prepare_split_kwargs)
        splits = self.info.splits
        for name in [name for name, split in splits.items() if not split.num_examples]:
            del splits[name]  # every file of it was unreadable; datasets cannot open an empty split
            for pattern in (f"{self.dataset_name}-{name}.*", f"{self.dataset_name}-{name}-*"):
                for path in work.glob(pattern):
                    path.unlink()
        with _disk_full_in_words():
            logs = read_logs(work)
            write_reports(
                folder,
                logs,
                files=self._files,
                dataset=self.dataset_name,
                config=self.config,
                origin=self.find_origin(),
            )
        if not splits:
            raise TooManyBadFilesError("Not one image could be read. Check that the files are images at all.")
        for path in work.iterdir():
            if not is_log(path):
                path.replace(folder / path.name)
        shutil.rmtree(work)


def _check_build_dir(build_dir: Path, scans: Iterable[FolderScan]) -> None:
    """Refuse to build where the next build would find its own output; hidden folders are not scanned."""
    place = build_dir.resolve()
    for scan in scans:
        inside = place.parts[len(scan.root.parts) :]
        is_hidden = any(part.startswith(".") for part in inside)
        if place.is_relative_to(scan.root) and not is_hidden:
            raise DataLayoutError(
                f"build_dir {build_dir} lies inside the raw data, {scan.root}, so the next build would find "
                "its own output there. Choose a folder outside of it: build_dir, or output_dir, beside which "
                "it lies by default."
            )


@contextlib.contextmanager
def _disk_full_in_words() -> Iterator[None]:
    try:
        yield
    except (OSError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if os.strerror(errno.ENOSPC) not in str(cause):  # a worker's errno is lost on the way here
            raise
        raise OSError(
            errno.ENOSPC,
            "The disk is full, so nothing was built. Free some space, point build_dir (or HF_HOME) at "
            "another disk, or set stored_size, for example 256, to store less.",
        ) from error


def _empty(folder: Path) -> None:
    """Remove all that lies in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _cut(records: list[ImageRecord]) -> list[tuple[ImageRecord, ...]]:
    """Cut records into shards, at least 32 where there are as many records."""
    size = max(1, min(_RECORDS_PER_SHARD, len(records) // 32))
    return [tuple(records[start : start + size]) for start in range(0, len(records), size)]


def _check_extras(listings: list[SourceListing]) -> None:
    if importlib.util.find_spec("pydicom") is not None:
        return
    parts = ((listing.root, part) for listing in listings for part in listing.splits.values())
    paths = (root / record.path for root, part in parts for record in part if not record.is_volume)
    if any(may_be_dicom(path) for path in paths):
        raise ModuleNotFoundError(
            f"There are DICOM files among the images and pydicom is not installed: {DICOM_PACKAGES}"
        )


def _nothing_listed(listings: list[SourceListing]) -> str:
    problems = [problem for listing in listings for problem in listing.problems]
    unmatched = [each for each in problems if each.kind in ("unmatched_name", "ambiguous_name", "absent")]
    first = next(iter(unmatched or problems), None)
    kinds = sorted({problem.kind for problem in problems})
    example = f", for example {first.name!r}: {first.detail}" if first else ""
    naming = "".join(
        f" {sentence}."
        for sentence in naming_faults(asdict(one) for each in listings for one in each.problems)
    )
    links = " A link that leaves its folder is not followed: put the file there itself (`cp -rL`)."
    return (
        "No listed image is in the folder, so there is nothing to build. Wanted at least one image that the "
        f"lists name; problems met: {kinds or 'none'}{example}. Check that lists and images "
        f"belong together.{naming}{links if 'link_out_of_folder' in kinds else ''}"
    )
