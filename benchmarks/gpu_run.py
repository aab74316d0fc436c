"""Models, trainer and loader on one GPU, within a time budget: `make bench-gpu WHEELS=FOLDER`.

Stands above gpu_plan.py (what is measured), gpu_worker.py (one model) and gpu_report.py (the table). Every
model has a process of its own, for an illegal memory access ends all of the process it happens in. Those of a
group build and compile at the same time, then take turns, so that ratios are of one round. Parts come in the
order of what the goals ask for; a part that the rest of the budget does not allow for is left out, and said
to be. The JSON is written after each part.

    python -m benchmarks.gpu_run --minutes 8.5
    python -m benchmarks.gpu_run --parts autotune --minutes 4 --output runs/autotune
    python -m benchmarks.gpu_run --device cpu          tries the benchmark itself, at a toy's size
"""

import argparse
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_plan import CPU, GPU, NEEDS, ORDER, Group, groups
from benchmarks.gpu_report import Entry, render
from benchmarks.gpu_worker import MARK
from benchmarks.hiera_models import relative_difference
from benchmarks.model_throughput import machine

ROOT = Path(__file__).resolve().parent.parent
ROUND_MS = 400
"""A round's steps take about as long."""
GRACE = 30
"""Seconds that a round which has begun is waited for."""


class Worker:
    """A model's process, see gpu_worker.py.

    Args:
        request: what it is to run.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_worker", json.dumps(request)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            start_new_session=True,  # with its compilers it is one group, and ends as one
        )  # fmt: skip
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                self._answers.put(json.loads(line.removeprefix(MARK)))
        self._answers.put(None)

    def answer(self, deadline: float) -> dict[str, Any]:
        """Its next one; `fault` in it where there is none.

        Args:
            deadline: by time.monotonic().
        """
        try:
            found = self._answers.get(timeout=max(deadline - time.monotonic(), 0.1))
        except queue.Empty:
            return {"fault": "not ready in time"}
        return self._fault() if found is None else found

    def _fault(self) -> dict[str, Any]:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return {"fault": f"ended with status {status}: {lines[-1][:300] if lines else 'no message'}"}

    def ask(self, steps: int, deadline: float) -> dict[str, Any]:
        """Mean milliseconds of so many steps."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._fault()
        return self.answer(deadline)

    def end(self) -> None:
        """With the processes that compile for it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):  # a question that it did not live to read
                stream.close()


def run_group(group: Group, device: str, rounds: int, deadline: float) -> list[Entry]:
    """Measure the models of a group in turn; one that found no room beside the others, alone after them."""
    entries = [
        {
            "label": f"{name}, {case.precision}, {case.mode}, batch {case.batch}",
            "name": name,
            "case": asdict(case),
        }
        for name, case in group.contenders
    ]
    measure_together(entries, device, rounds, deadline)
    for entry in entries:
        if "out of memory" in entry.get("fault", "").lower() and len(entries) > 1:
            del entry["fault"]
            measure_together([entry], device, rounds, deadline)
            entry["is_alone"] = True
    reference = next((entry["values"] for entry in entries if "values" in entry), None)
    for entry in entries:
        if "values" in entry:
            entry["difference"] = relative_difference(entry.pop("values"), reference or [])
    return entries


def measure_together(entries: list[Entry], device: str, rounds: int, deadline: float) -> None:
    """Fill in what the workers answer; one that fails keeps none of its times."""
    workers = [Worker({"name": one["name"], "case": one["case"], "device": device}) for one in entries]
    try:
        for entry, worker in zip(entries, workers, strict=True):
            entry |= worker.answer(deadline)
            if "left_out" in entry:
                entry["fault"] = entry.pop("left_out")
        steps: dict[int, int] = {}
        for number in range(-1, rounds):
            if number > 0 and time.monotonic() > deadline:
                break  # a round less, but the same ones for all
            for place, (entry, worker) in enumerate(zip(entries, workers, strict=True)):
                if "fault" in entry:
                    continue
                told = worker.ask(steps.get(place, 2), deadline + GRACE)
                if "fault" in told:
                    entry["fault"] = told["fault"]
                    entry.pop("milliseconds", None)
                elif number < 0:  # how many steps fill a round
                    wanted = ROUND_MS / told["milliseconds"]
                    steps[place] = max(1 if device == "cpu" else 5, min(100, round(wanted)))
                    entry["milliseconds"] = []
                else:
                    entry["milliseconds"].append(told["milliseconds"])
    finally:
        for worker in workers:
            worker.end()


def run_module(module: str, words: Sequence[str], deadline: float) -> Any:
    """The JSON that a benchmark of its own writes.

    Raises:
        RuntimeError: it failed, or ran out of time.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "out.json", Path(folder) / "log"
        command = [sys.executable, "-W", "ignore", "-m", module, *words, "--json", str(file)]
        with log.open("w") as errors, subprocess.Popen(
            command, cwd=ROOT, stdout=errors, stderr=errors, start_new_session=True
        ) as process:  # fmt: skip
            try:
                process.wait(timeout=max(deadline - time.monotonic(), 1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = "out of time" if process.returncode == -signal.SIGKILL else lines[-1] if lines else "no message"
        raise RuntimeError(why[:300])


class Run:
    """One run of everything that was asked for.

    Args:
        options: the command line, read.
        words: the command line, as it was typed.
    """

    def __init__(self, options: argparse.Namespace, words: Sequence[str]) -> None:
        self.device: str = options.device
        self.scale = GPU if options.device == "cuda" else CPU
        self.work_dir = ROOT / ".cache" / "bench-gpu"
        self.started = time.monotonic()
        self.deadline = self.started + 60 * options.minutes
        facts = machine(torch.device(options.device))
        typed = " ".join(["python -m benchmarks.gpu_run", *words])
        command = re.sub(r" --output[ =]\S+", "", typed)  # the record may be published; a folder says nothing
        self.content: dict[str, Any] = {
            "machine": facts, "command": command, "budget_minutes": options.minutes, "seconds": 0.0,
            "square_tflops": {}, "groups": [], "trainer": None, "loader": None, "left_out": [],
        }  # fmt: skip
        slug = re.sub("[^a-z0-9]+", "-", facts["name"].lower()).strip("-")
        self.file = options.output / f"{slug}.json"
        options.output.mkdir(parents=True, exist_ok=True)

    def measure_products(self) -> None:
        """How fast the device multiplies.

        Raises:
            SystemExit: it does not.
        """
        worker = Worker({"rates": True, "device": self.device})
        rates = worker.answer(self.deadline)
        worker.end()
        if "fault" in rates:
            raise SystemExit(f"no square product could be timed on {self.device}: {rates['fault']}")
        self.content["square_tflops"] = rates["rates"]

    def run(self, parts: Sequence[str]) -> None:
        """Each part in turn, as long as there is time for it."""
        by_key = {group.key: group for group in groups(self.scale)}
        for part in parts:
            needs = NEEDS[part] if part in NEEDS else by_key[part].seconds
            left = self.deadline - time.monotonic()
            until = min(self.deadline, time.monotonic() + self.scale.patience * needs)
            if left < needs:
                self.leave_out(part, f"{left:.0f} s were left, and it takes some {needs:.0f}")
            elif part in by_key:
                group = by_key[part]
                entries = run_group(group, self.device, self.scale.rounds, until)
                self.content["groups"].append({"key": part, "title": group.title, "contenders": entries})
            else:
                self.run_other(part, until)
            self.write()

    def run_other(self, part: str, until: float) -> None:
        """The trainer or the loader; they need packages that a bare machine may lack, and say so."""
        try:
            if part == "loader":
                shutil.rmtree(self.work_dir, ignore_errors=True)
                words = ["--work_dir", str(self.work_dir / "data"), "--images", "0", "--memory"]
                words += ["--device", self.device, *self.scale.loader]
                module = "benchmarks.data_throughput"
            else:
                words = [str(self.work_dir / "data" / "256-raw"), "--build_dir", str(self.work_dir / "built")]
                words += ["--device", self.device, "--recipe", "configs/mae_modern.yaml", *self.scale.trainer]
                module = "benchmarks.trainer_overhead"
            self.content[part] = run_module(module, words, until)
        except RuntimeError as error:
            self.leave_out(part, str(error))

    def leave_out(self, part: str, why: str) -> None:
        """Say so, now and in the record."""
        self.content["left_out"].append([part, why])
        sys.stdout.write(f"left out: {part}: {why}\n")

    def write(self) -> None:
        """The JSON and the table, as far as they are known."""
        self.content["seconds"] = time.monotonic() - self.started
        self.file.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        self.file.with_suffix(".md").write_text(render(self.content), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, print the table."""
    every = [*ORDER, *(group.key for group in groups(GPU) if group.key not in ORDER)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything (default: 8.5)")
    parser.add_argument("--parts", nargs="+", help=f"in this order (default: {' '.join(every)})")
    parser.add_argument(
        "--output", type=Path, help="a folder (default: docs/gpu; on a CPU .cache/bench-gpu-cpu)"
    )
    options = parser.parse_args(arguments)
    is_gpu = options.device == "cuda"
    if is_gpu and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA GPU; --device cpu tries the benchmark itself")
    known = [*ORDER, *(group.key for group in groups(GPU if is_gpu else CPU) if group.key not in ORDER)]
    parts = options.parts or known
    if unknown := [part for part in parts if part not in known]:
        raise SystemExit(f"no part is called {', '.join(unknown)}; there are {', '.join(known)}")
    options.output = options.output or ROOT / ("docs/gpu" if is_gpu else ".cache/bench-gpu-cpu")
    run = Run(options, sys.argv[1:] if arguments is None else arguments)
    run.measure_products()
    run.run(parts)
    sys.stdout.write(f"{render(run.content)}\n{run.file}\n")


if __name__ == "__main__":
    main()
