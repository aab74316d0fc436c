"""A classifier's folder or Hub id → one ONNX file that onnxruntime runs without PyTorch.

    python -m medhiera.inference.onnx_export runs/stage2 runs/stage2.onnx
    python -m medhiera.inference.onnx_export demo/phantom/stage2 demo.onnx

Needs the extra `onnx`. The graph takes `pixel_values` (batch, channels, height, width), float32,
already resized, cropped and normalized; the batch is free, the size is what `preprocessing` gives. It
gives `probabilities` (batch, labels), the model's own: the sigmoid (for labels that exclude each other the
softmax) is inside.
The file's metadata hold, as JSON, `labels` and `preprocessing`, and what the model's record says of its
probabilities: `calibration` (for each label slope and intercept, or null: calibrated = sigmoid(slope ×
logit(p) + intercept)) and `thresholds` (of the model's own probability, or null); as text `reading`, which
says so, `activation`, `model` and `notice`.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="a Hiera classifier's folder or Hub id, ours or stock")
    parser.add_argument("file", metavar="FILE.onnx", type=Path, help="the file to write")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from medhiera.errors import UserError
from medhiera.hub.operation import Operation
from medhiera.inference.classifier import NOTICE, Classifier
from medhiera.layout import public_name
from modeling_hiera_mae import HieraMAEForImageClassification

logger = logging.getLogger(__name__)


TOLERANCE = 1e-4
"""The largest difference in a probability that is accepted; float32 rounding alone gives about 1e-6."""

CHECKED_BATCHES = (1, 2, 5)

_LARGEST_FILE = 1_900_000_000
"""Bytes of weights above which they are written to FILE.onnx.data: a protobuf message holds at most 2 GiB."""


class _Probabilities(nn.Module):
    """The classifier with its activation: pixel_values → probabilities."""

    def __init__(self, model: HieraMAEForImageClassification, activation: str) -> None:
        super().__init__()
        self.model = model
        self.activation = activation

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits = self.model(pixel_values).logits
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=-1)


def export_onnx(source: str | Path, file: Path) -> float:
    """Export the graph, compare it with PyTorch, and only then move it to its name.

    Args:
        source: a Hiera classifier's folder or Hub id, ours or stock.
        file: the .onnx file to write; must not exist. Weights above 1.9 GB go to a .onnx.data beside it.

    Returns:
        The largest difference of a probability from PyTorch's, over batches of 1, 2 and 5.

    Raises:
        UserError: a package is missing, the file exists, or onnxruntime computes something else.
        UserError: the source is not a classifier or cannot be read.
    """
    _require_packages()
    for place in (file, file.with_name(f"{file.name}.data")):
        if place.exists():
            raise UserError(f"{place} exists; name another file, or remove it first")
    if file.suffix != ".onnx":
        raise UserError(f"{file} does not end in .onnx; name it {file.with_suffix('.onnx').name}")
    classifier = Classifier.from_pretrained(source)
    model, activation = classifier.model, "softmax" if classifier.is_exclusive else "sigmoid"
    metadata = {
        "labels": json.dumps(classifier.names),
        "preprocessing": classifier.preprocessing.to_processor().to_json_string(),
        "activation": activation,
        **_reading(source, classifier),
        "model": public_name(source),
        "notice": NOTICE,
    }
    example = classifier.pixel_values([classifier.preprocessing.pixels(Image.new("L", (256, 256)))])
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as scratch:
        written = Path(scratch) / file.name
        _write(_Probabilities(model, activation), example, written, metadata)
        difference = largest_difference(model, activation, written)
        if not difference <= TOLERANCE:
            raise UserError(
                f"onnxruntime's probabilities differ from PyTorch's by {difference:.1e}, wanted at most "
                f"{TOLERANCE:.0e}; nothing was written. Please report it with the versions of torch and onnx"
            )
        for part in sorted(Path(scratch).iterdir(), reverse=True):  # weights first
            os.replace(part, file.parent / part.name)
    return difference


READING = (
    "The output `probabilities` is the model's own. Calibrated, where `calibration` has numbers for a label: "
    "sigmoid(slope * log(p / (1 - p)) + intercept). A finding is called present where the model's own "
    "probability, not the calibrated one, is at least its number in `thresholds`; null where there is none."
)


def _reading(source: str | Path, classifier: Classifier) -> dict[str, str]:
    """How the probabilities are to be read, from the record of the model.

    Raises:
        UserError: the record is damaged, or cannot be fetched.
    """
    operation = Operation.none() if classifier.is_exclusive else Operation.find(source, is_kept=True)
    fits = {name: operation.rescaling.get(name) for name in classifier.names}
    return {
        "calibration": json.dumps({name: None if fit is None else asdict(fit) for name, fit in fits.items()}),
        "thresholds": json.dumps({name: operation.thresholds.get(name) for name in classifier.names}),
        "reading": READING,
    }


@torch.no_grad()
def largest_difference(
    model: HieraMAEForImageClassification,
    activation: str,
    file: Path,
    batches: Iterable[int] = CHECKED_BATCHES,
) -> float:
    """Run the file and the model on the same random pixels and compare.

    Args:
        model: the source of the file, in evaluation mode.
        activation: "sigmoid" or "softmax".
        file: the .onnx file.
        batches: batch sizes to try.

    Returns:
        The largest difference of a probability; NaN where one of them is NaN.

    Raises:
        UserError: the graph does not run at one of the batch sizes.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[1:]
    generator = torch.Generator().manual_seed(0)
    largest = torch.tensor(0.0)
    for batch in batches:
        pixels = torch.randn(batch, *shape, generator=generator)
        wanted = _Probabilities(model, activation)(pixels)
        try:
            found = torch.from_numpy(session.run(["probabilities"], {"pixel_values": pixels.numpy()})[0])
        except Exception as error:  # onnxruntime's classes derive from Exception and nothing narrower
            raise UserError(f"the graph does not run at batch {batch}: {error}") from error
        if found.shape != wanted.shape:
            raise UserError(
                f"the graph gives {tuple(found.shape)} at batch {batch}, not {tuple(wanted.shape)}"
            )
        largest = torch.maximum(largest, (found - wanted).abs().max())  # Python's max would drop a NaN
    return largest.item()


def _require_packages() -> None:
    absent = [
        name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None
    ]
    if absent:
        raise UserError(
            f"the export needs {', '.join(absent)}, not installed: pip install '.[onnx]' in the clone, "
            "'medhiera[onnx]' where it is installed, "
            f"or pip install {' '.join(absent)} -c constraints.txt"
        )


def _write(module: _Probabilities, example: Tensor, file: Path, metadata: dict[str, str]) -> None:
    """Trace the plain path (modeling_hiera_mae/fused_linear.py does not fuse for exporters) and save it.

    Args:
        module: what is traced.
        example: (1, channels, height, width), of the size that images are prepared to.
        file: to write.
        metadata: of the file.
    """
    example = example.new_zeros(2, *example.shape[1:])  # a batch of 1 would be taken as fixed
    weights = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=["pixel_values"],
            output_names=["probabilities"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # without a file, it returns the program
        _forget_origin(program.model)
        program.model.metadata_props.update(metadata)
        program.save(str(file), external_data=weights > _LARGEST_FILE)


def _forget_origin(model: Any) -> None:
    """Drop the exporter's notes: they name the source lines of each node, with paths of this machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        difference = export_onnx(options.model, options.file)
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    batches = ", ".join(str(batch) for batch in CHECKED_BATCHES)
    logger.info(
        "%s (%.0f MB); largest difference from PyTorch %.1e (batches %s)",
        options.file, options.file.stat().st_size / 1e6, difference, batches,
    )  # fmt: skip


if __name__ == "__main__":
    main()
