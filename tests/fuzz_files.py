"""Damages thousands of files of every kind that users hand over, and counts what comes of it.

    python tests/fuzz_files.py 10000

The tests do the same for seconds. Every file is read in a child process, which a crash or a hang ends. Prints
a line a kind: read as something, refused in words, ended with any other exception, killed by a signal, not
done within 30 seconds; and the most memory that one file took. The last line sums up; what is neither read
nor refused is shown with its seed, and makes the exit status 1.
"""

# ruff: noqa: E402 -- our imports follow the paths and the number of threads, which they need

import gzip
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "tests" / "unit" / "dataset_scripts"
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(UNIT), str(UNIT / "reading"), str(UNIT / "build")]

import numpy as np
import transformers
from damage import damage
from page_fixtures import write_stage2
from PIL import Image
from test_damaged_files import PICTURES, volume

from dataset_scripts import chestxray14, covidx_cxr, image_folder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import scan_folder
from dataset_scripts.errors import BadImageError, UserError
from dataset_scripts.reading.images import read_image
from dataset_scripts.reading.nifti import axial_slices, read_volume
from medhiera.config.parser import parse_config
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.inference.classifier import Classifier
from medhiera.space.reader import open_folder

SECONDS = 30
BATCH = 40
OUTCOMES = ("read", "refused", "exception", "signal", "hang")
OWN = "image,patient,split,Effusion,Größe\n" + "".join(
    f"{n}.png,p{n // 2},{('train', 'validation', 'test')[n // 2 % 3]},{n % 2},\n" for n in range(12)
)
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    + "".join(
        f"{n:08d}_000.png,{('No Finding', 'Mass|Edema')[n % 2]},0,{n},058Y,{'MF'[n % 2]},PA\n"
        for n in range(8)
    )
)
COVIDX = "".join(f"{n} {n}.png positive cohen\n" for n in range(8))

Kind = tuple[bytes, Callable[[bytes], None]]


def picture(file: Path) -> Callable[[bytes], None]:
    """Reads a picture."""

    def read(content: bytes) -> None:
        file.write_bytes(content)
        image = read_image(file)
        assert image.dtype == np.uint8 and image.ndim == 2 and image.std() > 0

    return read


def nifti(file: Path) -> Callable[[bytes], None]:
    """Cuts a volume into slices."""

    def read(content: bytes) -> None:
        file.write_bytes(content)
        assert all(image.dtype == np.uint8 for _, image in axial_slices(read_volume(file), 4))

    return read


def table(folder: Path, name: str, images: list[str], list_images: Any) -> Callable[[bytes], None]:
    """Lists a source by its table."""
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(b"x")

    def read(content: bytes) -> None:
        (folder / name).write_bytes(content)
        list_images(scan_folder(folder), SourceConfig(name="official"))

    return read


def recipe(file: Path, stage: type) -> Callable[[bytes], None]:
    """Parses a recipe."""

    def read(content: bytes) -> None:
        file.write_bytes(content)
        places = ["--data_dir", str(file.parent), "--output_dir", str(file.parent / "out")]
        parse_config(stage, [str(file), *places])

    return read


def stage_file(whole: Path, folder: Path, name: str) -> Callable[[bytes], None]:
    """Opens a stage's folder for the page and for prediction."""

    def read(content: bytes) -> None:
        for path in whole.iterdir():
            shutil.copy(path, folder / path.name)
        (folder / name).write_bytes(content)
        open_folder(folder)
        scores = Classifier.from_pretrained(folder).probabilities([Image.new("L", (70, 60), 90)])
        assert scores.isfinite().all()

    return read


def all_kinds(folder: Path) -> dict[str, Kind]:
    """What is damaged, and what reads it."""
    kinds: dict[str, Kind] = {name: (make(), picture(folder / "picture")) for name, make in PICTURES.items()}
    kinds["nifti"] = (volume(), nifti(folder / "volume.nii"))
    kinds["nifti, gzip"] = (gzip.compress(volume()), nifti(folder / "volume.nii.gz"))
    own, nih, covidx = (folder / name for name in ("own", "nih", "covidx"))
    images = [f"images/{n}.png" for n in range(12)]
    kinds["csv, own"] = (OWN.encode(), table(own, "labels.csv", images, image_folder.list_own_images))
    (nih / "images").mkdir(parents=True)
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih / name).write_text("".join(f"{n:08d}_000.png\n" for n in range(8) if (n < 6) == ("val" in name)))
    images = [f"images/{n:08d}_000.png" for n in range(8)]
    kinds["csv, ChestX-ray14"] = (
        NIH.encode(),
        table(nih, "Data_Entry_2017.csv", images, chestxray14.list_images),
    )
    (covidx / "train").mkdir(parents=True)
    (covidx / "test.txt").touch()
    images = [f"train/{n}.png" for n in range(8)]
    kinds["list, COVIDx"] = (COVIDX.encode(), table(covidx, "train.txt", images, covidx_cxr.list_images))
    for name, stage in (("mae_modern", MAEArguments), ("cls_modern", ClassificationArguments)):
        content = (ROOT / "configs" / f"{name}.yaml").read_bytes()
        kinds[f"yaml, {name}"] = (content, recipe(folder / f"{name}.yaml", stage))
    whole = write_stage2(folder / "whole")
    (folder / "stage").mkdir()
    for path in sorted(whole.iterdir()):
        if path.suffix in (".json", ".safetensors"):
            kinds[path.name] = (path.read_bytes(), stage_file(whole, folder / "stage", path.name))
    return kinds


def peak_memory() -> int:
    """The most bytes that this process has held since the peak was last reset."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def one_file(content: bytes, read: Callable[[bytes], None], seed: int) -> dict[str, Any]:
    """Damage, read, and say what came of it."""
    damaged = damage(content, np.random.default_rng(seed))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, text = peak_memory(), ""
    signal.alarm(SECONDS)  # the default action ends this process
    try:
        read(damaged)
        outcome = "read"
    except (UserError, BadImageError):
        outcome = "refused"
    except BaseException:
        outcome, text = "exception", traceback.format_exc(limit=-3)
    signal.alarm(0)
    return {"outcome": outcome, "memory": peak_memory() - before, "text": text}


def batch(content: bytes, read: Callable[[bytes], None], seeds: range) -> list[dict[str, Any]]:
    """Some files in one child; a child that dies is told by which file, and another does the rest."""
    results: list[dict[str, Any]] = []
    while len(results) < len(seeds):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            warnings.simplefilter("ignore")
            with os.fdopen(writer, "w") as pipe:
                for seed in seeds[len(results) :]:
                    pipe.write(json.dumps(one_file(content, read, seed)) + "\n")
                    pipe.flush()
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            results += [json.loads(line) for line in pipe]
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            outcome = "hang" if number == signal.SIGALRM else "signal"
            results.append({"outcome": outcome, "memory": 0, "text": signal.Signals(number).name})
    return results


def main() -> int:
    """Run so many files, evenly over the kinds; 1 where one was neither read nor refused."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    total: Counter[str] = Counter()
    most, faults = 0, []
    with tempfile.TemporaryDirectory() as folder:
        kinds = all_kinds(Path(folder))
        each = -(-count // len(kinds))
        for name, (content, read) in kinds.items():
            read(content)  # what is whole is read
            results = []
            for begin in range(first, first + each, BATCH):
                results += batch(content, read, range(begin, min(begin + BATCH, first + each)))
            counts = Counter(result["outcome"] for result in results)
            memory = max(result["memory"] for result in results)
            faults += [
                f"{name}, seed {first + n}: {result['outcome']} {result['text']}"
                for n, result in enumerate(results)
                if result["outcome"] not in ("read", "refused")
            ]
            total, most = total + counts, max(most, memory)
            cells = "  ".join(f"{outcome} {counts[outcome]:5}" for outcome in OUTCOMES)
            print(f"{name:26} {cells}  most memory {memory / 1e6:4.0f} MB", flush=True)
    print("\n".join(faults))
    cells = ", ".join(f"{outcome} {total[outcome]:,}" for outcome in OUTCOMES)
    print(f"{total.total():,} files: {cells}; most memory {most / 1e6:.0f} MB")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
