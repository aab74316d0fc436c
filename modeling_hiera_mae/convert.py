"""Checkpoints of other libraries → a folder that stock transformers opens, or one that timm opens.

It makes what stage 0 or 1 starts from by `from_pretrained`. (This file does not ship to the Hub.)

    python -m modeling_hiera_mae.convert mae_hiera_tiny_224.pth checkpoints/hiera-tiny-imagenet-mae
    python -m modeling_hiera_mae.convert timm/hiera_tiny_224.mae checkpoints/hiera-tiny-encoder
    python -m modeling_hiera_mae.convert runs/cls runs/cls-timm --to timm

SOURCE is one of: Meta's `.pth` (MAE or classifier), Meta's or timm's safetensors (the file, its folder or its
Hub id), a folder of stock transformers, a stage's folder, whose record and card go along, or what --to timm
made of one. Geometry is read from the weights and the config.json beside them; what does not fit is refused.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

_PROGRAM = globals().get("started_as", "python -m modeling_hiera_mae.convert")
"""What was typed: `medhiera` runs this file with started_as set."""


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog=_PROGRAM,
        description=(__doc__ or "").replace("python -m modeling_hiera_mae.convert", _PROGRAM),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="file, folder or Hub id")
    parser.add_argument("folder", type=Path, help="where the converted checkpoint goes")
    parser.add_argument(
        "--to", choices=("transformers", "timm"), default="transformers", help="whose format is written"
    )
    parser.add_argument("--num-heads", type=int, help="heads of the first stage, where the size is custom")
    parser.add_argument("--license", help="licence of the weights, where the source's card does not say")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from huggingface_hub import snapshot_download

from .configuration_hiera_mae import HieraMAEConfig
from .exclusive_loss import MULTI_LABEL, SINGLE_LABEL, applies_softmax
from .foreign_weights import infer_config, map_names
from .modeling_hiera import HieraMAEForImageClassification, HieraMAEModel
from .modeling_hiera_mae import HieraMAEForPreTraining
from .pretrained import HieraMAEPreTrainedModel
from .stage_record import CARD, FILES_OF_RECORD, FILES_OF_STAGE, PROCESSOR, RECORD, copy_files, stage_of
from .timm_folder import prepared_size, processor_of, usage, write_timm_folder
from .weight_files import Weights, read_json, read_weights

_META_LICENSE = "cc-by-nc-4.0"

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth")

_WRITTEN = {"config.json", "model.safetensors", CARD, PROCESSOR}

_IN_TRANSFORMERS = re.compile(r"(hiera\.)?embeddings\.patch_embeddings\.")
"""How names of weights begin that need no renaming."""


class Conversion(NamedTuple):
    """What a conversion did.

    Attributes:
        model: the converted model.
        mapped: each source name → the name it has now.
        left_out: source names that have no place in the model, with the reason.
        source: what the weights came from, for the card.
        license: licence of the weights.
        stage: the folder of the stage that was converted; None of any other source.
        goes_along: the files of that stage that are as right beside the converted weights.
        processor: the content of the source's preprocessor_config.json (timm's: see processor_of), or None.
    """

    model: HieraMAEPreTrainedModel
    mapped: dict[str, str]
    left_out: dict[str, str]
    source: str
    license: str
    stage: Path | None = None
    goes_along: tuple[str, ...] = ()
    processor: dict[str, Any] | None = None


def convert(source: str, num_heads: int | None = None, license_name: str | None = None) -> Conversion:
    """Read a checkpoint of Meta, timm or transformers into this package's model.

    Args:
        source: a file, a folder or a Hub id.
        num_heads: attention heads of the first stage, for a geometry that is none of the published sizes.
        license_name: licence of the weights; None takes the source's card, then Meta's CC-BY-NC.

    Raises:
        ValueError: the weights are not an image Hiera's, or do not fill the model exactly; or they are of a
            training run here, whose record is not beside them.
        FileNotFoundError: there is no such file, folder or repository name.
    """
    if license_name is not None and not license_name.isprintable():
        raise ValueError(f"--license is {license_name!r}; wanted one line: an SPDX or Hub name.")
    path, label = _locate(source)
    stage = stage_of(path if path.is_dir() else path.parent, label, license_name)
    if path.is_dir() and _config_of(path).get("model_type") == HieraMAEConfig.model_type:
        return _convert_stock(path, label, license_name, stage)
    weights_file = path if path.is_file() else _weights_in(path)
    state = read_weights([weights_file])
    neighbour = _config_of(weights_file.parent)
    if any(_IN_TRANSFORMERS.match(name) for name in state):
        raise ValueError(
            f"{weights_file.name} has transformers' names already. Put it in a folder as "
            "pytorch_model.bin (or model.safetensors), beside the config.json it was saved with, and name "
            "that folder: it can be loaded as it is."
        )
    config = infer_config(state, neighbour, num_heads)
    mapped, left_out = map_names(state, config.depths)
    model = _build(config, mapped, neighbour.get("problem_type"))  # of timm's folders, ours alone say it
    _fill(model, state, mapped)
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    return Conversion(
        model,
        mapped,
        left_out,
        f"{label} (SHA-256 {digest})",
        license_name or _card_license(weights_file.parent) or _META_LICENSE,
        stage,
        FILES_OF_RECORD,
        processor_of(neighbour),
    )


def save(conversion: Conversion, folder: Path) -> None:
    """Write weights, config.json and a card that names source and licence; a stage keeps its record and card.

    Args:
        conversion: what `convert` returned.
        folder: made if absent.

    Raises:
        ValueError: the folder holds a stage, or a file that would be overwritten.
        OSError: it cannot be written.
    """
    _refuse_overwriting(folder)
    conversion.model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # which the library lets their owner alone read
        shutil.copymode(folder / "config.json", file)
    if CARD not in conversion.goes_along:
        (folder / CARD).write_text(_card(conversion), encoding="utf-8")
        if conversion.processor is not None:
            (folder / PROCESSOR).write_text(json.dumps(conversion.processor, indent=2), encoding="utf-8")
    if conversion.stage is not None:
        copy_files(conversion.stage, conversion.goes_along, folder)


def save_for_timm(conversion: Conversion, folder: Path) -> Conversion:
    """Write weights, config.json and a card as timm has them; a stage's record goes along.

    Args:
        conversion: what `convert` returned.
        folder: made if absent.

    Returns:
        What was mapped and left out on the way to timm's names.

    Raises:
        ValueError: the folder holds a stage, or timm's Hiera cannot have this geometry.
        OSError: it cannot be written.
    """
    _refuse_overwriting(folder)
    mapped, left_out = write_timm_folder(conversion.model, folder, conversion.processor)
    conversion = conversion._replace(mapped=mapped, left_out=left_out, goes_along=FILES_OF_RECORD)
    (folder / CARD).write_text(_card(conversion, "timm"), encoding="utf-8")
    if conversion.stage is not None:
        copy_files(conversion.stage, conversion.goes_along, folder)
    return conversion


def _refuse_overwriting(folder: Path) -> None:
    what = ", ".join(sorted({path.name for path in folder.glob("*")} & _WRITTEN))
    if (folder / RECORD).exists():
        what = f"a stage: its {RECORD} and card would speak of weights that are no longer there"
    if what:
        raise ValueError(f"{folder} holds {what}; nothing is overwritten. Name a new folder.")


def report(conversion: Conversion, library: str = "transformers") -> str:
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
    if library == "timm":
        lines += [f"  {note}" for note in _timm_notes(conversion)]
    elif isinstance(model, HieraMAEModel):
        lines.append("  Only the encoder is in the source: decoder, final norm and head will be new.")
    if conversion.stage is not None:
        is_whole = CARD in conversion.goes_along
        along = "record, card and processor go" if is_whole else "record goes"
        lines.append(f"  A stage of this project: its {along} along unchanged.")
    return "\n".join([*lines, f"  licence {conversion.license}"])


def _timm_notes(conversion: Conversion) -> list[str]:
    """What a reader of the timm folder has to know, one sentence each."""
    notes = []
    if not any(target.startswith("head.norm.") for target in conversion.mapped.values()):
        notes.append("The source has no final norm: timm's head.norm is new, with weight 1 and bias 0.")
    if conversion.processor is None:
        notes.append("The source has no image processor: timm's own mean and standard deviation apply.")
    model, size = conversion.model, prepared_size(conversion.processor)
    if size is not None and size != list(model.config.image_size):
        notes.append(
            f"Position embeddings are stretched from {' × '.join(map(str, model.config.image_size))} to the "
            f"{' × '.join(map(str, size))} pixels that the image processor gives."
        )
    if isinstance(model, HieraMAEForImageClassification) and not applies_softmax(model.config):
        notes.append("Labels are independent: a probability is the sigmoid of a logit, not a softmax.")
    return notes


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (see the top of this file)."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        if (
            options.folder.is_dir()
            and os.path.isdir(options.source)
            and options.folder.samefile(options.source)
        ):
            raise ValueError(f"{options.folder} is the source itself; name another folder to write to.")
        conversion = convert(options.source, options.num_heads, options.license)
        if options.to == "timm":
            conversion = save_for_timm(conversion, options.folder)
        else:
            save(conversion, options.folder)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    sys.stdout.write(f"{report(conversion, options.to)}\n  written to {options.folder}\n")


def _locate(source: str) -> tuple[Path, str]:
    """A local path, downloaded first where `source` is a Hub id; and what to call it in the card."""
    path = Path(source)
    if path.exists():
        return path, path.name
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not (path.suffix[:2] == ".p" or path.parent.is_dir()):
        patterns = ["config.json", *_WEIGHT_FILES, "model*.safetensors*", *FILES_OF_STAGE]
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


def _config_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json; empty where there is none."""
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def _card_license(folder: Path) -> str | None:
    card = folder / CARD
    if not card.is_file():
        return None
    found = re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.M)
    return found.group(1).strip("'\"") if found else None


def _build(config: HieraMAEConfig, mapped: Mapping[str, str], problem_type: Any) -> HieraMAEPreTrainedModel:
    """The model whose weights these are: MAE, classifier or encoder alone."""
    names = set(mapped.values())
    if "decoder.mask_token" in names:
        return HieraMAEForPreTraining(config)
    if "classifier.weight" in names:
        is_multi_label = problem_type == MULTI_LABEL
        if is_multi_label or config.num_labels > 1:
            config.problem_type = MULTI_LABEL if is_multi_label else SINGLE_LABEL  # ImageNet's
        return HieraMAEForImageClassification(config)
    return HieraMAEModel(config, add_pooling_layer=False)


def _fill(model: HieraMAEPreTrainedModel, state: Weights, mapped: Mapping[str, str]) -> None:
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


def _convert_stock(path: Path, label: str, license_name: str | None, stage: Path | None) -> Conversion:
    """A folder transformers wrote: same names, loaded by what it was trained as."""
    classes = {
        "HieraForPreTraining": HieraMAEForPreTraining,
        "HieraForImageClassification": HieraMAEForImageClassification,
        "HieraModel": HieraMAEModel,
    }
    architectures = _config_of(path).get("architectures") or []
    stated = [
        str(name).replace("HieraMAE", "Hiera") for name in architectures if isinstance(architectures, list)
    ]
    if not stated or stated[0] not in classes:
        raise ValueError(f"{label} says it is {stated or 'nothing'}; wanted one of {', '.join(classes)}.")
    model = classes[stated[0]].from_pretrained(path)
    mapped = {name: name for name in model.state_dict()}
    chosen = license_name or _card_license(path) or _META_LICENSE
    processor = path / PROCESSOR
    prepared = read_json(processor) if processor.is_file() else None
    along = () if stage is None else FILES_OF_STAGE
    return Conversion(model, mapped, {}, label, chosen, stage, along, prepared)


def _group(name: str) -> str:
    """The part of a weight's name that says what it belongs to."""
    parts = name.split(".")
    inner = {"embeddings", "encoder", "decoder", "pooler"}
    return ".".join(parts[:2]) if parts[0] in inner and len(parts) > 2 else parts[0]


def _card(conversion: Conversion, library: str = "transformers") -> str:
    model = conversion.model
    kind = {
        HieraMAEForPreTraining: "masked autoencoder (encoder and decoder)",
        HieraMAEForImageClassification: f"classifier of {model.config.num_labels} labels",
        HieraMAEModel: "encoder alone",
    }[type(model)]
    left_out = "".join(
        f"- left out `{_plain(name)}`: {reason}\n" for name, reason in conversion.left_out.items()
    )
    notes = "".join(f"- {note}\n" for note in _timm_notes(conversion)) if library == "timm" else ""
    metadata = {"license": conversion.license, "library_name": library, "tags": ["hiera"]}
    return (
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, width=math.inf)}---\n\n"
        f"# Hiera {model.config.size_name or ''} {kind}\n\n"
        "Converted with `python -m modeling_hiera_mae.convert`; the weights themselves are unchanged.\n\n"
        f"- source: {_plain(conversion.source)}\n- licence of the weights: {_plain(conversion.license)}; "
        f"whatever is trained from them inherits it\n- {len(conversion.mapped)} tensors mapped\n{left_out}"
        f"{notes}{usage(model.config.num_channels) if library == 'timm' else ''}"
    )


def _plain(name: str) -> str:
    """A name as one line without HTML, code or table marks: it comes from a file or the command line."""
    return re.sub(r"[<>`|&]", "?", " ".join(name.split()))


if __name__ == "__main__":
    main()
