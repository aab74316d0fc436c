"""From PNG bytes to probabilities on a CPU: ours, onnxruntime, the stock pipeline, and a DenseNet-121.

Stands beside the project; nothing imports it. One folder with Hiera-tiny's geometry at 224 pixels and random
weights is opened by all but the DenseNet, their probabilities are compared before anything is timed,
and rounds go over the contenders in turn, so that a slow moment of the machine falls on all.

    python -m benchmarks.inference --json runs/inference.json
    python -m benchmarks.inference --rounds 3 --batch-sizes 1 --pixels 256

- ours: the fast class and our preprocessing, as predict.py uses them (`Classifier`).
- onnxruntime: the same preprocessing, the graph that onnx_export.py writes; its CPU kernels know no bf16.
- pipeline: transformers' own `pipeline("image-classification")`, told nothing but the type of the weights.
- densenet121: torchxrayvision's, random weights, its documented preprocessing (`XRayCenterCrop`,
  `XRayResizer(224)`); speed only. Without the package it is torchvision's model behind our preprocessing, and
  the table says so. `pip install ".[bench]"`.

Images are phantom chests of --pixels a side, written as PNG by Pillow (ChestX-ray14's own are 1024).
"""

import argparse
import importlib.util
import io
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from PIL import Image
from transformers import pipeline

from benchmarks.model_throughput import machine
from dataset_scripts.findings import FINDINGS
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph
from medhiera.data.preprocessing import Preprocessing
from medhiera.inference.classifier import Classifier
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AGREEMENT = {"fp32": 5e-3, "bf16": 3e-2}
"""Probabilities from the pipeline's; fp32 leaves room for the rounding of resized RGB bytes."""
REFERENCE = "pipeline"
Answer = npt.NDArray[np.floating]
Contender = Callable[[Sequence[bytes]], Answer]


@dataclass
class Result:
    """What one contender did at one batch size.

    Attributes:
        contender: a key of `build`.
        precision: "fp32" or "bf16".
        batch: images a call.
        seconds: of each timed call; the same place in every list is the same round.
    """

    contender: str
    precision: str
    batch: int
    seconds: list[float]


def write_model(folder: Path) -> None:
    """A stage-2 folder with random weights, Hiera-tiny at 224 pixels; the head says something."""
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size("tiny", num_labels=len(FINDINGS), problem_type=MULTI_LABEL)
    config.id2label = dict(enumerate(FINDINGS))
    config.label2id = {name: index for index, name in enumerate(FINDINGS)}
    model = HieraMAEForImageClassification(config)
    model.classifier.weight.data.normal_()  # or every probability would be one half, and agreement be cheap
    model.save_pretrained(folder)
    Preprocessing(224, 256, 0.5, 0.25).to_processor().save_pretrained(folder)


def draw_images(count: int, pixels: int) -> list[bytes]:
    """Phantom chests as the bytes of PNG files."""
    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        body = draw_body(random, is_female=index % 2 == 0)
        film = draw_radiograph(body, ["Effusion"] if index % 3 == 0 else [], pixels, random)
        buffer = io.BytesIO()
        Image.fromarray(film.pixels).save(buffer, "png")
        files.append(buffer.getvalue())
    return files


def _opened(files: Sequence[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(content)) for content in files]


def build_ours(folder: Path, dtype: torch.dtype) -> Contender:
    """The fast class and our preprocessing."""
    classifier = Classifier.from_pretrained(folder)
    classifier.model.to(dtype)
    return lambda files: classifier.probabilities(_opened(files)).numpy()


def build_onnx(folder: Path, dtype: torch.dtype) -> Contender | None:
    """The exported graph by onnxruntime, our preprocessing."""
    if dtype is not torch.float32:
        return None
    import onnxruntime

    from medhiera.inference.onnx_export import export_onnx

    file = folder / "model.onnx"
    export_onnx(folder, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    preprocessing = Classifier.from_pretrained(folder).preprocessing

    def answer(files: Sequence[bytes]) -> Answer:
        batch = preprocessing.pixel_values(_opened(files)).contiguous().numpy()
        return session.run(["probabilities"], {"pixel_values": batch})[0]

    return answer


def build_pipeline(folder: Path, dtype: torch.dtype) -> Contender:
    """Stock transformers, nothing of ours."""
    classify = pipeline("image-classification", str(folder), dtype=dtype, top_k=len(FINDINGS))

    def answer(files: Sequence[bytes]) -> Answer:
        rows = classify(_opened(files), batch_size=len(files))
        scores = [{row["label"]: row["score"] for row in image} for image in rows]
        return np.array([[image[name] for name in FINDINGS] for image in scores])

    return answer


def build_densenet(folder: Path, dtype: torch.dtype) -> Contender:
    """DenseNet-121, random weights: torchxrayvision's with its preprocessing, or torchvision's with ours."""
    torch.manual_seed(0)
    try:
        import torchxrayvision
    except ImportError:
        model = torchvision.models.densenet121(num_classes=len(FINDINGS)).eval().to(dtype)
        preprocessing = Classifier.from_pretrained(folder).preprocessing

        def prepare(files: Sequence[bytes]) -> torch.Tensor:
            return preprocessing.pixel_values(_opened(files))
    else:
        model = torchxrayvision.models.DenseNet(weights=None, apply_sigmoid=False).eval().to(dtype)
        transform = torchvision.transforms.Compose(
            [torchxrayvision.datasets.XRayCenterCrop(), torchxrayvision.datasets.XRayResizer(224)]
        )

        def prepare(files: Sequence[bytes]) -> torch.Tensor:
            scaled = (torchxrayvision.datasets.normalize(np.array(i), 255)[None] for i in _opened(files))
            return torch.from_numpy(np.stack([transform(image) for image in scaled]))

    @torch.inference_mode()
    def answer(files: Sequence[bytes]) -> Answer:
        return model(prepare(files).to(dtype)).float().sigmoid().numpy()

    return answer


BUILDERS: dict[str, Callable[[Path, torch.dtype], Contender | None]] = {
    "ours": build_ours,
    "onnxruntime": build_onnx,
    "pipeline": build_pipeline,
    "densenet121": build_densenet,
}


def build(folder: Path, names: Sequence[str], precisions: Sequence[str]) -> dict[tuple[str, str], Contender]:
    """Every contender in every precision that it has, by (name, precision)."""
    contenders = {}
    for precision in precisions:
        for name in names:
            contender = BUILDERS[name](folder, DTYPES[precision])
            if contender is not None:
                contenders[name, precision] = contender
    return contenders


def check_agreement(contenders: dict[tuple[str, str], Contender], files: Sequence[bytes]) -> None:
    """Refuse to time models that do not say the same.

    Raises:
        SystemExit: a Hiera's probabilities are not the pipeline's of the same precision.
    """
    for (name, precision), contender in contenders.items():
        wanted_by = contenders.get((REFERENCE, precision))
        if name == "densenet121" or wanted_by is None:
            continue
        difference = float(np.abs(contender(files) - wanted_by(files)).max())
        if not difference <= AGREEMENT[precision]:
            raise SystemExit(
                f"{name} in {precision} gives probabilities {difference:.1e} from the pipeline's, wanted at "
                f"most {AGREEMENT[precision]:.0e}: not comparable"
            )
        sys.stderr.write(f"{name} {precision}: largest difference from the pipeline {difference:.1e}\n")


def measure(
    contenders: dict[tuple[str, str], Contender], files: Sequence[bytes], batch: int, rounds: int
) -> list[Result]:
    """Time every contender in turn, after one call each that is not timed.

    Args:
        contenders: from `build`.
        files: PNG bytes, at least `batch`; a round takes the next ones.
        batch: images a call.
        rounds: timed calls of each.
    """
    results = {key: Result(*key, batch, []) for key in contenders}
    for number in range(-1, rounds):
        begin = (number + 1) * batch % (len(files) - batch + 1)
        for key, contender in contenders.items():
            started = time.perf_counter()
            contender(files[begin : begin + batch])
            if number >= 0:
                results[key].seconds.append(time.perf_counter() - started)
    return list(results.values())


HEADER = (
    "| batch | type | contender | ms a call (fastest–slowest) | images/s | to the pipeline, by round |\n"
    "|---|---|---|---|---|---|"
)


def table(results: Sequence[Result]) -> str:
    """Lines of a Markdown table; the ratio is the pipeline's time to this one's, medians of rounds."""
    stock = {result.precision: result.seconds for result in results if result.contender == REFERENCE}
    lines = []
    for result in sorted(results, key=lambda r: (r.precision, statistics.median(r.seconds))):
        median = statistics.median(result.seconds)
        ratio = "–"
        if result.precision in stock:
            pairs = sorted(a / b for a, b in zip(stock[result.precision], result.seconds, strict=True))
            ratio = f"{statistics.median(pairs):.2f} ({pairs[0]:.2f}–{pairs[-1]:.2f})"
        times = f"{median * 1e3:.0f} ({min(result.seconds) * 1e3:.0f}–{max(result.seconds) * 1e3:.0f})"
        lines.append(
            f"| {result.batch} | {result.precision} | {result.contender} | {times} "
            f"| {result.batch / median:.1f} | {ratio} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--contenders", nargs="+", default=list(BUILDERS), choices=list(BUILDERS))
    parser.add_argument("--pixels", type=int, default=1024, help="side of the images")
    parser.add_argument(
        "--rounds", type=int, default=9, help="of each batch size; at batch 1 three times that"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(
        logging.ERROR
    )  # the pipeline suggests a Dataset after ten calls

    facts = machine(torch.device("cpu"))
    has_xray = "densenet121" not in options.contenders or _has_torchxrayvision()
    densenet = "torchxrayvision's" if has_xray else "torchvision's: torchxrayvision is not installed"
    files = draw_images(max(options.batch_sizes) + 4, options.pixels)
    everything: list[Result] = []
    with tempfile.TemporaryDirectory() as place:
        write_model(Path(place))
        contenders = build(Path(place), options.contenders, options.precisions)
        check_agreement(contenders, files[:4])
        sys.stdout.write(
            f"{facts['name']}, {facts['threads']} threads, {facts['capability']}; {facts['versions']}; "
            f"PNGs of {options.pixels}×{options.pixels}; densenet121 is {densenet}\n\n{HEADER}\n"
        )
        for batch in options.batch_sizes:
            rounds = 3 * options.rounds if batch == 1 else options.rounds
            results = measure(contenders, files, batch, rounds)
            sys.stdout.write(f"{table(results)}\n")
            sys.stdout.flush()
            everything += results
            if options.json:
                about = {"machine": facts, "pixels": options.pixels, "densenet121": densenet}
                write_json(options.json, about, everything)


def write_json(file: Path, facts: dict[str, Any], results: Sequence[Result]) -> None:
    """Every figure so far: an hour's run that is ended keeps what it has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = facts | {"results": [asdict(result) for result in results]}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _has_torchxrayvision() -> bool:
    return importlib.util.find_spec("torchxrayvision") is not None


if __name__ == "__main__":
    main()
