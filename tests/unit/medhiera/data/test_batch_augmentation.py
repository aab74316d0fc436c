"""Batched augmentation beside torchvision's, picture by picture; and the same on a GPU."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from medhiera.data.augmentation import Augmentation
from medhiera.data.batch_augmentation import DRAWS, OPERATIONS, augment, rand_augment, resize, rotate
from medhiera.data.seeding import derive_seed

TORCHVISION = v2.RandAugment()
SIGNED = [name for name, (_, is_signed) in TORCHVISION._AUGMENTATION_SPACE.items() if is_signed]


def noise(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, height, width), dtype=np.uint8))


def pictures(count, side, seed=0):
    """Smooth pictures of several brightnesses and contrasts; the last is of one gray level."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 1, side // 8 + 1, side // 8 + 1), dtype=np.uint8)
    smooth = tvf.resize(torch.from_numpy(coarse), [side, side], interpolation=v2.InterpolationMode.BICUBIC)
    scale, offset = (
        torch.from_numpy(generator.uniform(*span, (count, 1, 1, 1))) for span in ((0.2, 1.0), (0, 80))
    )
    batch = (smooth * scale + offset).clamp(0, 255).to(torch.uint8)
    batch[-1] = 100
    return batch


def difference(ours, theirs):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == torch.uint8
    return (ours.int() - theirs.int()).abs()


@pytest.mark.parametrize("image_size", [64, 128, 224])
def test_crops_are_torchvisions_within_one_gray_level(image_size):
    """Noise, the hardest picture to resize: boxes of many sizes, enlarged and shrunk, plain and mirrored."""
    generator = np.random.default_rng(image_size)
    worst, mean = [], []
    for round_ in range(6):
        sizes = generator.integers(image_size // 4, 2 * image_size + 1, (6, 2))
        padded = torch.full(
            (6, 1, *sizes.max(0)), 255, dtype=torch.uint8
        )  # what stands beside does not count
        is_flipped = torch.tensor([False, True] * 3)
        theirs = []
        for index, (height, width) in enumerate(sizes.tolist()):
            box = noise(height, width, index + 6 * round_)
            padded[index, :, :height, :width] = box
            resized = tvf.resized_crop(
                box, 0, 0, height, width, [image_size, image_size], v2.InterpolationMode.BICUBIC, True
            )
            theirs.append(resized.flip(-1) if is_flipped[index] else resized)
        ours = resize(padded, torch.from_numpy(sizes), image_size, is_flipped)
        found = difference(ours, torch.stack(theirs)).float()
        worst.append(found.max().item())
        mean.append(found.mean().item())
    assert max(worst) <= 1 and np.mean(mean) < 0.25


def test_a_box_of_the_right_size_is_left_as_it_is():
    box = noise(64, 64)
    assert torch.equal(resize(box[None], torch.tensor([[64, 64]]), 64)[0], box)
    mirrored = resize(box[None], torch.tensor([[64, 64]]), 64, torch.tensor([True]))
    assert torch.equal(mirrored[0], box.flip(-1))


def test_torchvisions_space_without_color_is_ours():
    assert set(OPERATIONS) == set(TORCHVISION._AUGMENTATION_SPACE) - {"Color"}
    assert (TORCHVISION.num_ops, TORCHVISION.magnitude, TORCHVISION.num_magnitude_bins) == (2, 9, 31)


@pytest.mark.parametrize("side", [64, 97, 224])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_torchvisions_bit_for_bit(operation, side):
    batch = pictures(5, side)
    magnitudes = TORCHVISION._AUGMENTATION_SPACE[operation][0](31, side, side)
    for sign in (1.0, -1.0) if operation in SIGNED else (1.0,):
        magnitude = 0.0 if magnitudes is None else float(magnitudes[9]) * sign
        theirs = torch.stack(
            [
                TORCHVISION._apply_image_or_video_transform(
                    picture, operation, magnitude, v2.InterpolationMode.NEAREST, {torch.Tensor: None}
                )
                for picture in batch
            ]
        )
        ours = rand_augment(batch, torch.full((5,), OPERATIONS.index(operation)), torch.full((5,), sign))
        assert torch.equal(ours, theirs)
        assert operation == "Identity" or not torch.equal(ours, batch)


def test_each_picture_has_its_own_operation():
    batch = pictures(len(OPERATIONS), 64)
    operations, signs = torch.arange(len(OPERATIONS)), torch.ones(len(OPERATIONS))
    mixed = rand_augment(batch, operations, signs)
    for index in range(len(OPERATIONS)):
        alone = rand_augment(batch[[index]], operations[[index]], signs[[index]])
        assert torch.equal(mixed[[index]], alone)


@pytest.mark.parametrize("side", [64, 97, 224])
def test_rotation_is_torchvisions_within_one_gray_level(side):
    batch = pictures(6, side)
    angles = torch.tensor([0.0, -30.0, 12.3, 29.9, -0.4, 17.0])
    theirs = torch.stack(
        [
            tvf.rotate(picture, angle, v2.InterpolationMode.BILINEAR, fill=0)
            for picture, angle in zip(batch, angles.tolist(), strict=True)
        ]
    )
    found = difference(rotate(batch, angles), theirs)
    assert found.max() <= 1 and (found > 0).float().mean() < 1e-3
    white = rotate(torch.full((1, 1, side, side), 255, dtype=torch.uint8), torch.tensor([30.0]))
    assert white[0, 0, 0, 0] == 0 and white[0, 0, side // 2, side // 2] == 255


@pytest.mark.parametrize("side", [64, 97, 224])
def test_nearest_rotation_is_torchvisions(side):
    """But for places halfway between two pixels, where rounding decides."""
    batch = pictures(6, side)
    angles = torch.tensor([0.0, -30.0, 12.3, 29.9, -0.4, 17.0])
    theirs = torch.stack(
        [
            tvf.rotate(picture, angle, v2.InterpolationMode.NEAREST, fill=0)
            for picture, angle in zip(batch, angles.tolist(), strict=True)
        ]
    )
    found = augment(batch, {"nearest_angle": angles}, side)
    assert (found != theirs).float().mean() < 1e-3
    assert torch.isin(found[1], torch.cat([batch[1].flatten(), torch.zeros(1, dtype=torch.uint8)])).all()
    assert (found != rotate(batch, angles)).float().mean() > 0.1


def drawn_batch():
    """Boxes of several sizes in a batch that pads them, with every draw that there is."""
    augmentation = Augmentation(0.3, has_flip=True, has_rand_augment=True, rotation_degrees=20.0)
    keys = np.array([derive_seed(0, 0, str(n), "image") for n in range(32)], np.uint64)
    sizes = np.random.default_rng(1).integers(60, 129, (32, 2))
    return pictures(32, 128), {"crop_size": torch.from_numpy(sizes), **augmentation.draws(keys)}


def test_all_draws_of_a_batch_are_applied_in_turn():
    pixels, draws = drawn_batch()
    assert draws.keys() == set(DRAWS) - {"nearest_angle"}  # it stands in the place of `angle`
    expected = resize(pixels, draws["crop_size"], 64, draws["is_flipped"])
    for chosen in draws["operations"].unbind(1):
        expected = rand_augment(expected, chosen[:, 0].long(), chosen[:, 1])
    assert torch.equal(augment(pixels, draws, 64), rotate(expected, draws["angle"]))
    flipped = augment(pixels, {"is_flipped": draws["is_flipped"]}, 64)
    assert torch.equal(flipped[draws["is_flipped"]], pixels[draws["is_flipped"]].flip(-1))
    assert torch.equal(flipped[~draws["is_flipped"]], pixels[~draws["is_flipped"]])


def test_autocast_does_not_round_the_pixels():
    """As the search for a batch that fits into memory runs it, and whoever makes inputs beside the model."""
    pixels, draws = drawn_batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(pixels, draws, 64)
    assert torch.equal(found, augment(pixels, draws, 64))


@pytest.mark.gpu
@pytest.mark.parametrize("uses_tf32", [False, True])
def test_a_gpu_makes_the_same_pixels(uses_tf32):
    """The crop to the bit, TF32 or not; the whole chain within one gray level in all but a thousandth."""
    pixels, draws = drawn_batch()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if uses_tf32 else "highest")
    try:
        there = {name: value.cuda() for name, value in draws.items()}
        crop = {name: there[name] for name in ("crop_size", "is_flipped")}
        cropped, whole = (augment(pixels.cuda(), chosen, 64).cpu() for chosen in (crop, there))
    finally:
        torch.set_float32_matmul_precision(before)
    expected = augment(pixels, {name: draws[name] for name in crop}, 64)
    assert (difference(cropped, expected) > 0).float().mean() < 1e-4
    assert difference(cropped, expected).max() <= 1
    assert (difference(whole, augment(pixels, draws, 64)) > 1).float().mean() < 1e-3
