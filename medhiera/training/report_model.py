"""The model that stage 2 for reports starts from: an encoder of before, and a new decoder or the Hub's.

Beside model.py, whose start_model gives the encoder. LoRA's layers are added here, and melted into the
weights when training has ended, so that a finished folder needs no package of theirs.
"""

import inspect
import logging
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

from medhiera.config.report_arguments import ReportArguments
from medhiera.errors import UserError, one_line
from medhiera.layout import refuse_mistyped
from modeling_hiera_mae import HieraMAEModel
from modeling_hiera_mae.modeling_report import HieraMAEForReports

logger = logging.getLogger(__name__)

_LORA_ADVICE = "lora_rank needs the package peft: pip install 'medhiera[lora]' (or peft), or set lora_rank: 0"


GPT2_WIDTH = 768
"""At which GPT-2's weights have the deviation 0.02; narrower layers need a larger one for like outputs."""


def start_report_model(
    encoder: HieraMAEModel, tokenizer: PreTrainedTokenizerFast, options: ReportArguments
) -> HieraMAEForReports:
    """Join an encoder with the decoder that a recipe asks for.

    Args:
        encoder: from start_model.
        tokenizer: of the decoder.
        options: the recipe's.

    Raises:
        UserError: no such decoder, one without cross-attention, with too few positions or of fewer tokens
            than its tokenizer, or no peft.
    """
    source = options.decoder_name_or_path
    decoder, new = (
        (new_decoder(tokenizer, options), None) if source is None else open_decoder(source, options)
    )
    rows = decoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"--decoder_name_or_path {source}: its tokenizer has {len(tokenizer)} tokens, and its embedding "
            f"{rows}; copy the tokenizer that belongs to it, or open both by transformers, call the model's "
            "resize_token_embeddings(len(tokenizer)) and save them into one folder"
        )
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
    }
    if options.lora_rank and new is not None:
        add_lora(decoder, options.lora_rank, new)
    model = HieraMAEForReports.join(encoder, decoder, views=options.views, **tokens)
    model.label_smoothing = options.label_smoothing
    model.generation_config = GenerationConfig(
        max_new_tokens=options.max_tokens,
        num_beams=options.num_beams,
        length_penalty=options.length_penalty if options.num_beams > 1 else None,
        **tokens,
    )
    decoder.generation_config = None  # the whole model's counts
    return model


def new_decoder(tokenizer: PreTrainedTokenizerFast, options: ReportArguments) -> GPT2LMHeadModel:
    """A small decoder of random weights in GPT-2's form: by default R2Gen's 3 layers, 512 wide, 8 heads."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=options.max_tokens + 1,
            n_embd=options.decoder_width,
            n_layer=options.decoder_layers,
            n_head=options.decoder_heads,
            resid_pdrop=options.decoder_dropout,
            embd_pdrop=options.decoder_dropout,
            attn_pdrop=options.decoder_dropout,
            initializer_range=0.02 * (GPT2_WIDTH / options.decoder_width) ** 0.5,
            add_cross_attention=True,
            is_decoder=True,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def open_decoder(source: str, options: ReportArguments) -> tuple[PreTrainedModel, list[str]]:
    """A causal language model of a folder or Hub id with cross-attention, and the names of what is new.

    Raises:
        UserError: there is none, it cannot attend to an encoder, or has fewer positions than reports have.
    """
    refuse_mistyped(source)
    before = get_verbosity()
    set_verbosity_error()  # it would list the new layers as a fault
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        config.is_decoder = config.add_cross_attention = True
        decoder, info = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:  # each kind of damage raises another class
        raise UserError(
            f"--decoder_name_or_path {source} cannot be loaded ({type(error).__name__}: {one_line(error)}); "
            "name the folder or Hub id of a causal language model, such as distilgpt2"
        ) from error
    finally:
        set_verbosity(before)
    if "encoder_hidden_states" not in inspect.signature(type(decoder).forward).parameters:
        raise UserError(
            f"--decoder_name_or_path {source} is a {type(decoder).__name__}, which has no cross-attention "
            "and so cannot see a picture; name a model of a kind that has it, such as GPT-2's"
        )
    positions = count_positions(decoder)
    if positions is not None and positions < options.max_tokens + 1:
        raise UserError(
            f"--decoder_name_or_path {source} has {positions} positions, and max_tokens is "
            f"{options.max_tokens}; set max_tokens to {positions - 1} or less"
        )
    new = sorted(info["missing_keys"])
    logger.info("decoder from %s: %d of its %d weights are new", source, len(new), len(decoder.state_dict()))
    return decoder, new


def count_positions(decoder: PreTrainedModel) -> int | None:
    """How many tokens a decoder can read; None where nothing limits them.

    Those of RoBERTa's family begin behind the place of its padding token, of which there is one.
    """
    positions: int | None = getattr(decoder.config, "max_position_embeddings", None)
    places = [
        module.padding_idx + 1
        for name, module in decoder.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return positions if positions is None else positions - max(places, default=0)


def add_lora(decoder: PreTrainedModel, rank: int, new: list[str]) -> None:
    """Freeze a pre-trained decoder but for what is new in it, and add low-rank changes to its linear layers.

    Args:
        decoder: changed in place.
        rank: of the changes.
        new: names of the weights that no checkpoint held: they are trained as they are.

    Raises:
        UserError: peft is not installed.

    Source: Hu et al. 2021, arXiv:2106.09685; by peft.
    """
    try:
        import peft  # an extra: nothing else needs it
    except ImportError as error:
        raise UserError(_LORA_ADVICE) from error
    heads = {id(decoder.get_output_embeddings()), id(decoder.get_input_embeddings())}
    fresh = {name.rpartition(".")[0] for name in new}
    targets = [
        name
        for name, module in decoder.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and id(module) not in heads and name not in fresh
    ]
    is_transposed = any(type(decoder.get_submodule(name)).__name__ == "Conv1D" for name in targets)
    settings = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets, fan_in_fan_out=is_transposed
    )
    peft.inject_adapter_in_model(settings, decoder)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad = "lora_" in name or name in new
    trained = sum(one.numel() for one in decoder.parameters() if one.requires_grad)
    logger.info("LoRA of rank %d: %d of the decoder's parameters are trained", rank, trained)


def merge_lora(model: HieraMAEForReports) -> None:
    """Melt LoRA's changes into the decoder's own weights, in place; a model without any stays as it is."""
    for name, module in list(model.decoder.named_modules()):
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            layer: Any = module
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.decoder.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(model.decoder, "peft_config"):
        del model.decoder.peft_config
