"""The fields of a config that stage 2 for reports alone has, its training defaults, and its faults.

Beside stage_arguments.py, which has those of the other stages.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medhiera.config.arguments import Config, option
from medhiera.config.ranges import BELOW_ONE, COUNT, COUNT_OR_NONE, Range
from medhiera.config.stage_arguments import FineTuningArguments


@dataclass
class ReportArguments(FineTuningArguments):
    """Stage 2 for reports: what is written, by which decoder, and how it is chosen."""

    recipes: ClassVar[str] = "report"
    training_defaults: ClassVar[dict[str, Any]] = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "cider",
    }
    checkpoint_metrics: ClassVar[tuple[str, ...]] = ("cider", "bleu_4", "rouge_l", "loss")

    logged_metrics: ClassVar[tuple[str, ...]] = ("cider", "bleu_4", "rouge_l", "distinct")
    unit: ClassVar[str] = "studies"

    report_section: Literal["findings", "impression"] = option(
        "findings", "The section of a report that is written; studies without it are left out."
    )
    clean: Literal["source", "iu", "mimic", "none"] = option(
        "source",
        "How references and written reports are cleaned before they are scored: `iu` or `mimic` as R2Gen "
        "cleans IU X-Ray or MIMIC-CXR, `source` by where they are from, reports of other sources not at all. "
        "Nothing cleans what is learned, but legacy_vocabulary.",
    )
    chexbert: str | None = option(
        None,
        "A folder with CheXbert's weights (docs/reports.md): the F1 of its labels is scored too.",
        card="never",
    )
    views: int = option(
        2, "The most views of a study that the model sees; further ones are left out.", range=Range(1, 16)
    )
    decoder_name_or_path: str | None = option(
        None,
        "A causal language model with cross-attention, a folder or Hub id such as distilgpt2, with its "
        "tokenizer. Without it the decoder is new and the tokenizer is trained on the training reports.",
        card="where set",
    )
    decoder_layers: int = option(3, "Layers of a new decoder; R2Gen's: 3.", range=Range(1, 1000))
    decoder_width: int = option(512, "Its width; R2Gen's: 512.", range=Range(1, 8192))
    decoder_heads: int = option(8, "Its attention heads; R2Gen's: 8.", range=Range(1, 1024))
    decoder_dropout: float = option(0.1, "Dropout inside a new decoder.", range=BELOW_ONE)
    lora_rank: int = option(
        0,
        "Rank of the low-rank changes (LoRA, by the package peft) that are trained in place of "
        "decoder_name_or_path's weights; 0: all its weights are trained.",
        card="where set",
        range=COUNT_OR_NONE,
    )
    vocabulary_size: int = option(
        2000, "Tokens of a new byte-level vocabulary, which loses nothing.", range=Range(259, 1_000_000)
    )
    legacy_vocabulary: bool = option(
        False,
        "R2Gen's vocabulary instead: whole words of cleaned reports that stand in training three times (ten "
        "times by MIMIC-CXR's rules), so written reports have no capitals and no commas.",
        card="where set",
    )
    rotation_degrees: float = option(
        0.0, "Random rotation after the crop, black fill.", card="where set", range=Range(0, 45)
    )
    label_smoothing: float = option(
        0.0, "Share of a token's target that goes to all others.", card="where set", range=BELOW_ONE
    )
    max_tokens: int = option(
        128, "Tokens of a report, learned and written; a longer one is cut.", range=Range(2, 4096)
    )
    num_beams: int = option(4, "Beams of the search that writes.", range=Range(1, 64))
    length_penalty: float = option(
        1.0,
        "Exponent of the length that beams' scores are divided by.",
        card="where set",
        range=Range(-10, 10),
    )
    max_train_studies: int | None = option(
        None, "Use only this many training studies, drawn by the seed.", range=COUNT
    )
    max_eval_studies: int | None = option(
        None, "Use only this many validation studies, drawn by the seed.", range=COUNT
    )
    score_test: bool = option(
        True, "`false` leaves the test split unread; the report is of validation.", card="where set"
    )
    bootstrap_resamples: int = option(
        2000, "Resamples of studies behind each 95 %% interval; 0: no intervals.", range=Range(0, 100_000)
    )

    def faults(self, config: Config[Any]) -> list[str]:
        """Augmentation that makes reports lie, decoders that cannot be, and what other stages have."""
        faults = self._decoder_faults()
        if config.augmentation.horizontal_flip:
            faults.append(
                "horizontal_flip mirrors pictures and not reports, so `left` would be a lie; leave it out"
            )
        if config.augmentation.rand_augment:
            faults.append("rand_augment moves what a report places, up to out of the picture; leave it out")
        for name in ("max_train_images", "max_eval_images"):
            if getattr(config.data, name) is not None:
                faults.append(
                    f"{name} would part the views of a study; set {name.replace('images', 'studies')}"
                )
        if config.model.model_overrides.get("num_query_pool", 3) != 3:
            faults.append(
                "model_overrides cannot set num_query_pool: a report's decoder reads one token a mask unit"
            )
        if config.model.model_overrides.get("num_channels", 3) != 3:
            faults.append(
                "model_overrides cannot set num_channels: stock transformers gives a model of reports three; "
                "gray weights are spread to them"
            )
        if config.model.reset_head or config.model.reset_decoder:
            faults.append("reset_head and reset_decoder are of the other stages; leave them out")
        if config.optimization.halt_on_explosion:
            faults.append("halt_on_explosion is for stage 1; stage 2 has early_stopping_patience")
        if config.data.source_weights:
            faults.append("source_weights is for stage 1; name the sources in `sources`")
        if config.training.fsdp:
            faults.append("fsdp cannot write reports while it trains; use DDP")
        return faults + self.encoder_faults(config)

    def _decoder_faults(self) -> list[str]:
        faults = []
        if self.decoder_name_or_path and self.legacy_vocabulary:
            faults.append(
                "legacy_vocabulary and decoder_name_or_path are both set, and that decoder has its own "
                "vocabulary; leave one of them out"
            )
        if self.lora_rank and not self.decoder_name_or_path:
            faults.append("lora_rank is for a pre-trained decoder; set decoder_name_or_path, or lora_rank: 0")
        if self.legacy_vocabulary and self.clean == "none":
            faults.append("legacy_vocabulary is of cleaned reports; leave clean: none out")
        if self.decoder_width % self.decoder_heads:
            faults.append(
                f"decoder_width {self.decoder_width} does not divide among decoder_heads {self.decoder_heads}"
            )
        return faults
