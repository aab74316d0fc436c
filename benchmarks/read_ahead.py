"""What reading ahead buys `predict.py` and `evaluate_cls.py`: pictures a second with and without it.

Stands beside the project; nothing imports it. Files and rows are read, prepared and scored as the two scripts
do; "one after the other" does the same without threads. Rounds go over the variants in turn, so that a slow
moment of the machine falls on all.

    python -m benchmarks.read_ahead
    python -m benchmarks.read_ahead --images 64 --rounds 3 --device cuda

Two models: a tiny one, which waits for pictures as a GPU does, and Hiera-tiny at 224 pixels, random weights.
Two kinds of pictures: PNG files of 1024×1024 (phantom chests), as for `predict.py`, and rows of a built
dataset at 256 pixels, as for `evaluate_cls.py`.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from torch import Tensor

from benchmarks.inference import draw_images, write_model
from benchmarks.model_throughput import machine
from dataset_scripts.reading.images import read_image
from medhiera.command_line import add_device_option
from medhiera.data.preprocessing import Preprocessing
from medhiera.device import choose_device, describe
from medhiera.inference.classifier import Classifier
from medhiera.inference.read_ahead import read_ahead
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

BATCH = 16
DRAWN = 16
"""Different phantoms; the other files are copies."""
ALONE = "one after the other"
Reader = Callable[[int], Tensor]


def write_tiny(folder: Path) -> None:
    """A classifier that takes hardly any time."""
    config = HieraMAEConfig.from_size(
        "tiny", image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_labels=3, problem_type=MULTI_LABEL
    )
    HieraMAEForImageClassification(config).save_pretrained(folder)
    Preprocessing(64, 72, 0.5, 0.25).to_processor().save_pretrained(folder)


def readers(folder: Path, count: int, classifier: Classifier) -> dict[str, Reader]:
    """How the two scripts read their pictures, by name.

    Args:
        folder: empty; gets the files and the rows.
        count: how many pictures.
        classifier: says how they are prepared.
    """
    drawn = draw_images(DRAWN, 1024)
    rows = []
    for index in range(count):
        (folder / f"{index}.png").write_bytes(drawn[index % DRAWN])
        buffer = io.BytesIO()
        Image.open(io.BytesIO(drawn[index % DRAWN])).resize((256, 256)).save(buffer, "png")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    Dataset.from_dict({"image": rows}, Features({"image": ImageFeature()})).save_to_disk(folder / "rows")
    built = Dataset.load_from_disk(str(folder / "rows"))
    pixels = classifier.preprocessing.pixels
    return {
        "PNG 1024": lambda index: pixels(Image.fromarray(read_image(folder / f"{index}.png"))),
        "built 256": lambda index: pixels(built[index]["image"]),
    }


def batches_of(read: Reader, count: int, threads: int) -> Iterator[list[Tensor]]:
    """Batches as the scripts get them; without threads as they would be read in the loop itself."""
    if threads:
        yield from read_ahead(read, range(count), BATCH, threads)
        return
    for begin in range(0, count, BATCH):
        yield [read(index) for index in range(begin, min(begin + BATCH, count))]


def score_all(classifier: Classifier, batches: Iterator[list[Tensor]]) -> Tensor:
    """Every probability, in order."""
    return torch.cat([classifier.score(classifier.pixel_values(batch)) for batch in batches])


def measure(
    classifier: Classifier, read: Reader, count: int, threads: Sequence[int], rounds: int
) -> list[list[float]]:
    """Pictures a second by number of threads and round, after one round that is not timed.

    Raises:
        SystemExit: the variants do not give the same numbers.
    """
    wanted = score_all(classifier, batches_of(read, count, 0))
    rates: list[list[float]] = [[] for _ in threads]
    for number in range(-1, rounds):
        for place, some in enumerate(threads):
            started = time.perf_counter()
            found = score_all(classifier, batches_of(read, count, some))
            seconds = time.perf_counter() - started
            if not torch.equal(found, wanted):
                raise SystemExit(f"{some} threads give other probabilities: not comparable")
            if number >= 0:
                rates[place].append(count / seconds)
    return rates


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    add_device_option(parser)
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    facts = machine(device)
    sys.stdout.write(
        f"{facts['name']}, {describe(device)}; {facts['versions']}; {options.rounds} rounds\n\n"
        "| model | pictures | variant | images/s (slowest–fastest) | to one after the other, by round |\n"
        "|---|---|---|---|---|\n"
    )
    threads = [0, *options.threads]
    for model, write in (("tiny, 64 px", write_tiny), ("Hiera-tiny, 224 px", write_model)):
        with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as pictures:
            write(Path(place))
            classifier = Classifier.from_pretrained(place, device)
            for kind, read in readers(Path(pictures), options.images, classifier).items():
                rates = measure(classifier, read, options.images, threads, options.rounds)
                for some, own in zip(threads, rates, strict=True):
                    ratios = sorted(a / b for a, b in zip(own, rates[0], strict=True))
                    name = f"ahead, {some} threads" if some else ALONE
                    rate = f"{statistics.median(own):.1f} ({min(own):.1f}–{max(own):.1f})"
                    sys.stdout.write(
                        f"| {model} | {kind} | {name} | {rate} "
                        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) |\n"
                    )
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
