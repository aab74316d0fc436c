"""The merge as files anyone can load: sharded Parquet with embedded images, a card, statistics, reports.

Cocktail's listings → shards, each written whole or not at all → `load_dataset(OUT)`, with no code of ours.

`datasets` restarts a killed build from zero. Here a shard is renamed into place when it is complete, so the
next run redoes at most the shards that were being written.
"""

import errno
import json
import logging
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
from datasets.arrow_writer import ParquetWriter
from datasets.utils import tqdm
from filelock import FileLock

from dataset_scripts.build.build_log import BuildLog, most_bad_files, write_reports
from dataset_scripts.build.builder import SourceBuilder, build_examples
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.dataset_card import write_card
from dataset_scripts.build.layout import BUILD_FILE, BUILD_REPORT_FILE, PHANTOM_FILE
from dataset_scripts.build.records import ImageRecord, SourceListing
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import label_names

logger = logging.getLogger(__name__)


_WORK_FOLDER = ".build"

_PLAN_FILE = "plan.pickle"

_RECORDS_PER_SHARD = 2048

_SHARD_MULTIPLE = 8  # split_dataset_by_node gives whole shards to 1, 2, 4 or 8 ranks

_SHUFFLE_SEED = 0


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One Parquet file to write. `path` is relative to the output folder."""

    path: str
    split: str
    root: str
    records: tuple[ImageRecord, ...]

    @property
    def name(self) -> str:
        """Return a name for the shard's log, unique in the build."""
        return self.path.replace("/", "-").removesuffix(".parquet")


def export_parquet(builder: SourceBuilder, output_dir: Path, num_proc: int = 1) -> bool:
    """Write what the builder would build as sharded Parquet, or resume, or reuse what is there.

    Only one process writes to an output folder; others wait and then find it complete.

    Args:
        builder: a Cocktail or any other source.
        output_dir: empty, absent, or written by this function before.
        num_proc: processes that decode and write; with several, a script must call this below
            `if __name__ == "__main__":`, as each process imports it.

    Returns:
        False if the folder already held exactly this build.

    Raises:
        DataLayoutError: the folder holds something else.
        TooManyBadFilesError: more files are unreadable than allowed.
        OSError: the disk is full; what is complete stays for the next run.
    """
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{output_dir}.lock"):
        key = {"dataset": builder.dataset_name, "config": builder.config_id, "version": str(builder.VERSION)}
        if not _prepare_folder(output_dir, key):
            return False
        try:
            tasks = _plan(builder, output_dir, num_proc)
            _write_shards(tasks, builder, output_dir, num_proc)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                errno.ENOSPC,
                "The disk is full. What is written stays: free some space and run the same command again, or "
                "choose another --output_dir or a smaller --stored_size.",
            ) from error
        work = output_dir / _WORK_FOLDER
        write_reports(
            output_dir,
            log_dir=work,
            dataset=builder.dataset_name,
            config=builder.config.name,
            manifest=builder.config.manifest,
            max_bad_fraction=builder.config.max_bad_fraction,
        )
        _copy_phantom_mark(Path(builder.config.data_dir), output_dir)
        write_card(output_dir, builder.config, label_names(builder.info.features), builder.SOURCES)
        (output_dir / BUILD_FILE).write_text(json.dumps({**key, "complete": True}) + "\n", encoding="utf-8")
        shutil.rmtree(work)
    return True


def _copy_phantom_mark(data_dir: Path, output_dir: Path) -> None:
    """Let what is made of phantoms say so wherever it goes; a rebuild of real images forgets it."""
    (output_dir / PHANTOM_FILE).unlink(missing_ok=True)
    if (data_dir / PHANTOM_FILE).is_file():
        shutil.copyfile(data_dir / PHANTOM_FILE, output_dir / PHANTOM_FILE)


def _prepare_folder(output_dir: Path, key: dict[str, str]) -> bool:
    """Make the folder ready for writing or resuming; False if it is complete already."""
    marker = output_dir / BUILD_FILE
    if marker.is_file():
        found = json.loads(marker.read_text(encoding="utf-8"))
        is_complete = found.pop("complete")
        if found == key:
            if is_complete:
                logger.info("Reusing the complete build in %s.", output_dir)
            return not is_complete
        logger.info("The sources or options have changed: building %s anew.", output_dir)
        shutil.rmtree(output_dir / "data", ignore_errors=True)
        shutil.rmtree(output_dir / _WORK_FOLDER, ignore_errors=True)
    elif output_dir.exists() and any(output_dir.iterdir()):
        raise DataLayoutError(
            f"{output_dir} is not empty and was not written by this command (no {BUILD_FILE}). "
            "Wanted a new or empty folder; choose another --output_dir."
        )
    (output_dir / _WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({**key, "complete": False}) + "\n", encoding="utf-8")
    return True


def _plan(builder: SourceBuilder, output_dir: Path, num_proc: int) -> list[ShardTask]:
    """List the shards, from the plan of an interrupted run where there is one: comparing takes minutes."""
    path = output_dir / _WORK_FOLDER / _PLAN_FILE
    if path.is_file():
        tasks: list[ShardTask] = pickle.loads(path.read_bytes())
        return tasks
    work = output_dir / _WORK_FOLDER
    for stale in work.iterdir():
        stale.unlink()
    tasks = list(_cut(builder.list_records(work, num_proc)))
    for report in work.glob("leakage_*"):  # found while listing: belongs beside the data
        report.replace(output_dir / report.name)
    part = path.with_suffix(".part")
    part.write_bytes(pickle.dumps(tasks))
    part.replace(path)
    return tasks


def _cut(listings: list[SourceListing]) -> Iterator[ShardTask]:
    """Shuffle the records of each source and split, and cut them into shards of even size."""
    for listing in listings:
        for split, records in listing.splits.items():
            if not records:
                continue
            shuffled = sorted(records, key=lambda record: record.image_id)
            random.Random(_SHUFFLE_SEED).shuffle(shuffled)
            wanted = -(-len(shuffled) // (_RECORDS_PER_SHARD * _SHARD_MULTIPLE)) * _SHARD_MULTIPLE
            count = min(wanted, len(shuffled))
            for shard in range(count):
                yield ShardTask(
                    path=f"data/{listing.source.slug}/{split}-{shard:05d}-of-{count:05d}.parquet",
                    split=split,
                    root=str(listing.root),
                    records=tuple(shuffled[shard::count]),
                )


def _write_shards(tasks: list[ShardTask], builder: SourceBuilder, output_dir: Path, num_proc: int) -> None:
    logs = output_dir / _WORK_FOLDER
    open_tasks = [task for task in tasks if not (logs / f"worker-log-{task.name}.json").is_file()]
    total = sum(len(task.records) for task in tasks)
    most_bad = most_bad_files(total, builder.config.max_bad_fraction)
    done = total - sum(len(task.records) for task in open_tasks)
    if done:
        logger.info("Resuming: %d of %d files are done.", done, total)
    bad = 0
    arguments = (builder.config, builder.info.features, output_dir)
    with tqdm(total=total, initial=done, desc="Writing Parquet", unit=" files") as bar:
        if num_proc <= 1:
            for task in open_tasks:
                bad += _write_shard(task, *arguments)
                bar.update(len(task.records))
                if bad > most_bad:
                    return  # write_reports counts again and raises
            return
        # Spawned, for this process has threads (the progress bar's, Arrow's, BLAS's) that a fork would lose.
        with ProcessPoolExecutor(num_proc, mp_context=get_context("spawn")) as pool:
            running: dict[Future[int], ShardTask] = {
                pool.submit(_write_shard, task, *arguments): task for task in open_tasks
            }
            while running and bad <= most_bad:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    bar.update(len(running.pop(future).records))
                    bad += future.result()
            for future in running:
                future.cancel()


def _write_shard(task: ShardTask, config: SourceConfig, features: datasets.Features, output_dir: Path) -> int:
    """Write one shard, then its log, whose presence says the shard is complete; return its bad files."""
    log = BuildLog(output_dir / _WORK_FOLDER)
    final = output_dir / task.path
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.part")
    examples = _examples(task, config, log)
    first = next(examples, None)
    if first is not None:  # a shard of unreadable files alone leaves no file
        writer = ParquetWriter(features=features, path=str(part), writer_batch_size=100)
        try:
            writer.write(features.encode_example(first))
            for example in examples:
                writer.write(features.encode_example(example))
            writer.finalize()
        finally:
            writer.close()
        os.replace(part, final)
    log.write(task.name)
    return log.bad_files


def _examples(task: ShardTask, config: SourceConfig, log: BuildLog) -> Iterator[dict[str, Any]]:
    for record in task.records:
        yield from build_examples(record, task.root, task.split, config, log)


def push_to_hub(output_dir: Path, repo_id: str) -> str:
    """Upload a complete build as a private dataset repository and return its address.

    Raises:
        DataLayoutError: the folder holds no complete build.
    """
    from huggingface_hub import HfApi  # only here is a network needed

    if not (output_dir / BUILD_REPORT_FILE).is_file():
        raise DataLayoutError(
            f"{output_dir} holds no complete build; run the command without --push_to_hub first."
        )
    api = HfApi()
    # The sources' licences do not allow every use: a person decides to make the repository public.
    address = api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
    api.upload_folder(
        repo_id=repo_id, repo_type="dataset", folder_path=str(output_dir), ignore_patterns=[".*"]
    )
    return str(address)
