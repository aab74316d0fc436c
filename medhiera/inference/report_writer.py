"""A folder or Hub id of a model that writes reports, opened for use: pictures of a study → its report.

Beside classifier.py; the scripts and the page open such folders through it, and train_report.py saves one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BlipProcessor, PreTrainedTokenizerFast

from medhiera.data.preprocessing import Preprocessing
from medhiera.data.report_dataset import ReportCollator, ReportDataset
from medhiera.data.report_tokenizer import decode_reports, open_tokenizer
from medhiera.device import CPU, move
from medhiera.errors import UserError
from medhiera.inference.classifier import fingerprint, nan_error
from medhiera.layout import share_weights
from medhiera.loading import load_model, load_processor
from modeling_hiera_mae.modeling_report import HieraMAEForReports


@dataclass(frozen=True)
class ReportWriter:
    """A model that writes reports, ready to use.

    Attributes:
        model: in evaluation mode.
        tokenizer: its own.
        preprocessing: what its preprocessor_config.json says.
    """

    model: HieraMAEForReports
    tokenizer: PreTrainedTokenizerFast
    preprocessing: Preprocessing

    @classmethod
    def open(cls, source: str | Path, device: torch.device = CPU) -> "ReportWriter":
        """Load it.

        Args:
            source: the folder or Hub id.
            device: where it is to run.

        Raises:
            UserError: there is no such folder or repository, it holds something else, or a file is damaged.
        """
        model = load_report_model(source)
        tokenizer = open_tokenizer(str(source))
        if len(tokenizer) > model.decoder.config.vocab_size:
            raise UserError(
                f"{source}: its tokenizer has {len(tokenizer)} tokens and its decoder "
                f"{model.decoder.config.vocab_size}; copy the tokenizer that was saved with the weights"
            )
        try:
            preprocessing = Preprocessing.from_processor(load_processor(source))
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error
        return cls(model.to(device).eval(), tokenizer, preprocessing)

    def save(self, folder: Path) -> None:
        """Write a folder that stock transformers' `pipeline("image-text-to-text")` answers from."""
        self.model.save_finished(folder)
        share_weights(folder)
        processor = self.preprocessing.to_processor()
        BlipProcessor(processor, self.tokenizer).save_pretrained(folder)
        processor.save_pretrained(folder)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that depend on the weights, the vocabulary and how it writes."""
        lengths = self.model.generation_config.to_diff_dict()
        lengths.pop("transformers_version", None)
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        return fingerprint(self.model, f"{vocabulary}{self.preprocessing}{sorted(lengths.items())}")

    def write(self, studies: Sequence[Sequence[Tensor]]) -> list[str]:
        """A report of each study.

        Args:
            studies: of each one the pictures in the order of its views, as `preprocessing.pixels` makes
                them; those beyond the model's number of views are left out.

        Raises:
            ValueError: a study has no picture.
            UserError: the model computes NaN.
        """
        views = int(self.model.config.report_views)
        places = [[view < len(study) for view in range(views)] for study in studies]
        has_view = torch.tensor(places, dtype=torch.bool).reshape(len(studies), views)
        size = self.preprocessing.image_size
        pixels = torch.zeros(*has_view.shape, 1, size, size, dtype=torch.uint8)
        shown = [picture for study in studies for picture in study[:views]]
        if shown:
            pixels[has_view] = torch.stack(shown)
        return self.write_batch(pixels, has_view)

    @torch.inference_mode()
    def write_batch(self, pixels: Tensor, has_view: Tensor) -> list[str]:
        """The same of a ReportDataset's batch.

        Args:
            pixels: (studies, views, 1, height, width), uint8.
            has_view: (studies, views), bool.

        Raises:
            ValueError: a study has no picture.
            UserError: the model computes NaN.
        """
        if not len(has_view):
            return []
        blank = (~has_view.any(1)).nonzero().flatten().tolist()
        if blank:
            raise ValueError(f"study {blank[0]} has no picture; a report would be of none.")
        inputs = self._inputs(pixels.flatten(0, 1)).unflatten(0, has_view.shape)
        try:
            written = self.model.write(inputs, move(has_view, self.model.device))
        except (RuntimeError, ValueError) as error:
            if "nan" not in str(error).lower():
                raise
            raise nan_error() from error
        return decode_reports(self.tokenizer, written)

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """One vector a picture, by the encoder: the mean of its last tokens, to variance 1.

        Args:
            pixels: (pictures, 1, height, width), uint8.

        Returns:
            (pictures, hidden_size), float32, on the CPU.
        """
        features: Tensor = self.model.encoder(self._inputs(pixels)).pooler_output.float().cpu()
        return features

    def _inputs(self, pixels: Tensor) -> Tensor:
        channels = self.model.config.encoder.num_channels
        return self.preprocessing.normalize(move(pixels, self.model.device), channels).to(self.model.dtype)

    def features_of(self, dataset: ReportDataset, batch_size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(studies, hidden_size): `features` of the first picture of each study of a split."""
        found = [self.features(batch["pixel_values"][:, 0]).numpy() for batch in batches(dataset, batch_size)]
        return np.concatenate(found)


def batches(dataset: ReportDataset, batch_size: int) -> Iterable[dict[str, Any]]:
    """A split in its order."""
    collator: Any = ReportCollator()
    return torch.utils.data.DataLoader(dataset, batch_size, collate_fn=collator)


def load_report_model(source: str | Path) -> HieraMAEForReports:
    """The model of a folder or Hub id alone.

    Raises:
        UserError: there is no such folder or repository, it holds something else, or a file is damaged.
    """
    model: HieraMAEForReports
    model, _ = load_model(HieraMAEForReports, source)
    return model
