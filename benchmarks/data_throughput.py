"""How fast data is built and read, and how much memory a build takes.

    python -m benchmarks.data_throughput --work_dir build/throughput
    python -m benchmarks.data_throughput --work_dir build/throughput --images 64 --memory 200 400
    python -m benchmarks.data_throughput --work_dir build/throughput --raw FOLDER_OF_IMAGES
    python -m benchmarks.data_throughput --work_dir build/throughput --images 0 --memory

Raw images are radiographs (phantom chests without --raw) at 1024x1024, repeated under other names. Built data
is Parquet at 256, with both kinds of compression. Loaders crop 224 and make tensors; "training path" is what
train_mae.py reads: mask noise and normalization too. Nothing is downloaded.

The table of the modern recipes is images a second of one core, from files at 256 to a batch in the process
that trains: one worker, one thread, shared memory between them. torchvision's and FFCV's batches are cropped,
resized to 224 and flipped there. Ours are gray crops of their own sizes; the device does the rest, which is
one core here too, in a column of its own. Beside it stands what one core does without a second process.
"""

import argparse
import csv
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Image as ImageFeature
from datasets import load_dataset
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchImageFolder
from torchvision.transforms import v2

from benchmarks import ffcv_loader
from benchmarks.peak_memory import PeakMemory
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph
from dataset_scripts.reading.images import read_image
from medhiera.data.augmentation import Augmentation
from medhiera.data.dataset import KeyedSampler, RadiographCollator, RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.shards import open_in_place

DIFFERENT = 16  # drawn chests; the rest are copies
BATCH = 32
RECIPE_BATCH = 128
HELD_OUT = 64

# A process of its own, as the command line is one: its workers do not import what this benchmark imports.
TIMED_BUILD = """
import sys, time
from pathlib import Path
from dataset_scripts import ImageFolder
from dataset_scripts.build.parquet_export import export_parquet
raw, out, num_proc, compression = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
options = {"stored_size": 256, "compression": compression, "allow_leakage": True}  # the pictures repeat
builder = ImageFolder(data_dir=raw, build_dir=out.parent / "cache", **options)
started = time.perf_counter()
export_parquet(builder, out, num_proc)
print(time.perf_counter() - started)
"""


def write_raw(root: Path, images: int, side: int, given: list[Path], held_out: int = 0) -> Path:
    """Write `images/` and `labels.csv`; every picture after the first few is a hard link.

    Args:
        root: a new folder.
        images: how many to train on.
        side: of each, in pixels.
        given: pictures to shrink or enlarge to it; phantoms are drawn where there are too few.
        held_out: how many more for validation, which a training run asks for.
    """
    folder = root / "images"
    folder.mkdir(parents=True)
    for index in range(images + held_out):
        path = folder / f"{index:06d}.png"
        if index >= DIFFERENT:
            os.link(folder / f"{index % DIFFERENT:06d}.png", path)
            continue
        if index < len(given):
            picture = Image.fromarray(read_image(given[index]))
            picture.resize((side, side), Image.Resampling.BICUBIC).save(path)
            continue
        rng = np.random.default_rng(index)
        pixels = draw_radiograph(draw_body(rng, is_female=False), (), side, rng).pixels
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "split", "mass"])
        for index in range(images + held_out):
            writer.writerow([f"{index:06d}.png", "train" if index < images else "validation", index % 2])
    return root


def rate(count: int, work: Callable[[], object]) -> float:
    """Return how many images a second `work` handles."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def consume(batches: Iterable[Any]) -> None:
    """Read all batches."""
    for _ in batches:
        pass


def build(raw: Path, out: Path, num_proc: int, compression: str = "auto") -> tuple[float, float]:
    """Export to Parquet at 256, from nothing.

    Returns:
        Seconds, and peak memory of all its processes together in MiB.
    """
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", TIMED_BUILD, str(raw), str(out), str(num_proc), compression]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        with PeakMemory(process.pid) as memory:
            printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit("the build failed; its own words stand above")
    return float(printed), memory.peak


def build_with_imagefolder(raw: Path, out: Path, num_proc: int) -> None:
    """Do the same with the datasets library alone: imagefolder, map, to_parquet."""
    shutil.rmtree(out, ignore_errors=True)
    rows = load_dataset("imagefolder", data_dir=str(raw / "images"), cache_dir=str(out), split="train")
    rows = rows.map(shrink, num_proc=num_proc, features=rows.features, cache_file_name=str(out / "map.arrow"))
    rows.cast_column("image", ImageFeature()).to_parquet(out / "all.parquet")


def shrink(row: dict[str, Any]) -> dict[str, Any]:
    """Resize one row to 256."""
    return {"image": row["image"].convert("L").resize((256, 256), Image.Resampling.BICUBIC)}


def tensors(rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
    """Crop 224 and make three-channel tensors, as a loader does."""
    return {"pixels": [to_tensor(image) for image in rows["image"]]}


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Crop the center from an image of 256 or more."""
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    gray = np.asarray(image.crop((left, top, left + 224, top + 224)).convert("L"))
    return torch.from_numpy(gray.copy()).unsqueeze(0).expand(3, -1, -1)


def loaders(raw: Path, built: dict[str, Path], cache: Path, workers: int) -> dict[str, DataLoader[Any]]:
    """Return what is timed, by name; workers stay, so that their start is no part of the time."""
    whole = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    load = partial(DataLoader, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    sources = {"torchvision ImageFolder, raw": load(TorchImageFolder(str(raw), transform=whole))}
    for compression, out in built.items():
        rows = load_dataset(str(out), split="train", cache_dir=str(cache / compression))
        local = rows.select_columns("image").with_transform(tensors)
        streamed = load_dataset(str(out), split="train", streaming=True).select_columns("image")
        mapped = streamed.map(tensors, batched=True, batch_size=BATCH, remove_columns="image")
        preprocessing = Preprocessing(224, 256, 0.5, 0.25)
        table = RadiographDataset(rows, preprocessing, masks=MaskDrawing((7, 7), 0.6))
        sources[f"{compression}: local"] = load(local)
        sources[f"{compression}: streaming"] = load(mapped)
        sources[f"{compression}: training path"] = load(table, collate_fn=RadiographCollator())
    return sources


def recipe_tables(folder: Path, built: dict[str, Path]) -> Iterator[tuple[str, str, Any, Any]]:
    """Recipe, storage, data set and collator of all that `measure_recipes` times.

    Args:
        folder: of the same images as files.
        built: Parquet by its compression.
    """
    recipes = {
        "mae_modern": (Augmentation(0.5, has_flip=True), {"masks": MaskDrawing((7, 7), 0.6)}),
        "cls_modern": (Augmentation(0.5, has_flip=True, has_rand_augment=True), {"with_labels": True}),
    }
    for recipe, (augmentation, own) in recipes.items():
        for compression, out in built.items():
            splits = open_in_place(out, str(out / "index"))  # as a training command reads an export
            assert splits is not None
            table = RadiographDataset(
                splits["train"], Preprocessing(224, 256, 0.5, 0.25), augmentation=augmentation, **own
            )
            yield recipe, f"ours, {compression}", table, RadiographCollator(with_ids=True)
        steps: list[Any] = [v2.PILToTensor(), v2.Grayscale()]
        steps += [v2.RandomResizedCrop(224, (0.5, 1.0), interpolation=v2.InterpolationMode.BICUBIC)]
        steps += [v2.RandomHorizontalFlip(), *([v2.RandAugment()] if augmentation.has_rand_augment else [])]
        yield recipe, "torchvision ImageFolder, PNG", TorchImageFolder(str(folder), v2.Compose(steps)), None


def measure_recipes(
    options: argparse.Namespace, given: list[Path], device: torch.device
) -> dict[str, dict[str, list[float]]]:
    """Print images a second of one core for both modern recipes: median (lowest to highest) of the rounds.

    Args:
        options: the command line.
        given: pictures to use instead of phantoms.
        device: does the batch's part; each batch is pinned for it, where it is a GPU.

    Returns:
        The same by recipe and storage, and column.
    """
    work_dir = options.work_dir
    folder = write_raw(work_dir / "files-256", options.recipe_images, 256, given, HELD_OUT)
    built = {compression: work_dir / f"256-{compression}" for compression in ("raw", "none")}
    for compression, out in built.items():
        build(folder, out, min(8, os.cpu_count() or 1), compression)
    speeds: dict[tuple[str, str], list[dict[str, float]]] = {}
    contenders: list[tuple[str, str, Callable[[], dict[str, float]]]] = []
    for recipe, storage, table, collate in recipe_tables(folder, built):
        timed = options.batches if collate is not None else max(2, options.batches // 16)
        contenders.append((recipe, storage, partial(time_loader, table, collate, timed, device)))
    if ffcv_loader.is_installed():
        epochs = max(1, options.batches * RECIPE_BATCH // 8 // options.recipe_images)
        for called, measure in ffcv_loader.contenders(folder / "images", work_dir, RECIPE_BATCH, epochs):
            contenders.append(("mae_modern", called, measure))
    for _ in range(options.recipe_rounds):  # in turn, so that other work on the machine meets all of them
        for recipe, storage, measure in contenders:
            speeds.setdefault((recipe, storage), []).append(measure())
    columns = ("one worker", "its core", "both cores", "no worker", f"device part, {device.type}")
    print(f"\n| recipe | storage | {' | '.join(columns)} |\n|---|---{'|---' * len(columns)}|")
    for (recipe, storage), measured in speeds.items():
        cells = []
        for column in columns:
            values = sorted(each[column] for each in measured if column in each)
            is_known = bool(values)
            cells.append(
                f"{values[len(values) // 2]:,.0f} ({values[0]:,.0f}–{values[-1]:,.0f})" if is_known else "–"
            )
        print(f"| {recipe} | {storage} | {' | '.join(cells)} |", flush=True)
    if not ffcv_loader.is_installed():
        print("\nFFCV is not installed here and was not timed.")
    return {
        f"{recipe}, {storage}": {
            column: [each[column] for each in measured if column in each] for column in columns
        }
        for (recipe, storage), measured in speeds.items()
    }


def time_loader(table: Any, collate: Any, batches: int, device: torch.device) -> dict[str, float]:
    """Images a second by column of the table.

    "one worker" is by the clock, all others by processor time: "its core" is the worker's, "both cores" the
    worker's and that of the process that receives. Beside a GPU that one copies torchvision's batches once
    more, into pinned memory, and does so here. Ours it receives into pinned memory, and here into its own.

    Args:
        table: a RadiographDataset or a torchvision data set.
        collate: None for a torchvision data set.
        batches: how many are timed.
        device: does the batch's part.
    """
    sampler = KeyedSampler(len(table), seed=0) if collate is not None else torch.randperm(len(table)).tolist()
    is_pinned = device.type == "cuda"
    if collate is not None:
        collate = replace(collate, pin_memory=is_pinned)
    loader = DataLoader(
        table, RECIPE_BATCH, sampler=sampler, num_workers=1, persistent_workers=True, drop_last=True,
        collate_fn=collate, pin_memory=is_pinned,
    )  # fmt: skip
    stream = iter(chain.from_iterable(repeat(loader)))
    page = torch.empty(RECIPE_BATCH * 512 * 512, dtype=torch.uint8)
    for _ in range(4):
        batch = next(stream)
    [started_one] = multiprocessing.active_children()
    worker = psutil.Process(started_one.pid)
    before, started = (sum(worker.cpu_times()[:2]), time.process_time()), time.perf_counter()
    for _ in range(batches):
        batch = next(stream)
        if collate is None and not is_pinned:
            page[: batch[0].numel()].copy_(batch[0].flatten())
    seconds = time.perf_counter() - started
    own = max(sum(worker.cpu_times()[:2]) - before[0], 0.01)  # counted by ticks
    received = time.process_time() - before[1]
    images = batches * RECIPE_BATCH
    speeds = {"one worker": images / seconds, "its core": images / own}
    speeds["both cores"] = images / (own + received)
    del stream, loader
    if collate is None:
        return speeds
    keys = list(islice(iter(sampler), RECIPE_BATCH))
    few = max(1, batches // 4)
    started = time.process_time()
    for _ in range(few):
        collate(table.__getitems__(keys))
    speeds["no worker"] = few * RECIPE_BATCH / (time.process_time() - started)
    speeds[f"device part, {device.type}"] = RECIPE_BATCH / device_seconds(table, batch, device)
    return speeds


def device_seconds(table: RadiographDataset, batch: dict[str, Any], device: torch.device) -> float:
    """How long a batch of bytes takes to become the model's input: of processor time, or of a GPU's.

    Args:
        table: says how.
        batch: on the CPU; a GPU's copy is no part of the time.
        device: does it.
    """
    if device.type != "cuda":
        started = time.process_time()
        table.preprocessing.model_inputs(batch)
        return time.process_time() - started
    there = {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    table.preprocessing.model_inputs(dict(there))
    begin.record()
    for _ in range(10):
        table.preprocessing.model_inputs(dict(there))
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / 10


def main() -> None:
    """Print the four tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2048, help="built and read for the speeds; 0 for none")
    parser.add_argument("--batches", type=int, default=64, help="read by each loader; raw files: an eighth")
    parser.add_argument("--raw", type=Path, help="a folder whose first images are used instead of phantoms")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--recipe_images", type=int, default=2048, help="read by the modern recipes; 0: none")
    parser.add_argument("--recipe_rounds", type=int, default=7, help="of the modern recipes")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of the batch's part")
    parser.add_argument("--json", type=Path, help="write the modern recipes' figures here")
    options = parser.parse_args()
    shutil.rmtree(options.work_dir, ignore_errors=True)
    given = sorted(options.raw.rglob("*.png"), key=lambda path: -path.stat().st_size) if options.raw else []
    torch.set_num_threads(1)  # of the main process, so that it is one core where workers are 0
    if options.recipe_images:
        figures = measure_recipes(options, given, torch.device(options.device))
        if options.json:
            options.json.write_text(json.dumps(figures), encoding="utf-8")
    if options.images:
        measure_speed(options.work_dir, options.images, options.batches, given)
    if options.memory:
        print("\n| images built at 256 | peak memory, MiB | seconds |\n|---|---|---|")
    for images in options.memory:
        small = write_raw(options.work_dir / f"raw-{images}", images, 256, given)
        seconds, mib = build(small, options.work_dir / "out", 2)
        print(f"| {images:,} | {mib:.0f} | {seconds:.0f} |", flush=True)


def measure_speed(work_dir: Path, count: int, batches: int, given: list[Path]) -> None:
    """Print how fast `count` images are built, and how fast `batches` of 32 are read."""
    raw = write_raw(work_dir / "raw", count, 1024, given)
    print("| build at 256 from 1024x1024 PNG | images/s |\n|---|---|")
    for num_proc in (1, 2):
        speed = count / build(raw, work_dir / "out", num_proc)[0]
        print(f"| ours, {num_proc} processes | {speed:.0f} |", flush=True)
        peer = rate(count, lambda n=num_proc: build_with_imagefolder(raw, work_dir / "peer", n))
        print(f"| imagefolder + map + to_parquet, {num_proc} processes | {peer:.0f} |", flush=True)

    built = {compression: work_dir / compression for compression in ("fast", "none")}
    for compression, out in built.items():
        build(raw, out, 2, compression)
        size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
        print(f"\n{compression}: {size / count / 1000:.1f} KB an image", end="")
    print("\n\n| loader at 224 | workers | images/s |\n|---|---|---|")
    for workers in (0, 1, 2):
        for name, loader in loaders(raw, built, work_dir / "hf", workers).items():
            consume(islice(loader, 1))  # opens the files and starts the workers
            timed = max(1, batches // 8) if "raw" in name else batches  # the raw files take so much longer
            again = chain.from_iterable(repeat(loader))  # epoch after epoch
            speed = rate(BATCH * timed, lambda many=again, n=timed: consume(islice(many, n)))
            print(f"| {name} | {workers} | {speed:.0f} |", flush=True)
    for compression, out in built.items():
        rows = load_dataset(str(out), split="train", cache_dir=str(work_dir / "hf" / compression))
        png = [row["bytes"] for row in rows.cast_column("image", ImageFeature(decode=False))["image"]]
        speed = rate(
            count, lambda all_bytes=png: [to_tensor(Image.open(io.BytesIO(each))) for each in all_bytes]
        )
        print(f"| {compression}: decode + crop + tensor alone, one core | – | {speed:.0f} |")


if __name__ == "__main__":
    main()
