"""A stage's folder, opened for the page: what it finds, where it looks, what it fills in, what it writes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dataset_scripts.mistyped import no_folder
from dataset_scripts.reading.grayscale import GrayImage
from medhiera.data.preprocessing import CenterCrop, Preprocessing
from medhiera.device import CPU
from medhiera.errors import UserError, one_line
from medhiera.hub.operation import Finding, Operation
from medhiera.hub.record import PretrainingRecord, read_record
from medhiera.inference.classifier import Classifier
from medhiera.inference.heat_maps import heat_maps
from medhiera.inference.reconstruction import Reconstruction, reconstruct
from medhiera.inference.report_writer import ReportWriter
from medhiera.layout import CONFIG_FILE, read_config, writes_reports
from medhiera.loading import load_model, load_processor
from modeling_hiera_mae import HieraMAEForPreTraining


@dataclass(frozen=True)
class ChestReader:
    """A stage-2 folder: findings and where they are seen."""

    classifier: Classifier
    operation: Operation

    def findings(self, gray: GrayImage) -> list[Finding]:
        """Every finding of a picture, the most likely first.

        Args:
            gray: (height, width), uint8.
        """
        classifier = self.classifier
        [scores] = classifier.probabilities([Image.fromarray(gray)]).tolist()
        rows = self.operation.findings(classifier.names, scores, classifier.is_exclusive)
        return sorted(rows, key=lambda row: -row.probability)

    def heat(self, gray: GrayImage, name: str) -> npt.NDArray[np.float32]:
        """Heat map of a finding: (image_size, image_size), 0…1, over the model's input."""
        classifier = self.classifier
        pixels = classifier.pixel_values([classifier.preprocessing.pixels(Image.fromarray(gray))])
        heat: npt.NDArray[np.float32] = heat_maps(classifier.model, pixels)[
            0, classifier.names.index(name)
        ].numpy()
        return heat

    @property
    def crop(self) -> CenterCrop:
        """Which part of a picture the model sees."""
        crop = self.classifier.preprocessing.crop
        assert crop is not None  # open_folder refuses such a folder
        return crop


@dataclass(frozen=True)
class MaskedReader:
    """A stage-1 folder: what the masked autoencoder fills in."""

    model: HieraMAEForPreTraining
    preprocessing: Preprocessing
    operation: Operation

    def fill_in(self, gray: GrayImage, mask_ratio: float, seed: int) -> Reconstruction:
        """Hide part of a picture and reconstruct it.

        Args:
            gray: (height, width), uint8.
            mask_ratio: share of mask units to hide, strictly between 0 and 1.
            seed: which units.
        """
        pixels = self.preprocessing.pixel_values([Image.fromarray(gray)], self.model.config.num_channels)
        units = np.prod(
            [side // unit for side, unit in zip(pixels.shape[2:], self.model.config.unit_pixels, strict=True)]
        )
        noise = torch.rand(1, int(units), generator=torch.Generator().manual_seed(seed))
        return reconstruct(self.model, pixels, self.preprocessing, noise, mask_ratio)


@dataclass(frozen=True)
class WritingReader:
    """A stage-2 folder that writes reports."""

    writer: ReportWriter
    operation: Operation

    def report(self, gray: GrayImage) -> str:
        """What the model writes of one picture; see ReportWriter.write.

        Args:
            gray: (height, width), uint8.
        """
        [written] = self.writer.write([[self.writer.preprocessing.pixels(Image.fromarray(gray))]])
        return written

    @property
    def crop(self) -> CenterCrop:
        """Which part of a picture the model sees."""
        return self.writer.preprocessing.crop


Reader = ChestReader | MaskedReader | WritingReader


def open_folder(folder: Path, device: torch.device = CPU) -> Reader:
    """Open what `make demo`, train_cls.py, train_report.py or train_mae.py left.

    Args:
        folder: a stage 1 or 2.
        device: where its model is to run.

    Raises:
        UserError: there is no such folder, or it holds no stage; one sentence.
    """
    if not (folder / CONFIG_FILE).is_file():
        fault = "it holds no model (no config.json)" if folder.exists() else no_folder(folder)
        raise UserError(
            f"{folder}: {fault}; name a folder that `medhiera train-mae`, `train-cls` or `train-report` "
            "wrote, or make one by `medhiera demo` (in a clone: make demo, then make app)"
        )
    if writes_reports(folder):
        return WritingReader(ReportWriter.open(folder, device), Operation.read(folder))
    architectures = read_config(folder).get("architectures") or []
    operation = Operation.read(folder)
    if not any(name.endswith("ForPreTraining") for name in architectures):
        classifier = Classifier.from_pretrained(folder, device)
        if classifier.preprocessing.crop is None:
            raise UserError(
                f"{folder} does not crop the middle of what it resizes (preprocessor_config.json): this page "
                "could not show which part of a picture the model sees; set do_center_crop there"
            )
        return ChestReader(classifier, operation)
    record = read_record(folder)
    if isinstance(record, PretrainingRecord) and record.evaluation.target == "features":
        raise UserError(
            f"{folder} learned a teacher's features and no pixels, so there is nothing to fill in; "
            "open a classifier trained from it, or a stage 1 with target: pixels or both"
        )
    model, _ = load_model(HieraMAEForPreTraining, folder)
    processor = load_processor(folder)
    try:
        preprocessing = Preprocessing.from_processor(processor)
    except ValueError as error:
        raise UserError(f"{folder} cannot be used: {one_line(error)}") from error
    return MaskedReader(model.to(device), preprocessing, operation)
