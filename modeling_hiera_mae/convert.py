"""Checkpoints of other libraries → a folder that stock transformers opens.

Stands before stage 0: it makes the folder that `from_pretrained` starts from. It does not ship to the Hub.

    python -m modeling_hiera_mae.convert mae_hiera_tiny_224.pth checkpoints/hiera-tiny-imagenet-mae
    python -m modeling_hiera_mae.convert timm/hiera_tiny_224.mae checkpoints/hiera-tiny-encoder

SOURCE is one of: Meta's `.pth` (MAE or classifier), Meta's or timm's safetensors (the file, its folder or its
Hub id), a folder of stock transformers. Geometry is read from the weights; what does not fit is refused.
"""

import argparse
import hashlib
import json
import pickle
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

from .configuration_hiera_mae import SIZES, HieraMAEConfig
from .modeling_hiera import HieraMAEForImageClassification, HieraMAEModel
from .modeling_hiera_mae import HieraMAEForPreTraining
from .pretrained import HieraMAEPreTrainedModel

_META_LICENSE = "cc-by-nc-4.0"

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth")

# Meta's and timm's names → transformers'. `blocks.N` becomes `stages.S.layers.L` first.
_RENAMES = (
    (r"^patch_embed\.proj\.", "hiera.embeddings.patch_embeddings.projection."),
    (r"^pos_embed$", "hiera.embeddings.position_embeddings"),
    (r"^stages\.", "hiera.encoder.stages."),
    (r"^decoder_blocks\.", "decoder.decoder_block.layers."),
    (r"^decoder_embed\.", "decoder.decoder_embeddings."),
    (r"^decoder_pos_embed$", "decoder.decoder_position_embeddings"),
    (r"^(mask_token$|decoder_norm\.|decoder_pred\.)", r"decoder.\1"),
    (r"^multi_scale_fusion_heads\.", "multiscale_fusion.multi_scale_fusion_heads."),
    (r"^(norm|head\.norm)\.", "hiera.pooler.layernorm."),
    (r"^head\.(projection|fc)\.", "classifier."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


class Conversion(NamedTuple):
    """What a conversion did.

    Attributes:
        model: the converted model.
        mapped: each source name → the name it has now.
        left_out: source names that have no place in the model, with the reason.
        source: what the weights came from, for the card.
        license: licence of the weights.
    """

    model: HieraMAEPreTrainedModel
    mapped: dict[str, str]
    left_out: dict[str, str]
    source: str
    license: str


def convert(source: str, num_heads: int | None = None, license_name: str | None = None) -> Conversion:
    """Read a checkpoint of Meta, timm or transformers into this package's model.

    Args:
        source: a file, a folder or a Hub id.
        num_heads: attention heads of the first stage, for a geometry that is none of the published sizes.
        license_name: licence of the weights; None takes the source's card, then Meta's CC-BY-NC.

    Raises:
        ValueError: the weights are not an image Hiera's, or do not fill the model exactly.
        FileNotFoundError: there is no such file, folder or repository name.
    """
    path, label = _locate(source)
    if path.is_dir() and _read_json(path / "config.json").get("model_type") == HieraMAEConfig.model_type:
        return _convert_stock(path, label, license_name)
    weights_file = path if path.is_file() else _weights_in(path)
    state = _read_state(weights_file)
    neighbour = _read_json(weights_file.parent / "config.json")
    config = _infer_config(state, num_heads or _stated_heads(neighbour))
    mapped, left_out = _map_names(state, config.depths)
    model = _build(config, mapped)
    _fill(model, state, mapped)
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    return Conversion(
        model,
        mapped,
        left_out,
        f"{label} (SHA-256 {digest})",
        license_name or _card_license(weights_file.parent) or _META_LICENSE,
    )


def save(conversion: Conversion, folder: Path) -> None:
    """Write weights, config.json and a card that names source and licence.

    Args:
        conversion: what `convert` returned.
        folder: made if absent.
    """
    conversion.model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # which the library lets their owner alone read
        shutil.copymode(folder / "config.json", file)
    (folder / "README.md").write_text(_card(conversion), encoding="utf-8")


def report(conversion: Conversion) -> str:
    """Say what was mapped and what was left out, one line per group of weights."""
    groups = Counter(
        (_group(source), _group(target.removeprefix("hiera.")) if source != target else "(same name)")
        for source, target in conversion.mapped.items()
    )
    model = conversion.model
    lines = [f"{type(model).__name__}, size {model.config.size_name or 'custom'}, from {conversion.source}"]
    lines += [
        f"  {source:<28} → {target:<28} {count:>4} tensors" for (source, target), count in groups.items()
    ]
    lines += [f"  {name:<28} left out: {reason}" for name, reason in conversion.left_out.items()]
    if isinstance(model, HieraMAEModel):
        lines.append("  Only the encoder is in the source: decoder, final norm and head will be new.")
    return "\n".join([*lines, f"  licence {conversion.license}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (see the top of this file)."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m modeling_hiera_mae.convert", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", help="file, folder or Hub id")
    parser.add_argument("folder", type=Path, help="where the converted checkpoint goes")
    parser.add_argument("--num-heads", type=int, help="heads of the first stage, where the size is custom")
    parser.add_argument("--license", help="licence of the weights, where the source's card does not say")
    options = parser.parse_args(arguments)
    try:
        conversion = convert(options.source, options.num_heads, options.license)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    save(conversion, options.folder)
    sys.stdout.write(f"{report(conversion)}\n  written to {options.folder}\n")


def _locate(source: str) -> tuple[Path, str]:
    """A local path, downloaded first where `source` is a Hub id; and what to call it in the card."""
    path = Path(source)
    if path.exists():
        return path, path.name
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.suffix.startswith(".p"):
        patterns = ["config.json", "README.md", *_WEIGHT_FILES]
        return Path(snapshot_download(source, allow_patterns=patterns)), f"https://huggingface.co/{source}"
    raise FileNotFoundError(
        f"There is no {source}. Give a .pth or .safetensors file, a checkpoint folder, or a Hub id like "
        "facebook/hiera_tiny_224.mae_in1k."
    )


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} holds none of {', '.join(_WEIGHT_FILES)}; give the weights' file itself.")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a file; pickles are read without executing anything."""
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is damaged, or holds more than weights (which is not read, for it could run code); "
            "download it again, or save the table of weights alone."
        ) from error
    content = content.get("model_state", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ValueError(
            f"{path.name} is not a table of weights, nor one under 'model_state'; wanted a file as Meta "
            "publishes it."
        )
    return dict(content)


def _card_license(folder: Path) -> str | None:
    card = folder / "README.md"
    found = (
        re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8"), re.M) if card.is_file() else None
    )
    return found.group(1) if found else None


def _stated_heads(neighbour: dict[str, Any]) -> int | None:
    """Heads of the first stage, as the config.json beside Meta's or timm's weights states them."""
    stated = neighbour.get("model_args", neighbour).get("num_heads")
    return stated if isinstance(stated, int) else None


def _infer_config(state: Mapping[str, torch.Tensor], num_heads: int | None) -> HieraMAEConfig:
    """Geometry of Meta's or timm's weights."""
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        kind = "a video Hiera" if "pos_embed_spatial" in state else "not a Hiera"
        raise ValueError(
            f"These weights are {kind} ({len(state)} tensors, first {next(iter(state), 'none')}); wanted an "
            "image Hiera of Meta or timm, with patch_embed.proj and pos_embed."
        )
    patch, positions = state["patch_embed.proj.weight"], state["pos_embed"]
    if patch.dim() != 4 or positions.dim() != 3:
        raise ValueError(
            f"patch_embed.proj.weight has shape {tuple(patch.shape)} and pos_embed {tuple(positions.shape)}; "
            "wanted 4 and 3 dimensions. Video models and timm's abswin models are other architectures."
        )
    side = int(positions.shape[1] ** 0.5)
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    starts = [0, *(n for n in range(blocks) if f"blocks.{n}.proj.weight" in state), blocks]
    pools = sum(re.fullmatch(r"multi_scale_fusion_heads\.\d+\.weight", key) is not None for key in state)
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    config = HieraMAEConfig(
        embed_dim=patch.shape[0],
        depths=[after - start for start, after in zip(starts, starts[1:], strict=False)],
        num_channels=patch.shape[1],
        image_size=[4 * side, 4 * side],
        mlp_ratio=hidden / patch.shape[0],
        num_query_pool=pools or 3,
        architectures=None,
    )
    if "decoder_embed.weight" in state:
        config.decoder_hidden_size = state["decoder_embed.weight"].shape[0]
        config.decoder_depth = len({key.split(".")[1] for key in state if key.startswith("decoder_blocks.")})
    if "head.projection.weight" in state or "head.fc.weight" in state:
        head = state.get("head.projection.weight", state.get("head.fc.weight"))
        assert head is not None
        config.num_labels = head.shape[0]
    return _with_heads(config, num_heads)


def _with_heads(config: HieraMAEConfig, num_heads: int | None) -> HieraMAEConfig:
    """Settle the heads, which no weight shows: those stated, or those of the published size."""
    if num_heads is None:
        for size in SIZES:
            named = HieraMAEConfig.from_size(size)
            if (named.embed_dim, list(named.depths)) == (config.embed_dim, list(config.depths)):
                config.num_heads = named.num_heads
                return config
        raise ValueError(
            f"embed_dim {config.embed_dim} with depths {list(config.depths)} is none of the published sizes, "
            "and weights do not show their attention heads; state those of the first stage with --num-heads."
        )
    config.num_heads = [num_heads * 2**stage for stage in range(len(config.depths))]
    return config


def _map_names(
    state: Mapping[str, torch.Tensor], depths: Sequence[int]
) -> tuple[dict[str, str], dict[str, str]]:
    """Source name → transformers' name; and what has no place, with the reason."""
    places = [(stage, layer) for stage, depth in enumerate(depths) for layer in range(depth)]
    has_head = "head.projection.weight" in state or "head.fc.weight" in state
    mapped, left_out = {}, {}
    for key in state:
        if key.startswith("head.norm.") and not has_head:
            left_out[key] = "timm keeps the MAE's encoder_norm there, which serves nothing but its decoder"
            continue
        name = re.sub(r"^blocks\.(\d+)\.", lambda m: "stages.{}.layers.{}.".format(*places[int(m[1])]), key)
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        mapped[key] = name
    return mapped, left_out


def _build(config: HieraMAEConfig, mapped: Mapping[str, str]) -> HieraMAEPreTrainedModel:
    """The model whose weights these are: MAE, classifier or encoder alone."""
    names = set(mapped.values())
    if "decoder.mask_token" in names:
        return HieraMAEForPreTraining(config)
    if "classifier.weight" in names:
        classifier = HieraMAEForImageClassification(config)
        if config.num_labels > 1:
            classifier.config.problem_type = "single_label_classification"  # ImageNet's
        return classifier
    return HieraMAEModel(config, add_pooling_layer=False)


def _fill(
    model: HieraMAEPreTrainedModel, state: Mapping[str, torch.Tensor], mapped: Mapping[str, str]
) -> None:
    """Copy weights in, all or nothing."""
    prefix = "hiera." if isinstance(model, HieraMAEModel) else ""
    weights = {target.removeprefix(prefix): state[source] for source, target in mapped.items()}
    own = model.state_dict()
    problems = [f"no place for {name}" for name in weights.keys() - own.keys()]
    problems += [f"{name} is absent" for name in own.keys() - weights.keys()]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, wanted {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    if problems:
        raise ValueError(
            f"The weights do not fill a {type(model).__name__}: {'; '.join(sorted(problems)[:5])}"
            f"{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}. The file is damaged, or "
            "another model."
        )
    model.load_state_dict(weights)


def _convert_stock(path: Path, label: str, license_name: str | None) -> Conversion:
    """A folder transformers wrote: same names, loaded by what it was trained as."""
    classes = {
        "HieraForPreTraining": HieraMAEForPreTraining,
        "HieraForImageClassification": HieraMAEForImageClassification,
        "HieraModel": HieraMAEModel,
    }
    content = _read_json(path / "config.json")
    stated = [name.replace("HieraMAE", "Hiera") for name in content.get("architectures") or []]
    if not stated or stated[0] not in classes:
        raise ValueError(f"{label} says it is {stated or 'nothing'}; wanted one of {', '.join(classes)}.")
    model = classes[stated[0]].from_pretrained(path)
    model.config.problem_type = content.get("problem_type")
    mapped = {name: name for name in model.state_dict()}
    return Conversion(model, mapped, {}, label, license_name or _card_license(path) or _META_LICENSE)


def _group(name: str) -> str:
    """The part of a weight's name that says what it belongs to."""
    parts = name.split(".")
    inner = {"embeddings", "encoder", "decoder", "pooler"}
    return ".".join(parts[:2]) if parts[0] in inner and len(parts) > 2 else parts[0]


def _card(conversion: Conversion) -> str:
    model = conversion.model
    kind = {
        HieraMAEForPreTraining: "masked autoencoder (encoder and decoder)",
        HieraMAEForImageClassification: f"classifier of {model.config.num_labels} labels",
        HieraMAEModel: "encoder alone",
    }[type(model)]
    left_out = "".join(f"- left out `{name}`: {reason}\n" for name, reason in conversion.left_out.items())
    return (
        f"---\nlicense: {conversion.license}\nlibrary_name: transformers\ntags:\n- hiera\n---\n\n"
        f"# Hiera {model.config.size_name or ''} {kind}\n\n"
        "Converted with `python -m modeling_hiera_mae.convert`; the weights themselves are unchanged.\n\n"
        f"- source: {conversion.source}\n- licence of the weights: {conversion.license}; whatever is trained "
        f"from them inherits it\n- {len(conversion.mapped)} tensors mapped\n{left_out}"
    )


if __name__ == "__main__":
    main()
