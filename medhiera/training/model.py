"""The model that a stage starts from: a checkpoint's, or one of random weights.

Stands on the config room. The scripts call check_source before any data is built and start_model after it.
"""

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from medhiera.config.arguments import ModelArguments
from medhiera.config.model_config import override_faults
from medhiera.errors import UserError, one_line
from medhiera.layout import read_config
from medhiera.loading import check_weights, load_model
from medhiera.training.ema import EMA_FILE
from modeling_hiera_mae import (
    HieraMAEConfig,
    HieraMAEForPreTraining,
    HieraMAEModel,
)
from modeling_hiera_mae.configuration_hiera_mae import DECODER_GEOMETRY
from modeling_hiera_mae.weight_files import Weights, read_weights

logger = logging.getLogger(__name__)


def check_source(options: ModelArguments, *, is_mae: bool) -> None:
    """Refuse a missing or damaged checkpoint, or overrides that it rules out, before hours of building data.

    Args:
        options: names a folder, a Hub id, or nothing.
        is_mae: the stage trains HieraMAEForPreTraining.

    Raises:
        UserError: no such folder, no such model on the Hub (or none that can be reached), not a Hiera, a
            damaged file, or weights that are NaN or infinite; or model_overrides that name an unknown field,
            cannot be built, or contradict the checkpoint.
    """
    stored, source = None, options.model_name_or_path
    if source is not None:
        try:
            stored = HieraMAEConfig.from_dict(read_config(source))
            check_weights(source)
            _averaged_weights(source)
        except UserError as error:
            raise UserError(f"--model_name_or_path {error}") from error
    faults = override_faults(options, stored, is_mae=is_mae)
    if faults:
        raise UserError("\n".join(faults))


def start_model(
    model_class: type[PreTrainedModel], options: ModelArguments, **config_fields: Any
) -> tuple[PreTrainedModel, list[str] | Literal["all"]]:
    """Build the model that a stage starts from.

    Args:
        model_class: HieraMAEForPreTraining, HieraMAEForImageClassification, or HieraMAEModel, the encoder
            of a model that writes reports.
        options: a folder or Hub id, or the size of a model with random weights; its `model_overrides` apply
            to both.
        **config_fields: what this stage sets in the config (image_size, labels); overrides win.

    Returns:
        The model, and the names of the weights that no checkpoint has filled in; "all" where none is named.

    Raises:
        UserError: no checkpoint, or one of another architecture or size than asked for.
    """
    source = options.model_name_or_path
    if source is not None and model_class is not HieraMAEForPreTraining:
        if read_config(source).get("num_channels") == 1:  # stock pipelines give every model RGB
            config_fields["num_channels"] = 3
    config_fields |= options.model_overrides
    if source is None:
        try:
            config = HieraMAEConfig.from_size(options.model_size, **config_fields)
        except ValueError as error:
            raise UserError(f"this model cannot be built: {error}") from error
        logger.warning("no --model_name_or_path: all weights are RANDOM (%s geometry)", options.model_size)
        return model_class._from_config(config), "all"

    if options.reset_decoder:
        return _with_new_decoder(source, config_fields)
    try:
        weights = {"state_dict": _averaged_weights(source), "ignore_mismatched_sizes": options.reset_head}
        model, loading = load_model(model_class, source, **weights, **config_fields)
    except UserError as error:
        hint = " (in a recipe: reset_head: true)" if "ignore_mismatched_sizes" in str(error) else ""
        raise UserError(f"--model_name_or_path {error}{hint}") from error
    missing = set(loading["missing_keys"])
    if options.reset_head:
        model.classifier = torch.nn.Linear(model.classifier.in_features, model.classifier.out_features)
        model._init_weights(model.classifier)
        missing |= {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
    new = sorted(missing)
    unused = sorted(loading["unexpected_keys"])
    prefix = "" if model_class is HieraMAEModel else f"{model.base_model_prefix}."
    encoder = [name for name in model.state_dict() if name.startswith(prefix)]
    begun = sorted(set(encoder) & missing)  # of the pooler: load_model refuses a checkpoint that lacks others
    logger.info(
        "weights from %s: %d of the encoder's %d tensors%s", source, len(encoder) - len(begun), len(encoder),
        f"; {' and '.join(begun)} are of the norm behind the encoder, which a masked autoencoder lacks, "
        "and begin anew"
        if begun else "",
    )  # fmt: skip
    logger.info("new, not in the checkpoint: %s", ", ".join(new) or "none")
    if unused:
        logger.info("left out, not part of this model: %s", _by_module(unused))
    return model, new


def _averaged_weights(source: str) -> Weights | None:
    """A checkpoint's moving average, which is what the finished stage would hold; None where there is none.

    Raises:
        UserError: the file is damaged, or holds NaN or infinite weights.
    """
    file = Path(source) / EMA_FILE
    if not file.is_file():
        return None
    try:
        weights = read_weights([file])
    except (ValueError, OSError) as error:
        raise UserError(f"{source} cannot be loaded: {one_line(error)}") from error
    logger.info("%s is of a run with ema_decay: training starts from the averaged weights", source)
    return weights


def _with_new_decoder(source: str, config_fields: dict[str, Any]) -> tuple[PreTrainedModel, list[str]]:
    """A masked autoencoder with the encoder of a checkpoint, and the names of its new weights."""
    of_decoder = {name: value for name, value in config_fields.items() if name in DECODER_GEOMETRY}
    of_encoder = {name: value for name, value in config_fields.items() if name not in DECODER_GEOMETRY}
    pools = of_encoder.pop("num_query_pool", None)  # an encoder alone has none to choose
    try:
        encoder, _ = load_model(HieraMAEModel, source, state_dict=_averaged_weights(source), **of_encoder)
    except UserError as error:
        raise UserError(f"--model_name_or_path {error}") from error
    config = HieraMAEConfig.from_dict(encoder.config.to_dict() | of_decoder | {"num_query_pool": pools})
    config.architectures = None
    attention = encoder.config._attn_implementation  # which no to_dict has
    model = HieraMAEForPreTraining._from_config(config, attn_implementation=attention)
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
    model.hiera.load_state_dict(weights)
    new = sorted(name for name in model.state_dict() if not name.startswith("hiera."))
    logger.info("encoder weights from %s; new: %s", source, _by_module(new))
    return model, new


def set_prior_bias(head: torch.nn.Linear, labels: Tensor, is_exclusive: bool = False) -> None:
    """Make a new head predict each finding's share of the annotated images before training.

    Otherwise the first steps are spent on learning how rare findings are.

    Args:
        head: the classifier's last layer; its bias is set in place.
        labels: (images, findings); 1, 0 or NaN.
        is_exclusive: each image has exactly one, and a softmax gives the shares.

    Source: Lin et al. 2017, arXiv:1708.02002, section 4.1, one prior for all; here one each.
    """
    images = (~labels.isnan()).sum(dim=0)
    share = (labels.nansum(dim=0) + 0.5) / (images + 1)  # half an image added on each side: never 0 or 1
    with torch.no_grad():
        head.bias.copy_(share.log() if is_exclusive else torch.logit(share))


def _by_module(keys: list[str]) -> str:
    """`decoder (120 tensors), …`: keys counted by their first part."""
    counts: dict[str, int] = {}
    for key in keys:
        module = key.split(".")[0]
        counts[module] = counts.get(module, 0) + 1
    return ", ".join(f"{module} ({count} tensors)" for module, count in counts.items())
