"""How fast data is built and read, and how much memory a build takes.

    python benchmarks/data_throughput.py --work_dir build/throughput
    python benchmarks/data_throughput.py --work_dir build/throughput --images 64 --memory 200 400

Raw images are phantom chests at 1024x1024, repeated under other names. Built data is Parquet at 256. Loaders
crop 224 and make tensors. Nothing is downloaded.
"""

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Image as ImageFeature
from datasets import load_dataset
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchImageFolder
from torchvision.transforms import v2

from dataset_scripts import ImageFolder
from dataset_scripts.parquet_export import export_parquet
from dataset_scripts.phantom_anatomy import draw_body
from dataset_scripts.phantom_findings import draw_radiograph

DIFFERENT = 16  # drawn chests; the rest are copies

MEASURE_BUILD = """
import resource, sys
from pathlib import Path
from dataset_scripts import ImageFolder
from dataset_scripts.parquet_export import export_parquet
raw, out = Path(sys.argv[1]), Path(sys.argv[2])
export_parquet(ImageFolder(data_dir=raw, cache_dir=out.parent / "cache", image_size=256), out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_raw(root: Path, images: int, side: int) -> Path:
    """Write `images/` and `labels.csv`; every picture after the first few is a hard link."""
    folder = root / "images"
    folder.mkdir(parents=True)
    for index in range(images):
        path = folder / f"{index:06d}.png"
        if index >= DIFFERENT:
            os.link(folder / f"{index % DIFFERENT:06d}.png", path)
            continue
        rng = np.random.default_rng(index)
        pixels = draw_radiograph(draw_body(rng, is_female=False), (), side, rng).pixels
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "split", "mass"])
        writer.writerows([f"{index:06d}.png", "train", index % 2] for index in range(images))
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


def build(raw: Path, out: Path, num_proc: int) -> None:
    """Export to Parquet at 256, from nothing."""
    shutil.rmtree(out, ignore_errors=True)
    export_parquet(ImageFolder(data_dir=raw, cache_dir=out.parent / "cache", image_size=256), out, num_proc)


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
    """Crop the centre from an image of 256 or more."""
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    gray = np.asarray(image.crop((left, top, left + 224, top + 224)).convert("L"))
    return torch.from_numpy(gray.copy()).unsqueeze(0).expand(3, -1, -1)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 10_000])
    options = parser.parse_args()
    shutil.rmtree(options.work_dir, ignore_errors=True)
    raw = write_raw(options.work_dir / "raw", options.images, 1024)
    out = options.work_dir / "out"
    count = options.images

    print("| build at 256 from 1024x1024 PNG | images/s |\n|---|---|")
    for num_proc in (1, 2):
        speed = rate(count, lambda n=num_proc: build(raw, out, n))
        print(f"| ours, {num_proc} processes | {speed:.0f} |", flush=True)
        peer = rate(count, lambda n=num_proc: build_with_imagefolder(raw, options.work_dir / "peer", n))
        print(f"| imagefolder + map + to_parquet, {num_proc} processes | {peer:.0f} |", flush=True)

    print("\n| loader at 224 | workers | images/s |\n|---|---|---|")
    whole = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    folder = TorchImageFolder(str(raw), transform=whole)
    local = load_dataset(str(out), split="train", cache_dir=str(options.work_dir / "hf"))
    local = local.select_columns("image")
    streamed = load_dataset(str(out), split="train", streaming=True).select_columns("image")
    for workers in (0, 1, 2):
        sources = {
            "torchvision ImageFolder on the raw files": DataLoader(folder, 32, num_workers=workers),
            "built, local": DataLoader(local.with_transform(tensors), 32, num_workers=workers),
            "built, streaming": DataLoader(
                streamed.map(tensors, batched=True, batch_size=32, remove_columns="image"),
                32,
                num_workers=workers,
            ),
        }
        for name, loader in sources.items():
            speed = rate(count, lambda source=loader: consume(source))
            print(f"| {name} | {workers} | {speed:.0f} |", flush=True)
    png = [row["bytes"] for row in local.cast_column("image", ImageFeature(decode=False))["image"]]
    speed = rate(count, lambda: [to_tensor(Image.open(io.BytesIO(each))) for each in png])
    print(f"| decode + crop + tensor alone, one core | – | {speed:.0f} |")

    print("\n| images built | peak memory, MiB |\n|---|---|")
    for images in options.memory:
        small = write_raw(options.work_dir / f"raw-{images}", images, 256)
        command = [sys.executable, "-c", MEASURE_BUILD, str(small), str(options.work_dir / f"out-{images}")]
        done = subprocess.run(command, check=True, text=True, capture_output=True)
        print(f"| {images} | {float(done.stdout.splitlines()[-1]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
