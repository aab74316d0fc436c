"""Make a converted checkpoint a stage of its own: the processor, record and card that publishing wants.

Stands between modeling_hiera_mae.convert and medhiera.hub.publish.

    python -m modeling_hiera_mae.convert mae_hiera_tiny_224.pth checkpoints/hiera-tiny-imagenet-mae
    python -m medhiera.hub.imagenet_stage checkpoints/hiera-tiny-imagenet-mae \
        --started_from facebook/hiera_tiny_224
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard
from transformers import BitImageProcessor

from medhiera.errors import UserError
from medhiera.hub.model_card import card_of
from medhiera.hub.record import Geometry, ImagenetRecord, Lineage
from medhiera.layout import CARD_FILE
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
        UserError: the folder holds no masked autoencoder, or its card names no licence.
    """
    try:
        model = HieraMAEForPreTraining.from_pretrained(folder)
        licence = ModelCard.load(folder / CARD_FILE).data.license
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} is no converted checkpoint: {reason}") from error
    if licence is None:
        raise UserError(f"{folder / 'README.md'} names no licence; weights are not published without one")
    side = int(model.config.image_size[0])
    BitImageProcessor(
        size={"shortest_edge": side * 256 // 224}, crop_size={"height": side, "width": side},
        image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD,
    ).save_pretrained(folder)  # fmt: skip
    is_hub_id = started_from.count("/") == 1 and not Path(started_from).exists()
    record = ImagenetRecord(
        kind="full",
        lineage=Lineage(
            started_from=started_from,
            base_model=started_from if is_hub_id else None,
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
    )
    record.write(folder)
    (folder / CARD_FILE).write_text(card_of(folder), encoding="utf-8")
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what modeling_hiera_mae.convert wrote")
    parser.add_argument("--started_from", required=True, help="a Hub id, or in words")
    options = parser.parse_args(arguments)
    try:
        complete(options.folder, options.started_from)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
