"""Which way of stretching position embeddings keeps more of the masked loss at a larger size.

Stands beside the project; nothing imports it. A trained stage-1 folder looks at the same images at its own
size and at larger ones, under the same masks, once with every position stretched ("bicubic", as in stock
transformers) and once with what repeats in every mask unit tiled ("windowed", arXiv:2311.05613).

    python -m benchmarks.position_interpolation demo/phantom/stage1 demo/phantom/raw/ChestXray-NIHCC
    python -m benchmarks.position_interpolation STAGE1 FOLDER_OF_IMAGES --sizes 224 512 --images 128
"""

import argparse
import math
import statistics
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor

from dataset_scripts.reading.image_files import IMAGE_SUFFIXES
from dataset_scripts.reading.images import read_image
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.seeding import derive_seed
from modeling_hiera_mae import HieraMAEForPreTraining


@torch.inference_mode()
def losses(
    model: HieraMAEForPreTraining, paths: list[Path], trained: Preprocessing, side: int
) -> list[float]:
    """Masked loss of each image at one size; the mask depends on the image and the size alone.

    Args:
        model: in evaluation mode.
        paths: image files.
        trained: the preprocessing at the model's own size; its resize follows the side.
        side: height and width in pixels.
    """
    resize = round(trained.resize_size * side / trained.image_size)
    preprocessing = Preprocessing(side, resize, trained.mean, trained.std)
    found = []
    for path in paths:
        pixels = preprocessing.normalize(preprocessing.pixels(Image.fromarray(read_image(path)))[None])
        generator = torch.Generator().manual_seed(derive_seed(0, side, path.name, "mask"))
        units = math.prod(side // unit for unit in model.config.unit_pixels)
        noise = torch.rand(1, units, generator=generator)
        found.append(float(model(pixels, noise=noise, mask_ratio=0.6, output_logits=False).loss))
    return found


def main() -> None:
    """Print one line a size and way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a stage-1 folder")
    parser.add_argument("folder", type=Path, help="images; searched through")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--images", type=int, default=64, help="the largest so many files")
    options = parser.parse_args()
    paths = [path for path in options.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    paths = sorted(sorted(paths, key=lambda path: -path.stat().st_size)[: options.images])
    if not paths:
        sys.exit(f"no image in {options.folder}")
    trained = Preprocessing.from_processor(
        AutoImageProcessor.from_pretrained(options.model, trust_remote_code=False)
    )
    sys.stdout.write(f"{options.model}, trained at {trained.image_size} px; {len(paths)} images\n\n")
    sys.stdout.write("| size | bicubic | windowed | images that prefer windowed |\n|---|---|---|---|\n")
    for side in options.sizes:
        by_way = {}
        for way in ("bicubic", "windowed"):
            model = HieraMAEForPreTraining.from_pretrained(options.model, position_interpolation=way).eval()
            by_way[way] = losses(model, paths, trained, side)
        better = sum(w < b for b, w in zip(by_way["bicubic"], by_way["windowed"], strict=True))
        means = " | ".join(f"{statistics.mean(by_way[way]):.4f}" for way in ("bicubic", "windowed"))
        sys.stdout.write(f"| {side} | {means} | {better} of {len(paths)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
