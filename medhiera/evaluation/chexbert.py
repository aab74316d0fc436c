"""What CheXbert finds in written reports, where its weights are at hand, and F1 against the radiologists'.

Beside captions.py, whose `--chexbert FOLDER` asks for it. The labeler is a BERT with one linear layer a
condition on its first token (Smit et al. 2020, arXiv:2004.09167); nothing is downloaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Bootstrap, Floats, interval
from medhiera.evaluation.caption_results import ChexbertScores

CONDITIONS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices", "No Finding",
)  # fmt: skip
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The conditions that CheXpert's competition scored."""

POSITIVE = 1
"""The classes are blank, positive, negative, uncertain; "No Finding" has the first two alone."""

CHECKPOINT = "chexbert.pth"
LONGEST = 512
"""Tokens of a report that are read."""

_MEASURES = ("micro_f1", "macro_f1", "micro_f1_five", "macro_f1_five")


class Chexbert(nn.Module):
    """The labeler.

    Args:
        config: of its BERT.
        tokenizer: of its BERT.
    """

    def __init__(self, config: BertConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.bert = BertModel(config)
        sizes = [2 if name == "No Finding" else 4 for name in CONDITIONS]
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)
        self.tokenizer = tokenizer
        self._known: dict[str, NDArray[np.intp]] = {}  # a text is labeled once

    @classmethod
    def open(cls, folder: Path, device: torch.device | None = None) -> "Chexbert":
        """Load it.

        Args:
            folder: chexbert.pth as its authors publish it, with config.json and the tokenizer's files of
                bert-base-uncased.
            device: where it is to run; None is the CPU.

        Raises:
            UserError: a file is absent, cannot be read, or holds other weights.
        """
        absent = [name for name in (CHECKPOINT, "config.json") if not (folder / name).is_file()]
        if absent:
            raise UserError(
                f"{folder}: {' and '.join(absent)} missing; wanted CheXbert's chexbert.pth with config.json "
                "and the tokenizer's files (vocab.txt) of bert-base-uncased beside it"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = cls(BertConfig.from_pretrained(folder), tokenizer)
            content = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, EOFError, ImportError) as error:
            raise UserError(f"{folder} cannot be opened as CheXbert: {error}") from error
        except Exception as error:  # UnpicklingError, and whatever a damaged archive makes torch raise
            raise UserError(f"{folder / CHECKPOINT} cannot be read as weights: {error}") from error
        model._take(content, folder / CHECKPOINT)
        return model.to(device or torch.device("cpu")).eval()

    def _take(self, content: Any, file: Path) -> None:
        weights = content.get("model_state_dict") if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise UserError(f"{file} holds no model_state_dict; wanted CheXbert's chexbert.pth")
        own = {name.removeprefix("module."): weight for name, weight in weights.items()}
        own.pop("bert.embeddings.position_ids", None)  # a buffer of older transformers
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            raise UserError(f"{file} is not CheXbert's: {' '.join(str(error).split())[:300]}") from error

    @torch.inference_mode()
    def label(self, reports: Sequence[str], batch_size: int = 16) -> NDArray[np.intp]:
        """The class of each condition in each report.

        Args:
            reports: one line each or several; an empty one has no condition, not even "No Finding".
            batch_size: reports at a time.

        Returns:
            (reports, 14): 0 blank, 1 positive, 2 negative, 3 uncertain.
        """
        texts = [" ".join(report.split()) for report in reports]
        new = sorted({text for text in texts if text} - self._known.keys(), key=len)  # little padding
        for begin in range(0, len(new), batch_size):
            chosen = new[begin : begin + batch_size]
            self._known |= dict(zip(chosen, self._classes(chosen).numpy(), strict=True))
        nothing = np.zeros(len(CONDITIONS), np.intp)
        return np.array([self._known.get(text, nothing) for text in texts], np.intp)

    def score(
        self, references: Sequence[str], predictions: Sequence[str], bootstrap: Bootstrap
    ) -> ChexbertScores:
        """F1 of the labels of written reports against those of their references, in the same order."""
        return score_labels(self.label(references), self.label(predictions), bootstrap)

    def _classes(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(self.bert.device)
        first = self.bert(**tokens).last_hidden_state[:, 0]
        return torch.stack([head(first).argmax(1) for head in self.linear_heads], 1).cpu()


def score_labels(true: NDArray[np.intp], said: NDArray[np.intp], bootstrap: Bootstrap) -> ChexbertScores:
    """F1 of the positive labels.

    Args:
        true: (studies, 14), of the references.
        said: the same of the written reports.
        bootstrap: over studies, behind the intervals.
    """
    is_true, is_said = true == POSITIVE, said == POSITIVE
    counts = np.stack([is_true & is_said, ~is_true & is_said, is_true & ~is_said]).astype(np.float64)
    parts = [_measure(counts, weights) for weights in bootstrap.weights(len(true))]
    values = _measure(counts, np.ones((len(true), 1)))
    by_condition = _f1(counts.sum(1))
    fields: dict[str, Any] = {name: float(values[name][0]) for name in _MEASURES}
    fields |= {
        f"{name}_interval": interval(np.concatenate([np.empty(0), *(part[name] for part in parts)]))
        for name in _MEASURES
    }
    return ChexbertScores(
        **fields,
        f1={name: float(value) for name, value in zip(CONDITIONS, by_condition, strict=True)},
        positives={name: int(count) for name, count in zip(CONDITIONS, is_true.sum(0), strict=True)},
    )


def _measure(counts: Floats, weights: Floats) -> dict[str, Floats]:
    """Each measure under each weighting.

    Args:
        counts: (3, studies, conditions): true positives, false positives, false negatives.
        weights: (studies, weightings).
    """
    summed = np.einsum("ksc,sw->kcw", counts, weights)
    five = summed[:, [CONDITIONS.index(name) for name in FIVE]]
    return {
        "micro_f1": _f1(summed.sum(1)), "macro_f1": _f1(summed).mean(0),
        "micro_f1_five": _f1(five.sum(1)), "macro_f1_five": _f1(five).mean(0),
    }  # fmt: skip


def _f1(counts: Floats) -> Floats:
    """2 TP / (2 TP + FP + FN) along the first axis; 0 where all are 0."""
    hits, false, missed = counts
    whole = 2 * hits + false + missed
    return np.divide(2 * hits, whole, out=np.zeros_like(whole), where=whole > 0)
