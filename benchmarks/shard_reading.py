"""A large export read by two ranks: in place, and as the Arrow copy that `load_dataset` makes of it.

Stands beside the project; nothing imports it but its test.

    python -m benchmarks.shard_reading --work_dir build/shards
    python -m benchmarks.shard_reading --work_dir build/shards --rows 2000 --side 1280 --batch 8

Writes an export of synthetic raw images, whose first bytes are the number of their row. Then, in this run:
one epoch on two ranks (real processes, gloo, accelerate's loader as the Trainer prepares it); the same again,
killed with -9 in the middle and resumed; and rounds of both ways of reading in turn. Prints whether every row
was read once and what the resumed ranks read, seconds to open, bytes written, images a second, and memory.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator, skip_first_batches
from datasets import Dataset, load_dataset

from dataset_scripts.build.build_file import describe_shard, write_build
from dataset_scripts.build.shard_file import write_shard
from dataset_scripts.findings import make_features
from medhiera.data.dataset import KeyedSampler, RadiographCollator, RadiographDataset
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.shards import open_in_place

RANKS = 2
ROWS_PER_SHARD = 2048
SEED, EPOCH = 0, 3
WAYS = ("in place", "arrow copy")


def write_export(
    folder: Path, parts: Mapping[str, Sequence[range]], write: Callable[[Path, range], object]
) -> Path:
    """A complete export: shards, the card that load_dataset reads, build.json.

    Args:
        folder: may be absent.
        parts: by split, the rows of each shard.
        write: writes such rows to a file.
    """
    shards, lines = [], []
    (folder / "data" / "synthetic").mkdir(parents=True)
    for split, ranges in parts.items():
        lines += [f"  - split: {split}", f"    path: data/*/{split}-*.parquet"]
        for number, rows in enumerate(ranges):
            path = f"data/synthetic/{split}-{number:05d}-of-{len(ranges):05d}.parquet"
            write(folder / path, rows)
            shards.append(describe_shard(path, folder / path))
    head = ["---", "configs:", "- config_name: all", "  data_files:", *lines, "---"]
    (folder / "README.md").write_text("\n".join(head) + "\n", encoding="utf-8")
    write_build(folder, {"dataset": "synthetic", "config": "official", "version": "1"}, shards)
    return folder


def synthetic_rows(rows: range, side: int) -> Iterator[dict[str, Any]]:
    """Raw images of noise that begin with the number of their row."""
    noise = np.random.default_rng(rows.start).integers(0, 256, side * side - 8, np.uint8).tobytes()
    for row in rows:
        yield {
            "image": {"pixels": row.to_bytes(8, "little") + noise, "height": side, "width": side},
            "image_id": f"Synthetic/{row:08d}.png",
            "source": "Synthetic",
            "patient_id": f"patient-{row // 4:08d}",
            "labels": [0.0] * 15,
            "findings": [],
            "age_years": 50.0,
            "sex": "F",
            "view": "PA",
            "nih_image": "",
            "rsna_image": "",
            "is_phantom": False,
            "boxes": [],
        }


def write_synthetic(folder: Path, rows: int, side: int) -> Path:
    """An export of so many synthetic images."""
    features = make_features(is_raw=True)
    starts = range(0, rows, ROWS_PER_SHARD)
    parts = {"train": [range(start, min(start + ROWS_PER_SHARD, rows)) for start in starts]}
    return write_export(
        folder, parts, lambda path, some: write_shard(path, synthetic_rows(some, side), features)
    )


def open_rows(way: str, export: Path, cache: Path) -> Dataset:
    """The training rows, read in place or as the copy."""
    if way == WAYS[1]:
        return load_dataset(str(export), "all", cache_dir=str(cache))["train"]
    splits = open_in_place(export, str(cache))
    assert splits is not None
    return splits["train"]


class LoggedRows(RadiographDataset):
    """Writes the row number of each image that is read, from its pixels, at once: kill -9 loses none."""

    log = -1

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """The batch; its rows are in the log."""
        batch = super().__getitems__(keys)
        read = batch["pixel_values"][:, 0, 0, :8].contiguous().numpy().view(np.int64).ravel()
        os.write(self.log, read.tobytes())
        return batch


def private_mib() -> float:
    """Memory of this process that is not a mapped file, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024


@dataclass
class Reading:
    """What one rank reads.

    Attributes:
        export: the folder.
        way: one of WAYS.
        cache: where the index or the copy lies.
        log: the start of the names of the files that the ranks write.
        side: of the images, in pixels.
        batch: of a rank.
        skip: steps that were done before.
    """

    export: Path
    way: str
    cache: Path
    log: Path
    side: int
    batch: int
    skip: int


def read_epoch(options: Reading, environment: Mapping[str, str]) -> None:
    """One rank: read its part of an epoch from a step on; write down what, how fast, in how much memory."""
    os.environ.update(environment)
    began = time.perf_counter()
    rows = open_rows(options.way, options.export, options.cache)
    preprocessing = Preprocessing(options.side, options.side, 0.5, 0.25)
    table = LoggedRows(rows, preprocessing, seed=SEED)
    opened = time.perf_counter() - began
    accelerator = Accelerator(cpu=True)
    name = f"{options.log}-{accelerator.process_index}"
    table.log = os.open(f"{name}.rows", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sampler = KeyedSampler(len(table), SEED)
    loader = accelerator.prepare(
        torch.utils.data.DataLoader(
            table, options.batch, sampler=sampler, collate_fn=RadiographCollator(with_ids=True)
        )
    )
    sampler.set_epoch(EPOCH)
    steps = len(loader) - options.skip
    memory, began, core = [], time.perf_counter(), time.process_time()
    for step, _ in enumerate(skip_first_batches(loader, options.skip)):
        if step % max(1, steps // 20) == 0:
            memory.append(private_mib())
    memory.append(private_mib())
    seconds, core = time.perf_counter() - began, time.process_time() - core
    images = steps * options.batch
    facts = {"opened": opened, "rate": images / seconds, "core_rate": images / core, "memory": memory}
    Path(f"{name}.json").write_text(json.dumps(facts))
    accelerator.end_training()


def start_ranks(options: argparse.Namespace, way: str, log: str, skip: int = 0) -> list[ForkServerProcess]:
    """Two ranks with what accelerate launch would tell them, and a free port to meet at.

    They are forked by a process that has imported what they need, which takes seconds, and nothing else.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reading = Reading(
        options.work_dir / "export", way, options.work_dir / way.replace(" ", "_"), options.work_dir / log,
        options.side, options.batch, skip,
    )  # fmt: skip
    world = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "medhiera.data.dataset", "medhiera.data.shards"])
    ranks = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(RANKS)]
    processes = [context.Process(target=read_epoch, args=(reading, rank)) for rank in ranks]
    for file in options.work_dir.glob(f"{log}-*"):
        file.unlink()
    for process in processes:
        process.start()
    return processes


def ended(processes: Sequence[ForkServerProcess]) -> list[int | None]:
    """Their exit statuses, when all have ended."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def run_ranks(options: argparse.Namespace, way: str, log: str, skip: int = 0) -> list[dict[str, Any]]:
    """Both ranks to their end; what each says of itself.

    Raises:
        SystemExit: one failed.
    """
    if any(ended(start_ranks(options, way, log, skip))):
        raise SystemExit(f"a rank failed ({way})")
    return [json.loads((options.work_dir / f"{log}-{rank}.json").read_text()) for rank in range(RANKS)]


def rows_read(options: argparse.Namespace, log: str) -> list[npt.NDArray[np.int64]]:
    """The rows that each rank has read, in this order."""
    files = (options.work_dir / f"{log}-{rank}.rows" for rank in range(RANKS))
    return [np.frombuffer(file.read_bytes(), np.int64) for file in files]


def kill_midway(options: argparse.Namespace, log: str) -> int:
    """Start both ranks, kill -9 them in the middle, and return the step that both have done."""
    halfway = options.rows // RANKS // 2 * 8
    files = [options.work_dir / f"{log}-{rank}.rows" for rank in range(RANKS)]
    processes = start_ranks(options, WAYS[0], log)
    while any(not file.exists() or file.stat().st_size < halfway for file in files):
        if not all(process.is_alive() for process in processes):
            break
        time.sleep(0.002)
    for process in processes:
        process.kill()
    if (statuses := ended(processes)) != [-signal.SIGKILL] * RANKS:
        raise SystemExit(f"the ranks ended before they were killed: {statuses}")
    return min(file.stat().st_size // 8 // options.batch for file in files)


def check_resume(options: argparse.Namespace) -> None:
    """Every row once an epoch; a killed epoch goes on with the very next row, and reads none before it.

    Raises:
        SystemExit: it does not, or memory grows on the way.
    """
    facts = run_ranks(options, WAYS[0], "whole")
    whole = rows_read(options, "whole")
    counts = np.bincount(np.concatenate(whole), minlength=options.rows)
    print(f"read: {len(counts):,} rows, each {counts.min()} to {counts.max()} times on {RANKS} ranks")
    step = kill_midway(options, "killed")
    run_ranks(options, WAYS[0], "resumed", step)
    done = step * options.batch
    parts = zip(rows_read(options, "killed"), rows_read(options, "resumed"), whole, strict=True)
    is_exact = [np.array_equal(np.concatenate([before[:done], after]), all_) for before, after, all_ in parts]
    again = [len(np.intersect1d(after, all_[:done])) for after, all_ in zip(
        rows_read(options, "resumed"), whole, strict=True)]  # fmt: skip
    print(f"killed with -9 after step {step} and resumed: the same rows in the same order {is_exact}, "
          f"rows read again {sum(again)}")  # fmt: skip
    for rank, fact in enumerate(facts):
        memory = fact["memory"]
        print(f"rank {rank}: private memory {memory[1]:.0f} MiB after a twentieth of the epoch, "
              f"{memory[-1]:.0f} at its end, peak {max(memory):.0f}")  # fmt: skip
    if not (counts == 1).all() or not all(is_exact) or any(again):
        raise SystemExit("rows were lost or read twice")
    check_flat([fact["memory"] for fact in facts])


def check_flat(memories: Sequence[Sequence[float]]) -> None:
    """What a rank holds does not grow with the rows that it has read.

    Args:
        memories: of each rank, its private memory in MiB at an epoch's start, each twentieth, its end.

    Raises:
        SystemExit: at the end it is larger than after a twentieth, by more than 5 % and 20 MiB.
    """
    for rank, memory in enumerate(memories):
        if memory[-1] > 1.05 * memory[1] + 20:
            raise SystemExit(
                f"rank {rank}: private memory grew from {memory[1]:.0f} to {memory[-1]:.0f} MiB in an epoch"
            )


def bytes_in(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(options: argparse.Namespace) -> None:
    """Seconds to open for the first time, bytes written, and images a second, both ways in turn."""
    for way in WAYS:
        cache = options.work_dir / way.replace(" ", "_")
        shutil.rmtree(cache, ignore_errors=True)
        began = time.perf_counter()
        rows = open_rows(way, options.work_dir / "export", cache)
        print(f"{way:10s}: first opened in {time.perf_counter() - began:6.1f} s, "
              f"{bytes_in(cache) / 2**20:8,.0f} MiB written for {len(rows):,} rows")  # fmt: skip
        del rows
    rates: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    peaks: dict[str, float] = dict.fromkeys(WAYS, 0.0)
    for _ in range(options.rounds):
        for way in WAYS:
            facts = run_ranks(options, way, "timed")
            by_clock, by_core = (sum(fact[name] for fact in facts) for name in ("rate", "core_rate"))
            rates[way].append((by_clock, by_core / RANKS))
            peaks[way] = max(peaks[way], *(max(fact["memory"]) for fact in facts))
    for number, what in enumerate((f"images/s of {RANKS} ranks by the clock", "images/s of a core")):
        one, other = ([rate[number] for rate in rates[way]] for way in WAYS)
        for way, found in zip(WAYS, (one, other), strict=True):
            print(
                f"{way:10s}: {statistics.median(found):8,.0f} {what} ({min(found):,.0f} to {max(found):,.0f})"
            )
        ratios = [first / second for first, second in zip(one, other, strict=True)]
        print(f"ratio     : {statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print("; ".join(f"{way}: at most {peaks[way]:.0f} MiB private memory of a rank" for way in WAYS))


def main(argv: Iterable[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work_dir", type=Path, required=True, help="gets the export and the copy of it")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument(
        "--batch", type=int, default=125, help="of a rank; rows must be a multiple of twice it"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of both ways; 0: none")
    options = parser.parse_args(None if argv is None else list(argv))
    if options.rows % (RANKS * options.batch):
        parser.error("--rows must be a multiple of twice --batch, as ranks fill up what is short of it")
    shutil.rmtree(options.work_dir / "export", ignore_errors=True)
    began = time.perf_counter()
    export = write_synthetic(options.work_dir / "export", options.rows, options.side)
    seconds, size = time.perf_counter() - began, bytes_in(export) / 2**20
    print(f"wrote {options.rows:,} rows, {size:,.0f} MiB, {seconds:.0f} s")
    check_resume(options)
    if options.rounds:
        compare(options)


if __name__ == "__main__":
    main()
