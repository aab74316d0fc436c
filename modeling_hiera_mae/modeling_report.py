"""The model that writes reports: stock VisionEncoderDecoderModel with our encoder, for several views.

Its folder is a stock one: `AutoModelForImageTextToText` opens it with no flag and writes of one picture. What
stock lacks is here: several views of a study, one after another with an embedding of their place and a
padding mask, and a loss that accumulated batches share. Stands on modeling_hiera; does not ship.
"""

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils.generic import can_return_tuple

from .configuration_hiera_mae import HieraMAEConfig
from .modeling_hiera import HieraMAEModel
from .pretrained import _without_report
from .weight_files import find_file, find_weights, read_json, read_weights

VIEWS_FILE = "view_embeddings.safetensors"
"""Beside a finished model's weights where studies have several views: stock has no place for them."""

_STOCK = "VisionEncoderDecoderModel"
_NOT_A_LABEL = -100

_CACHE = {"cache", "past_key_values"}
"""What transformers calls a decoder's cache: the first from 5.24 on."""


class ReportConfig(VisionEncoderDecoderConfig):
    """Stock's configuration, which names stock's class in config.json; `report_views` is our one field."""

    model_type = "vision-encoder-decoder"

    def to_dict(self) -> dict[str, Any]:
        """Serialise, naming the class that opens the folder without this project, and no folder of before."""
        content: dict[str, Any] = super().to_dict()
        for part in ("encoder", "decoder"):
            (content.get(part) or {}).pop("_name_or_path", None)  # where it was loaded from: on this machine
        return content | ({"architectures": [_STOCK]} if content.get("architectures") else {})


class HieraMAEForReports(VisionEncoderDecoderModel):
    """Hiera's encoder, and a causal language model that attends to its last tokens.

    The first view of a study has no embedding, so that a study of one view is what the stock class computes.
    The encoder's last state goes to the decoder as it is: stock has no place for a norm in between.

    Args:
        config: `report_views` is the most views of a study (default 1).
        encoder: HieraMAEModel; None makes one of the configuration.
        decoder: a causal language model with cross-attention; None makes one of the configuration.

    Attributes:
        view_embeddings: (report_views - 1, hidden_size) of the encoder, of the second view and those after.
        label_smoothing: in training, see cross_entropy of torch.
    """

    config_class = ReportConfig

    def __init__(
        self,
        config: ReportConfig,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ) -> None:
        if encoder is None:
            encoder = HieraMAEModel(HieraMAEConfig.from_dict(config.encoder.to_dict()))
        config.encoder = encoder.config  # stock makes a plain HieraConfig of it, which lacks our fields
        super().__init__(config, encoder, decoder)
        views = int(getattr(config, "report_views", 1))
        self.view_embeddings = (
            nn.Parameter(torch.zeros(views - 1, encoder.config.hidden_size)) if views > 1 else None
        )
        self.label_smoothing = 0.0
        if encoder.pooler is not None:
            encoder.pooler.requires_grad_(False)  # no gradient reaches it, at which DDP would stop

    @classmethod
    def join(
        cls, encoder: HieraMAEModel, decoder: PreTrainedModel, *, views: int, **config_fields: Any
    ) -> "HieraMAEForReports":
        """An encoder and a decoder as one model; what is new between them is drawn at random.

        Args:
            encoder: HieraMAEModel.
            decoder: a causal language model with cross-attention.
            views: the most of a study.
            **config_fields: of the whole: token ids.
        """
        config = ReportConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        config.update({"report_views": views, **config_fields})
        model = cls(config, encoder, decoder)
        if hasattr(model, "enc_to_dec_proj"):
            # transformers' 0.02 would hand on a tenth of the states: the decoder would long look away.
            nn.init.normal_(model.enc_to_dec_proj.weight, std=encoder.config.hidden_size**-0.5)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a finished model's folder or Hub id, or one of a run's checkpoints.

        Args:
            pretrained_model_name_or_path: of a folder that `save_finished` or the Trainer wrote.
            args: handed on to transformers.
            kwargs: transformers' own.

        Raises:
            ValueError: a file is damaged, the model is another, or weights are absent, NaN or infinite.
            OSError: there is no such folder or repository, or a file cannot be opened.
        """
        name = str(pretrained_model_name_or_path)
        path = find_file(name, "config.json", {})
        if path is None:
            raise OSError(f"{name} has no config.json; name the folder that train_report.py wrote.")
        content = read_json(path)
        found = content.get("model_type"), (content.get("encoder") or {}).get("model_type")
        if found != (ReportConfig.model_type, HieraMAEConfig.model_type):
            raise ValueError(
                f"{name} holds {found[0]!r} of {found[1]!r}; wanted a Hiera that writes reports."
            )
        weights = read_weights(find_weights(name, {}))
        of_views = find_file(name, VIEWS_FILE, {})
        if of_views is not None:
            weights |= read_weights([of_views])
        with_info = kwargs.pop("output_loading_info", False)
        with _without_report():
            model, info = super().from_pretrained(
                None,
                *args,
                config=ReportConfig.from_dict(copy.deepcopy(content)),
                state_dict=weights,
                output_loading_info=True,
                **{"dtype": torch.float32, **kwargs},
            )
        wrong = [*sorted(info["missing_keys"]), *sorted(info["unexpected_keys"])]
        if wrong:
            raise ValueError(
                f"{name}: its weights are not those that its config.json describes ({wrong[0]})."
            )
        lengths = find_file(name, "generation_config.json", {})
        if lengths is not None:
            model.generation_config = GenerationConfig.from_pretrained(lengths.parent)
        return (model, info) if with_info else model

    def save_finished(self, folder: Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Write a folder that stock transformers opens without a word: embeddings of views in their own file.

        A checkpoint on the way holds all weights in one file instead, from which a run resumes.

        Args:
            folder: where to.
            state_dict: the weights, where the model holds a part of them alone.
        """
        weights = dict(self.state_dict() if state_dict is None else state_dict)
        of_views = weights.pop("view_embeddings", None)
        self.save_pretrained(folder, state_dict=weights)
        (folder / VIEWS_FILE).unlink(missing_ok=True)
        if of_views is not None:
            save_file({"view_embeddings": of_views.contiguous()}, folder / VIEWS_FILE, {"format": "pt"})

    def encode(
        self, pixel_values: torch.Tensor, has_view: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The states that the decoder attends to.

        Args:
            pixel_values: (studies, channels, height, width), or with several views (studies, views, channels,
                height, width).
            has_view: (studies, views), bool; False is padding. None: no study lacks a view.

        Returns:
            (studies, views × tokens, hidden_size), and the mask (studies, views × tokens), 1 for what is
            there; None where all is.
        """
        if pixel_values.dim() == 4:
            return self.encoder(pixel_values, return_dict=True).last_hidden_state, None
        if has_view is None:
            has_view = torch.ones(pixel_values.shape[:2], dtype=torch.bool, device=pixel_values.device)
        encoded = self.encoder(pixel_values[has_view], return_dict=True).last_hidden_state
        states = encoded.new_zeros(*has_view.shape, *encoded.shape[1:])
        states[has_view] = encoded
        if self.view_embeddings is not None:
            places = functional.pad(self.view_embeddings, (0, 0, 1, 0))[: has_view.shape[1]]
            states = states + places[None, :, None].to(states.dtype)
        mask = has_view[..., None].expand(-1, -1, encoded.shape[1]).flatten(1)
        return states.flatten(1, 2), mask.long()

    @can_return_tuple  # type: ignore[untyped-decorator]  # transformers gives it no type
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        has_view: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        encoder_outputs: Any = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Score a report token by token.

        Args:
            pixel_values: see encode.
            has_view: see encode.
            labels: (studies, tokens), -100 where there is no token.
            num_items_in_batch: tokens of the whole optimizer step, which the loss is divided by instead of
                by those of this batch.
            encoder_outputs: in place of pixel_values: an output whose first entry is encode's states.
            attention_mask: encode's mask, where encoder_outputs are given.
            decoder_input_ids: (studies, tokens); of labels where not given.
            decoder_attention_mask: (studies, tokens), 1 for a token.
            **kwargs: the decoder's: its cache and the like.

        Returns:
            transformers' output; `loss` where labels are given.
        """
        if encoder_outputs is None:
            if pixel_values is None:
                raise ValueError("wanted pixel_values or encoder_outputs.")
            states, attention_mask = self.encode(pixel_values, has_view)
            encoder_outputs = BaseModelOutput(last_hidden_state=states)
        states = encoder_outputs[0]
        if hasattr(self, "enc_to_dec_proj"):
            states = self.enc_to_dec_proj(states)
        if decoder_input_ids is None and labels is not None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            # Not by the padding token: GPT-2's is the start token, too.
            decoder_attention_mask = functional.pad(labels != _NOT_A_LABEL, (1, 0), value=True)[:, :-1].long()
            kwargs.setdefault("use_cache", False)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=states,
            encoder_attention_mask=attention_mask,
            **{**kwargs, "return_dict": True},  # the decorator makes a tuple of it where one is asked for
        )
        cache = next(iter(_CACHE & {field.name for field in fields(Seq2SeqLMOutput)}))
        return Seq2SeqLMOutput(
            loss=None if labels is None else self._loss(decoded.logits, labels, num_items_in_batch),
            logits=decoded.logits,
            encoder_last_hidden_state=encoder_outputs[0],
            **{cache: decoded.get(cache)},
        )

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        total = functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=_NOT_A_LABEL,
            reduction="sum",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        count = (
            (labels != _NOT_A_LABEL).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        )
        return total / count

    @torch.no_grad()
    def write(self, pixel_values: torch.Tensor, has_view: torch.Tensor | None = None) -> torch.Tensor:
        """Write a report of each study, by the generation config.

        Args:
            pixel_values: see encode.
            has_view: see encode.

        Returns:
            (studies, at most 1 + max_new_tokens), token ids, padded; the first is the start token.
        """
        states, mask = self.encode(pixel_values, has_view)
        masked = {} if mask is None else {"attention_mask": mask}
        # Given, or the decoder warns of padding after reports that are shorter than others of the batch.
        begun = torch.ones(len(states), 1, dtype=torch.long, device=states.device)
        written: torch.Tensor = self.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_attention_mask=begun, **masked
        )
        return written
