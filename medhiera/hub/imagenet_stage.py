r"""Make a converted checkpoint a stage of its own: the processor, record and card that publishing wants.

The second of two commands, before medhiera.hub.publish:

    python -m modeling_hiera_mae.convert mae_hiera_tiny_224.pth checkpoints/hiera-tiny-imagenet-mae
    python -m medhiera.hub.imagenet_stage checkpoints/hiera-tiny-imagenet-mae \
        --started_from facebook/hiera_tiny_224
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument("folder", type=Path, help="what modeling_hiera_mae.convert wrote")
    parser.add_argument("--started_from", required=True, help="a Hub id, or in words")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

from collections.abc import Sequence

from transformers import BitImageProcessor

from dataset_scripts.mistyped import is_repository
from medhiera.errors import UserError
from medhiera.hub.contents import contents_of
from medhiera.hub.lineage import card_metadata, find_record, record_before
from medhiera.hub.model_card import card_of
from medhiera.hub.record import Geometry, ImagenetRecord, Lineage
from medhiera.layout import CARD_FILE, LOG_FILE, PROCESSOR_FILE, PUBLISHED_FILE
from medhiera.loading import load_model
from modeling_hiera_mae import HieraMAEForPreTraining

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def complete(folder: Path, started_from: str) -> ImagenetRecord:
    """Write preprocessor_config.json, metrics.json and README.md into a converted folder.

    Args:
        folder: config.json, model.safetensors and the card that convert wrote, which names the licence.
        started_from: what the weights came from, for people: a Hub id or a file's name.

    Returns:
        The record.

    Raises:
        UserError: the folder holds no masked autoencoder, or its card names no licence; or something in it,
            or the record of what it started from, says that its weights have seen medical images.
    """
    try:
        refuse_medical(folder, started_from)
        model, _ = load_model(HieraMAEForPreTraining, folder)
        licence = card_metadata(folder).license
    except UserError as error:
        raise UserError(f"{folder} is no converted checkpoint: {error}") from error
    if licence is None:
        raise UserError(f"{folder / 'README.md'} names no licence; weights are not published without one")
    side = int(model.config.image_size[0])
    BitImageProcessor(
        size={"shortest_edge": side * 256 // 224}, crop_size={"height": side, "width": side},
        image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD,
    ).save_pretrained(folder)  # fmt: skip
    record = ImagenetRecord(
        kind="full",
        lineage=Lineage(
            started_from=started_from,
            base_model=started_from if is_repository(started_from) else None,
            license=licence,
            new_weights=[],
            earlier_sources=[],
            leakage_before=[],
        ),
        model=Geometry(
            image_size=side,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            depths=list(model.config.depths),
            embed_dim=model.config.embed_dim,
        ),
        contents=contents_of(folder),
    )
    record.write(folder)
    (folder / CARD_FILE).write_text(card_of(folder), encoding="utf-8")
    return record


def refuse_medical(folder: Path, started_from: str) -> None:
    """Refuse what anything at hand says is no stage 0: the card would say it has seen no medical image.

    Args:
        folder: what would be completed.
        started_from: as for `complete`; a folder's or repository's own record is asked.

    Raises:
        UserError: the folder, or what it started from, is a stage 1 or 2; or the folder bears other marks of
            training here.
    """
    for source in (str(folder), started_from):
        record = record_before(source)
        if record is not None and record.stage:
            raise UserError(
                f"{source} holds stage {record.stage}, which was trained on medical images; it keeps its own "
                "record and card. Stage 0 is a converted checkpoint of Meta's or timm's weights"
            )
    marks = [name for name in (LOG_FILE, PUBLISHED_FILE) if (folder / name).exists()]
    marks += sorted(path.name for path in folder.glob("checkpoint-*"))
    is_stage_0 = find_record(folder) is not None
    if marks and not (is_stage_0 and marks == [PUBLISHED_FILE]):
        raise UserError(
            f"it was trained or published here (it holds {', '.join(marks)}), and no record says on what"
        )
    if is_stage_0:
        return
    if (folder / PROCESSOR_FILE).is_file():
        raise UserError(
            f"it has a {PROCESSOR_FILE}, which a conversion does not write, and which would be overwritten: "
            "its weights were trained with another normalization"
        )
    tags = card_metadata(folder).tags
    if medical := sorted({"medical", "radiology", "chest-x-ray"} & set(tags or [])):
        raise UserError(f"its card has the tag {medical[0]!r}: its weights have seen medical images")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        complete(options.folder, options.started_from)
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
