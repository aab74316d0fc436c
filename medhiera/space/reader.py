"""A stage's folder, opened for the page: what it finds, where it looks, what it fills in, what it writes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dataset_scripts.reading.grayscale import GrayImage
from medhiera.data.preprocessing import CenterCrop, Preprocessing
from medhiera.device import CPU
from medhiera.errors import UserError, one_line
from medhiera.evaluation.calibration import rescale
from medhiera.evaluation.pointing_game import LocalizationReport, Verdict
from medhiera.evaluation.results import Rescaling
from medhiera.hub.record import ClassificationRecord, PretrainingRecord, read_record
from medhiera.inference.classifier import Classifier
from medhiera.inference.heat_maps import METHOD, heat_maps
from medhiera.inference.reconstruction import Reconstruction, reconstruct
from medhiera.inference.report_writer import ReportWriter
from medhiera.layout import CONFIG_FILE, read_config, writes_reports
from medhiera.loading import load_model, load_processor
from modeling_hiera_mae import HieraMAEForPreTraining

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Finding:
    """One row of the result: a probability in 0…1 and the threshold it is held against.

    Attributes:
        name: of the finding.
        probability: that it is there.
        threshold: None where each image has exactly one of the labels, and the most probable is called.
        is_most_probable: of all.
    """

    name: str
    probability: float
    threshold: float | None
    is_most_probable: bool = False

    @property
    def is_above(self) -> bool:
        """Whether the threshold is reached; without one, whether it is the label that is called."""
        return self.is_most_probable if self.threshold is None else self.probability >= self.threshold


@dataclass(frozen=True)
class Operation:
    """How probabilities are to be read, from the folder's metrics.json.

    Attributes:
        thresholds: of the model's own probabilities, by finding; empty where the folder holds none.
        rescaling: of probabilities, by finding, as calibration.rescale takes it; None where it has none.
        is_demo: a smoke run, or one on phantoms.
        pointing_game: how often the model's heat maps hit boxes; None where the folder holds no record.
    """

    thresholds: dict[str, float]
    rescaling: dict[str, Rescaling | None]
    is_demo: bool
    pointing_game: LocalizationReport | None = None

    @classmethod
    def read(cls, folder: Path) -> "Operation":
        """Read what evaluation on a validation split left: `operating_points` (Youden's) and `rescaling`."""
        record = read_record(folder)
        is_demo = record is not None and (record.kind == "smoke" or record.is_phantom)
        if not isinstance(record, ClassificationRecord):
            return cls({}, {}, is_demo)
        points = record.evaluation.operating_points.findings
        return cls(
            {name: point.youden.threshold for name, point in points.items() if point.youden},
            record.evaluation.rescaling,
            is_demo,
            record.evaluation.pointing_game,
        )

    def calibrate(self, name: str, probability: float) -> float:
        """Rescale a probability, or a threshold alike, as the model's own evaluation found it best."""
        return float(rescale(np.array([[probability]]), self.rescaling, [name]).item())

    def notes(self, names: list[str], is_exclusive: bool = False) -> list[str]:
        """Say how thresholds and probabilities came about.

        Args:
            names: of the labels.
            is_exclusive: each image has exactly one of them.
        """
        if is_exclusive:
            return [
                "Each image has exactly one of these labels: probabilities sum to 1, and the largest is "
                "called. They are uncalibrated."
            ]
        calibrated = sum(self.rescaling.get(name) is not None for name in names)
        with_threshold = sum(name in self.thresholds for name in names)
        if calibrated == len(names):
            first = "Probabilities are calibrated, by the model's own record."
        elif calibrated:
            first = f"Probabilities of {calibrated} of {len(names)} findings are calibrated, the others not."
        else:
            first = "Probabilities are uncalibrated: the model's folder holds no calibration."
        if with_threshold == len(names):
            second = "Thresholds have the largest sum of sensitivity and specificity on validation images."
        elif with_threshold:
            second = f"{len(names) - with_threshold} findings have no threshold: {DEFAULT_THRESHOLD} is used."
        else:
            second = f"The threshold is {DEFAULT_THRESHOLD} for every finding: the model's folder holds none."
        return [first, second]

    def heat_verdict(self, name: str) -> tuple[Verdict, str]:
        """Whether a finding's heat map may be shown, and a sentence to stand beside it or in its place."""
        game, label = self.pointing_game, name.replace("_", " ")
        # What another method's maps scored says nothing of these.
        verdict = "unchecked" if game is None or game.method != METHOD else game.verdict_on(name)
        if game is None or verdict == "unchecked":
            return verdict, (
                f"Unchecked for {label}: this map was not compared with boxes of enough patients, and may "
                "point to the wrong place."
            )
        scored = game.findings[name] if game.verdict == "above chance" else game
        of = f"of {label} " if scored is not game else ""
        numbers = (
            f"in the {scored.pairs} cases {of}with a box, its highest point lay in the box in "
            f"{scored.hit_rate:.0%}, a random point would in {scored.chance:.0%}"
        )
        if verdict == "not above chance":
            return verdict, f"No heat map: those of this model are not better than chance ({numbers})."
        return verdict, f"How far to believe it: {numbers}."


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
        [scores] = self.classifier.probabilities([Image.fromarray(gray)]).tolist()
        operation, rows = self.operation, []
        if self.classifier.is_exclusive:
            largest = max(scores)
            labels = zip(self.classifier.names, scores, strict=True)
            called = [Finding(name, score, None, score == largest) for name, score in labels]
            return sorted(called, key=lambda row: -row.probability)
        for name, score in zip(self.classifier.names, scores, strict=True):
            # A threshold of the folder is one of the model's own probabilities; where it has none, 0.5 is
            # meant as it is shown.
            own = operation.thresholds.get(name)
            threshold = DEFAULT_THRESHOLD if own is None else operation.calibrate(name, own)
            rows.append(Finding(name, operation.calibrate(name, score), threshold))
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
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise UserError(
            f"{folder} holds no model (no config.json); run make demo first, or name a folder that "
            "train_cls.py or train_mae.py wrote: make app MODEL=FOLDER"
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
