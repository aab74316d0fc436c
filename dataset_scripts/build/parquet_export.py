"""The merge as files anyone can load: sharded Parquet with embedded images, a card, statistics, reports.

Cocktail's listings → plan → shards, each published whole or not at all → `load_dataset(OUT)`, with no code of
ours.

`datasets` restarts a killed build from zero. Here the next run redoes at most the shards that were being
written. What holds wherever a run is killed:

1. `build.json` says `complete: false` before anything of a complete build is touched, and `complete: true`
   only when everything else is on the disk.
2. A shard is done when its log lies in `.build/`, belongs to the plan that lies there, and describes the file
   that stands in `data/`. What is not done is removed and written again.
3. Workers write only into a folder of their own run; this process alone publishes. So one that outlives its
   parent by a moment cannot touch the next run.
4. `.build/` goes last. Everything between the last shard and that can be done twice.
"""

import contextlib
import errno
import functools
import itertools
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
from datasets.utils import tqdm
from filelock import FileLock

from dataset_scripts.build.atomic_files import publish, sync_file, sync_folder, write_atomically, write_json
from dataset_scripts.build.build_file import (
    Key,
    check_complete,
    describe_shard,
    find_damage,
    is_own_folder,
    parquet_files,
    read_build,
    shard_damage,
    shard_from_json,
    write_build,
)
from dataset_scripts.build.build_log import BuildLog, log_path, most_bad_files, read_log, write_reports
from dataset_scripts.build.builder import LISTING_LOG, SourceBuilder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.dataset_card import write_card
from dataset_scripts.build.examples import build_examples
from dataset_scripts.build.export_plan import (
    Plan,
    ShardTask,
    cut_into_shards,
    is_shard_path,
    read_plan,
    write_plan,
)
from dataset_scripts.build.layout import (
    BUILD_FILE,
    LEAKAGE_REPORT_FILE,
    LEAKAGE_SHEET_FILE,
    LOCK_FILE,
    PROTECTED_PAIRS_FILE,
    SHARDS_FOLDER,
    WORK_FOLDER,
)
from dataset_scripts.build.shard_file import write_shard
from dataset_scripts.build.workers import run_tasks
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.findings import label_names

logger = logging.getLogger(__name__)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)

Log = dict[str, Any]


def export_parquet(builder: SourceBuilder, output_dir: Path, num_proc: int = 1) -> bool:
    """Write what the builder would build as sharded Parquet, or resume, or reuse what is there.

    Only one process writes to an output folder; others wait and then find it complete.

    Args:
        builder: a Cocktail or any other source.
        output_dir: empty, absent, or written by this function before; not inside the raw data.
        num_proc: processes that decode and write; with several, a script must call this below
            `if __name__ == "__main__":`, as each process imports it.

    Returns:
        False if the folder already held exactly this build, undamaged.

    Raises:
        DataLayoutError: the folder holds something else, is a file, or may not be written.
        TooManyBadFilesError: more files are unreadable than allowed.
        WorkerEndedError: the system has killed a worker; what is complete stays for the next run.
        OSError: the disk is full; what is complete stays for the next run.
    """
    key = {"dataset": builder.dataset_name, "config": builder.config_id, "version": str(builder.VERSION)}
    with _faults_in_words(output_dir):
        check_place(output_dir, Path(builder.config.data_dir))
        output_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(output_dir / LOCK_FILE):
            if _is_built(output_dir, key, builder):
                return False
            write_build(output_dir, key)
            plan = _make_plan(builder, output_dir / WORK_FOLDER, key, num_proc)
            logs = _write_shards(plan, builder, output_dir, num_proc)
            _finish(plan, logs, builder, output_dir, key)
    return True


@contextlib.contextmanager
def _faults_in_words(output_dir: Path) -> Iterator[None]:
    """Say what a full disk or a folder that may not be written means, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise OSError(
                errno.ENOSPC,
                f"The disk is full ({os.strerror(error.errno)}). What is written stays: free some space and "
                "run the same command again, or choose another --output_dir or a smaller --stored_size.",
            ) from error
        if error.errno in _MAY_NOT_WRITE and _concerns(error, output_dir):
            raise DataLayoutError(
                f"{error.filename} may not be written ({os.strerror(error.errno)}). Wanted a folder that you "
                "may write to; choose another --output_dir, or ask its owner."
            ) from error
        raise


def _concerns(error: OSError, output_dir: Path) -> bool:
    """Say whether an error is of the output folder, a file in it, or a folder above it."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    path, place = Path(error.filename).absolute(), output_dir.absolute()
    return path == place or path in place.parents or place in path.parents


def check_place(output_dir: Path, data_dir: Path) -> None:
    """Refuse a folder that is none, is somebody else's, or would be scanned with the raw data.

    Args:
        output_dir: where a build shall go.
        data_dir: what is built.

    Raises:
        DataLayoutError: it may not go there.
    """
    place, raw = output_dir.resolve(), data_dir.resolve()
    if raw == place or raw in place.parents:
        raise DataLayoutError(
            f"--output_dir {output_dir} lies inside --data_dir {data_dir}, so the next build would find its "
            "own output among the raw files. Choose an --output_dir outside of it."
        )
    for folder in (output_dir, *output_dir.parents):
        if folder.exists() and not folder.is_dir():
            raise DataLayoutError(
                f"{folder} is a file. Wanted a new or empty folder; choose another --output_dir."
            )
    if output_dir.is_dir() and not is_own_folder(output_dir):
        raise DataLayoutError(
            f"{output_dir} is not empty and was not written by this command (no {BUILD_FILE} of it). "
            "Wanted a new or empty folder; choose another --output_dir."
        )


def _is_built(output_dir: Path, key: Key, builder: SourceBuilder) -> bool:
    """Say whether the folder holds exactly this build, whole and up to date; log why not."""
    build = read_build(output_dir)
    if build is not None and build.is_complete and build.key == key:
        damage = find_damage(output_dir, build) or builder.find_readable(output_dir)
        if not damage:
            logger.info("Reusing the complete build in %s.", output_dir)
            shutil.rmtree(output_dir / WORK_FOLDER, ignore_errors=True)  # of a run killed at its very end
            return True
        logger.info("The build in %s is not whole (%s): building it anew.", output_dir, damage)
    elif build is not None and build.key != key:
        logger.info("The sources or options have changed: building %s anew.", output_dir)
    for path in parquet_files(output_dir):
        if not is_shard_path(path):
            raise DataLayoutError(
                f"{output_dir / path} was not written by this command, and would be read with the data. Move "
                "it away, or choose another --output_dir."
            )
    return False


def _make_plan(builder: SourceBuilder, work: Path, key: Key, num_proc: int) -> Plan:
    """List the shards, from the plan of an interrupted run where there is one: comparing takes minutes."""
    plan = read_plan(work, key)
    if plan is not None:
        return plan
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    listings = builder.list_records(work, num_proc)
    return write_plan(work, key, cut_into_shards(listings))


def _write_shards(plan: Plan, builder: SourceBuilder, output_dir: Path, num_proc: int) -> list[Log]:
    """Write the shards that are not done; return the logs of the listing and of every shard."""
    work = output_dir / WORK_FOLDER
    found = {task.path: _read_done(task, plan, output_dir) for task in plan.tasks}
    done = {path: log for path, log in found.items() if log is not None}
    _remove_shards(output_dir, {path for path, log in done.items() if log["shard"]})
    still_open = [task for task in plan.tasks if task.path not in done]
    files = plan.files - sum(len(task.records) for task in still_open)
    if done:
        logger.info("Resuming: %d of %d files are done.", files, plan.files)
    listing = read_log(log_path(work, LISTING_LOG))
    assert listing is not None, "read_plan has just vouched for it"
    bad = sum(log["bad_files"] for log in done.values())
    most_bad = most_bad_files(plan.files, builder.config.max_bad_fraction)
    run = work / f"run-{uuid.uuid4().hex}"
    run.mkdir()
    write = functools.partial(
        _write_shard, config=builder.config, features=builder.info.features, folder=run, plan=plan.digest
    )
    bar = tqdm(total=plan.files, initial=files, desc="Writing Parquet", unit=" files")
    try:
        with bar, contextlib.closing(run_tasks(write, still_open, num_proc)) as written:
            for task, log in written if bad <= most_bad else ():
                _publish(task, log, run, output_dir)
                done[task.path] = log
                bar.update(len(task.records))
                bad += log["bad_files"]
                if bad > most_bad:
                    break  # write_reports counts again and raises
    finally:
        shutil.rmtree(run, ignore_errors=True)
    return [listing, *(done[task.path] for task in plan.tasks if task.path in done)]


def _read_done(task: ShardTask, plan: Plan, output_dir: Path) -> Log | None:
    """Return the log of a shard that stands in its place as it was written; None if it is to be written."""
    log = read_log(log_path(output_dir / WORK_FOLDER, task.name))
    if log is None or log.get("plan") != plan.digest or "shard" not in log:
        return None
    if log["shard"] is None:  # all its files are unreadable
        return log
    try:
        shard = shard_from_json(log["shard"])
    except ValueError:
        return None
    return log if shard.path == task.path and not shard_damage(output_dir, shard) else None


def _remove_shards(output_dir: Path, kept: set[str]) -> None:
    """Remove the shards of other builds, and those that were being written; then the folders they leave."""
    for path in (output_dir / SHARDS_FOLDER).glob("*/*.parquet*"):
        name = path.relative_to(output_dir).as_posix()
        is_part = path.name.startswith(".") and path.name.endswith(".parquet.part")  # an earlier version's
        if (is_shard_path(name) and name not in kept) or is_part:
            path.unlink()
    for folder in (output_dir / SHARDS_FOLDER).glob("*/"):
        if not any(folder.iterdir()):
            folder.rmdir()


def _write_shard(
    task: ShardTask, config: SourceConfig, features: datasets.Features, folder: Path, plan: str
) -> tuple[ShardTask, Log]:
    """Write one shard into the run's folder, and return it with its log; None for a shard without images."""
    log = BuildLog(folder)
    part = folder / task.name
    examples = _examples(task, config, log)
    first = next(examples, None)
    shard = None
    if first is not None:
        write_shard(part, itertools.chain([first], examples), features)
        sync_file(part)
        shard = asdict(describe_shard(task.path, part))
    return task, {**log.to_json(), "plan": plan, "shard": shard}


def _examples(task: ShardTask, config: SourceConfig, log: BuildLog) -> Iterator[dict[str, Any]]:
    for record in task.records:
        yield from build_examples(record, task.root, task.split, config, log)


def _publish(task: ShardTask, log: Log, run: Path, output_dir: Path) -> None:
    """Move a shard into its place, then write its log, which says that it is done."""
    if log["shard"]:
        final = output_dir / task.path
        final.parent.mkdir(parents=True, exist_ok=True)
        publish(run / task.name, final)
        sync_folder(final.parent.parent)
    write_json(log_path(output_dir / WORK_FOLDER, task.name), log)


def _finish(plan: Plan, logs: list[Log], builder: SourceBuilder, output_dir: Path, key: Key) -> None:
    """Write all that is beside the shards, then say that the build is complete, then forget the way there."""
    config, work = builder.config, output_dir / WORK_FOLDER
    write_reports(
        output_dir,
        logs,
        files=plan.files,
        dataset=builder.dataset_name,
        config=config,
        origin=builder.find_origin(),
    )
    assert len(logs) == 1 + len(plan.tasks), "write_reports raises where shards are left out"
    for name in (LEAKAGE_REPORT_FILE, LEAKAGE_SHEET_FILE, PROTECTED_PAIRS_FILE):
        if (work / name).is_file():
            write_atomically(output_dir / name, (work / name).read_bytes())
        else:
            (output_dir / name).unlink(missing_ok=True)  # of an earlier build in this folder
    write_card(output_dir, config, label_names(builder.info.features), builder.SOURCES)
    write_build(output_dir, key, [shard_from_json(log["shard"]) for log in logs[1:] if log["shard"]])
    shutil.rmtree(work)


def push_to_hub(output_dir: Path, repo_id: str) -> str:
    """Upload a complete build as a private dataset repository and return its address.

    Raises:
        DataLayoutError: the folder holds no complete build.
    """
    from huggingface_hub import HfApi  # only here is a network needed

    check_complete(output_dir)
    api = HfApi()
    # The sources' licences do not allow every use: a person decides to make the repository public.
    address = api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
    api.upload_folder(
        repo_id=repo_id, repo_type="dataset", folder_path=str(output_dir), ignore_patterns=[".*"]
    )
    return str(address)
