"""Exports a tiny cocktail while something goes wrong, then again without, and says what came of it.

    python killed_exports.py FOLDER STRIDE          at every STRIDE-th file operation
    python killed_exports.py FOLDER random COUNT    kill -9 at COUNT random moments; prints what came of them

One process imports the libraries; each build runs in a child that it forks, so that the child can be killed
by a real signal. Prints a JSON list: one object a fault, with how the faulty build ended, which shards it had
done, and how the result of the next build differs from an undisturbed one.
"""

import errno
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from raw_folders import ChestFolder, gray

from dataset_scripts import Cocktail
from dataset_scripts.build.parquet_export import export_parquet
from dataset_scripts.leakage import guard

SIZE, OTHER_SIZE = 32, 24

Fault = Callable[[], "FileOperations | None"]
FILE_OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def write_raw(root: Path) -> None:
    """Nine images of which one leaks and one is unreadable, so that every report has something to lose."""
    chest = ChestFolder(root / "ChestXray-NIHCC")
    for patient in range(1, 7):
        chest.add("train_val", f"{patient:08d}_000.png", ["No Finding", "Mass"][patient % 2], patient)
    chest.add("test", "00000040_000.png", "Edema", 40, seed=600)
    chest.finish()
    (chest.root / "images" / "00000003_000.png").write_bytes(b"")
    covidx = root / "COVIDx_CXR"
    (covidx / "train").mkdir(parents=True)
    (covidx / "test.txt").touch()
    (covidx / "train.txt").write_text("7 harmless.png positive cohen\n8 leak.png positive cohen\n")
    gray(601, 96).save(covidx / "train" / "harmless.png")
    gray(600, 96).save(covidx / "train" / "leak.png")


def remember_comparisons(raw: Path) -> None:
    """Compare the pictures once: it is most of a tiny build's time, and files are what is tested here."""
    compare, known = guard.best_matches, {}

    def best_matches(queries: Any, pictures: Any, update: Callable[[int], Any]) -> Any:
        key = (queries.tobytes(), pictures.tobytes())
        if key not in known:
            known[key] = compare(queries, pictures, update)
        return known[key]

    guard.best_matches = best_matches
    Cocktail(data_dir=raw, build_dir=raw.parent / "cache").list_records(None)
    assert known


class FileOperations:
    """Counts what changes files below a folder, and does something at one of these operations."""

    def __init__(self, folder: Path, at: int, act: Callable[[], None]) -> None:
        self.folder, self.at, self.act = str(folder), at, act
        self.count = 0
        self.is_on = True
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self.step()
            sync(descriptor)

        os.fsync = fsync
        sys.addaudithook(self.hear)

    def hear(self, event: str, words: tuple[Any, ...]) -> None:
        if not self.is_on or (event != "open" and event not in FILE_OPERATIONS):
            return
        is_read = event == "open" and not words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = os.fspath(words[0]) if isinstance(words[0], str | os.PathLike) else ""
        if not is_read and (not os.path.isabs(path) or path.startswith(self.folder)):
            self.step()

    def step(self) -> None:
        self.count += 1
        if self.is_on and self.count - 1 == self.at:
            self.act()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def build_in_child(raw: Path, out: Path, size: int, fault: Fault) -> dict[str, Any]:
    """Run one build; say how it ended ("killed", "built", or the error's text) and the operations it took."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        operations, text = None, ""
        try:
            builder = Cocktail(data_dir=raw, build_dir=raw.parent / "cache", stored_size=size)
            operations = fault()
            export_parquet(builder, out)
            text = "built"
        except OSError as error:
            text = f"{type(error).__name__}: {error}"
        except BaseException:
            text = traceback.format_exc()
        if operations is not None:
            operations.is_on = False
        os.write(writer, f"{operations.count if operations else 0} {text}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count, _, text = pipe.read().partition(" ")
    _, status = os.waitpid(pid, 0)
    return {"ended": "killed" if os.WIFSIGNALED(status) else text, "operations": int(count or 0)}


def content(folder: Path) -> dict[str, bytes]:
    """Every file and folder, byte for byte, but the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
        if path.name != ".build.lock"
    }


def done_shards(folder: Path) -> list[Path]:
    """The shards that an interrupted build has a log of."""
    logs = [json.loads(path.read_text()) for path in (folder / ".build").glob("worker-log-data-*.json")]
    return [folder / log["shard"]["path"] for log in logs if log["shard"]]


def limit_files(size: int) -> None:
    """Let no file of this process grow over `size` bytes: the rest of a write that crosses it is lost."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def die_after(seconds: float) -> None:
    """Let this process be killed after a while, wherever it then is."""
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def kill_at_random(folder: Path, count: int) -> Counter[str]:
    """Kill so many builds, new ones and ones over other data by turns; what the next build then made."""
    raw, out, other = folder / "raw", folder / "out", folder / "other"
    write_raw(raw)
    remember_comparisons(raw)
    for place, size in ((folder / "whole", SIZE), (other, OTHER_SIZE)):
        assert build_in_child(raw, place, size, lambda: None)["ended"] == "built"
    started = time.monotonic()
    shutil.rmtree(folder / "whole")
    assert build_in_child(raw, folder / "whole", SIZE, lambda: None)["ended"] == "built"
    length = time.monotonic() - started
    expected = content(folder / "whole")
    moments = np.random.default_rng(0).uniform(0, length, count)
    found: Counter[str] = Counter()
    for number, moment in enumerate(moments.tolist()):
        shutil.rmtree(out, ignore_errors=True)
        if number % 2:
            shutil.copytree(other, out)
        ended = build_in_child(raw, out, SIZE, lambda moment=moment: die_after(moment))["ended"]
        found[ended] += 1
        again = build_in_child(raw, out, SIZE, lambda: None)["ended"]
        found[f"then: {again}" if again != "built" else "then built"] += 1
        found["then as undisturbed" if content(out) == expected else "then another result"] += 1
    return found


def run_all(folder: Path, stride: int) -> Iterator[dict[str, Any]]:
    raw, out = folder / "raw", folder / "out"
    write_raw(raw)
    remember_comparisons(raw)
    other = folder / "other"
    for place, size in ((folder / "whole", SIZE), (other, OTHER_SIZE)):
        assert build_in_child(raw, place, size, lambda: None)["ended"] == "built"
    expected = content(folder / "whole")
    largest = max(len(data) for data in expected.values())

    def start(kind: str) -> None:
        shutil.rmtree(out, ignore_errors=True)
        if kind == "rebuild":
            shutil.copytree(other, out)

    def run(name: str, kind: str, at: int, fault: Fault) -> dict[str, Any]:
        start(kind)
        ended = build_in_child(raw, out, SIZE, fault)["ended"]
        done = {path: path.stat().st_mtime_ns for path in done_shards(out)}
        again = build_in_child(raw, out, SIZE, lambda: None)["ended"]
        found = content(out)
        return {
            "fault": name,
            "kind": kind,
            "at": at,
            "ended": ended,
            "again": again,
            "differs": sorted(
                path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)
            ),
            "done": len(done),
            "redone": [str(path) for path, stamp in done.items() if path.stat().st_mtime_ns != stamp],
        }

    for kind in ("fresh", "rebuild"):
        start(kind)
        total = build_in_child(raw, out, SIZE, lambda: FileOperations(out, -1, die))["operations"]
        for name, act in (("kill", die), ("full", fill_disk)):
            for at in range(0 if act is die else stride // 2, total, stride):
                yield run(name, kind, at, lambda at=at, act=act: FileOperations(out, at, act))
        for size in range(0, largest, max(1, largest * stride // 160)):
            yield run("cut", kind, size, lambda size=size: limit_files(size))


if __name__ == "__main__":
    datasets.disable_progress_bars()
    if sys.argv[2] == "random":
        print(json.dumps(kill_at_random(Path(sys.argv[1]), int(sys.argv[3])), indent=1))
    else:
        print(json.dumps(list(run_all(Path(sys.argv[1]), int(sys.argv[2])))))
