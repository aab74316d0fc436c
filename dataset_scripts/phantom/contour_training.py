"""Train the network behind the chest contour, on drawings alone.

    python -m dataset_scripts.phantom.contour_training dataset_scripts/build/chest_contour.safetensors
    python -m dataset_scripts.phantom.contour_training /tmp/small.safetensors --pictures 64 --steps 4

The first line made the file in the repository (one core, about ten minutes). Above `varied_chest`, which
draws; `dataset_scripts.build.chest_contour` uses the file.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m dataset_scripts.phantom.contour_training",
        description="Train the chest contour on drawings.",
    )
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    parser.add_argument("--pictures", type=int, default=16_000, help="to draw (default: 16000)")
    parser.add_argument("--steps", type=int, default=2_400, help="of 32 pictures (default: 2400)")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other chests (default: 0)")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dataset_scripts.build.contour_network import GRID, ContourNetwork, add_context, equalize, shrink
from dataset_scripts.phantom.varied_chest import draw_varied_chest

logger = logging.getLogger(__name__)

_BATCH = 32

_LEARNING_RATE = 3e-3

_DROPPED = 0.1  # of the three views of brightness, so that none alone is relied on


def draw_examples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw chests as the network sees them.

    Returns:
        (count, 2, 64, 64) of `equalize`; (count, 64, 64), the share of each cell that is lung.
    """
    seen, wanted = np.empty((count, 2, GRID, GRID), np.float32), np.empty((count, GRID, GRID), np.float32)
    for index in range(count):
        picture, is_lung = draw_varied_chest(np.random.default_rng([seed, index]))
        seen[index] = equalize(shrink(picture))
        mask = Image.fromarray(is_lung.astype(np.float32))
        wanted[index] = np.asarray(mask.resize((GRID, GRID), Image.Resampling.BOX))
    return torch.from_numpy(seen), torch.from_numpy(wanted)


def train(seen: torch.Tensor, wanted: torch.Tensor, steps: int, seed: int) -> ContourNetwork:
    """Train on what `draw_examples` drew: cross-entropy and Dice loss, AdamW, one cycle of the rate."""
    torch.manual_seed(seed)
    network = ContourNetwork(normalize=True).train().to(memory_format=torch.channels_last)  # -30 % time
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    for step in range(steps):
        chosen = torch.randint(len(seen), (min(_BATCH, len(seen)),))
        inputs, lungs = seen[chosen], wanted[chosen]
        if step % 2:
            inputs, lungs = inputs.flip(-1), lungs.flip(-1)
        context = add_context(inputs)
        context[:, :3] *= torch.rand(len(chosen), 3, 1, 1) > _DROPPED
        logits = network(context.contiguous(memory_format=torch.channels_last))
        likely = logits.sigmoid()
        overlap, areas = (likely * lungs).sum((1, 2)), (likely + lungs).sum((1, 2))
        dice = 1 - (2 * overlap + 1) / (areas + 1)
        loss = functional.binary_cross_entropy_with_logits(logits, lungs) + 0.5 * dice.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            logger.info("step %d of %d: loss %.4f", step, steps, loss.item())
    return network.eval()


def fold_batch_norm(network: ContourNetwork) -> dict[str, torch.Tensor]:
    """The weights of the same network without batch normalization, as float16."""
    folded = ContourNetwork()
    for trained, plain in zip(_layers(network), _layers(folded), strict=True):
        convolution, norm, _ = trained
        assert isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d)
        plain[0].load_state_dict(fuse_conv_bn_eval(convolution, norm).state_dict())
    folded.head.load_state_dict(network.head.state_dict())
    return {name: weight.half().contiguous() for name, weight in folded.state_dict().items()}


def _layers(network: ContourNetwork) -> Iterator[torch.nn.Sequential]:
    """Convolutions with what follows each, in the order of the network."""
    for module in network.modules():
        if isinstance(module, torch.nn.Sequential) and isinstance(module[0], torch.nn.Conv2d):
            yield module


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.pictures < 1 or options.steps < 4:
        parser.error("--pictures is at least 1, --steps at least 4")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seen, wanted = draw_examples(options.pictures, options.seed)
    logger.info("drew %d chests", options.pictures)
    network = train(seen, wanted, options.steps, options.seed)
    save_file(fold_batch_norm(network), options.output)
    logger.info("wrote %s, %d bytes", options.output, options.output.stat().st_size)


if __name__ == "__main__":
    main()
