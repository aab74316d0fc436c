"""Preprocessing equals the stock processor's; random choices depend on their key alone."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage
from transformers import BitImageProcessor

from medhiera.config.arguments import AugmentationArguments
from medhiera.data.augmentation import GrayRandAugment, choose_augmentation, random_crop, random_rotation
from medhiera.data.dataset import KeyedSampler, RadiographCollator, RadiographDataset
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.seeding import seeded

PREPROCESSING = Preprocessing(image_size=64, resize_size=73, mean=0.5, std=0.25)


def picture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
    return PillowImage.fromarray(noise).resize((width, height), PillowImage.Resampling.BICUBIC)


@pytest.fixture
def rows():
    return Dataset.from_dict(
        {
            "image": [picture(80, 96, seed) for seed in range(6)],
            "image_id": [f"image {n}" for n in range(6)],
            "labels": [[float(n % 2), float("nan")] for n in range(6)],
        },
        features=Features({"image": Image(), "image_id": Value("string"), "labels": List(Value("float32"))}),
    )


@pytest.mark.parametrize("size", [(100, 100), (73, 73), (73, 140), (201, 120), (65, 64), (300, 511)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_same_pixels_as_the_published_processor(size, mode):
    image = picture(*size)
    ours = PREPROCESSING.normalize(PREPROCESSING.pixels(image.convert(mode)).unsqueeze(0))
    stock = PREPROCESSING.to_processor()(image.convert(mode), return_tensors="pt")["pixel_values"]
    assert ours.shape == stock.shape == (1, 3, 64, 64)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(100, 100), (203, 160), (160, 203), (97, 130), (64, 127), (511, 300)])
def test_the_crop_box_is_where_the_pixels_come_from(size):
    """A white patch is found where the box puts it, in the model's input and back in the image."""
    width, height = size
    preprocessing = Preprocessing(64, 80, 0.5, 0.25)
    box = preprocessing.crop_box(width, height)
    assert box == preprocessing.crop.box(width, height)
    left, top, right, bottom = box.in_image()
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == pytest.approx(64 / box.scale) == bottom - top
    pixels = np.zeros((height, width), np.uint8)
    x, y = int(left) + 8, int(top) + 8
    pixels[y : y + 8, x : x + 8] = 255
    seen = preprocessing.pixels(PillowImage.fromarray(pixels))[0].numpy().astype(float)
    weights = seen / seen.sum()
    rows, columns = np.mgrid[:64, :64] + 0.5
    assert (weights * columns).sum() == pytest.approx(box.scale * (x + 4) - box.left, abs=0.4)
    assert (weights * rows).sum() == pytest.approx(box.scale * (y + 4) - box.top, abs=0.4)


def test_processor_survives_the_round_trip(tmp_path):
    from transformers import AutoImageProcessor

    PREPROCESSING.to_processor().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "hiera"}')
    assert Preprocessing.from_processor(AutoImageProcessor.from_pretrained(tmp_path)) == PREPROCESSING


def test_unequal_channels_are_refused():
    processor = PREPROCESSING.to_processor()
    processor.image_mean = [0.485, 0.456, 0.406]
    with pytest.raises(ValueError, match="wanted a square crop and equal channels"):
        Preprocessing.from_processor(processor)


def test_mask_and_augmentation_depend_on_seed_epoch_and_image_alone(rows):
    def table(rows, seed=0):
        return RadiographDataset(rows, PREPROCESSING, seed=seed, augment=random_rotation(30), mask_units=4)

    backwards = rows.select(range(5, -1, -1))
    first, again, moved = table(rows)[3, 2], table(rows)[3, 2], table(backwards)[3, 3]
    for other in (again, moved):
        assert torch.equal(first["pixels"], other["pixels"])
        assert torch.equal(first["noise"], other["noise"])
    for other in (table(rows)[4, 2], table(rows, seed=1)[3, 2]):
        assert not torch.equal(first["noise"], other["noise"])
        assert not torch.equal(first["pixels"], other["pixels"])


def test_a_batch_is_what_its_rows_are_alone(rows):
    table = RadiographDataset(
        rows, PREPROCESSING, augment=random_rotation(30), mask_units=4, with_labels=True
    )
    keys = [(2, 5), (2, 0), 3, (1, 0)]
    for one, other in zip(table.__getitems__(keys), [table[key] for key in keys], strict=True):
        assert one.keys() == other.keys()
        assert one["image_id"] == other["image_id"]
        for name in ("pixels", "noise", "labels"):
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, equal_nan=True)


def test_evaluation_masks_are_fixed_across_runs(rows):
    one, two = (RadiographDataset(rows, PREPROCESSING, seed=seed, mask_units=4)[1] for seed in (0, 7))
    assert torch.equal(one["noise"], two["noise"])


def test_rotation_turns_and_blackens_the_corners():
    white = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    with seeded(5):
        turned = random_rotation(30)(white)
    assert turned.shape == white.shape
    assert turned[0, 0, 0] == 0
    assert turned[0, 32, 32] == 255


def test_a_random_crop_takes_the_place_of_resize_and_crop(rows):
    def table(seed=0, crops=True):
        crop = random_crop(64, 0.3) if crops else None
        return RadiographDataset(rows, PREPROCESSING, seed=seed, crop=crop)

    first, again, other_epoch = table()[3, 2], table()[3, 2], table()[4, 2]
    assert first["pixels"].shape == (1, 64, 64) and first["pixels"].dtype == torch.uint8
    assert torch.equal(first["pixels"], again["pixels"])
    assert not torch.equal(first["pixels"], other_epoch["pixels"])
    assert not torch.equal(first["pixels"], table(crops=False)[3, 2]["pixels"])


@pytest.mark.parametrize(
    "options",
    [{"horizontal_flip": True}, {"rand_augment": True}, {"horizontal_flip": True, "rand_augment": True}],
)
def test_flip_and_randaugment_depend_on_their_key_alone(rows, options):
    def pixels(epoch, seed=0):
        augment = choose_augmentation(AugmentationArguments(**options))
        table = RadiographDataset(rows, PREPROCESSING, seed=seed, augment=augment)
        return torch.stack([table[epoch, row]["pixels"] for row in range(6)])

    assert pixels(0).shape == (6, 1, 64, 64)
    assert torch.equal(pixels(0), pixels(0))
    assert not torch.equal(pixels(0), torch.stack([pixels(n) for n in range(1, 4)])[0])


def test_randaugment_knows_no_colour_and_nothing_is_asked_for_by_default():
    assert choose_augmentation(AugmentationArguments()) is None
    assert "Color" not in GrayRandAugment._AUGMENTATION_SPACE
    assert len(GrayRandAugment._AUGMENTATION_SPACE) == 13
    augment = GrayRandAugment()
    assert (augment.num_ops, augment.magnitude, augment.num_magnitude_bins) == (2, 9, 31)


def test_mixup_depends_on_the_batch_and_keeps_nan(rows):
    table = RadiographDataset(rows, PREPROCESSING, seed=0, with_labels=True)
    mixing, plain = RadiographCollator(mixup_alpha=0.8), RadiographCollator()

    def batch(collator, epoch, order=(0, 1, 2, 3)):
        return collator([table[epoch, row] for row in order])

    first, again = batch(mixing, 0), batch(mixing, 0)
    assert first["mixup_share"] == again["mixup_share"]
    for other in (batch(mixing, 1), batch(mixing, 0, (1, 2, 3, 4))):
        assert not torch.equal(first["labels"], other["labels"])
    unmixed = batch(plain, 0)
    shares = (first["labels"][:, 0] - unmixed["labels"][:, 0]).abs()
    share = shares[0].item()  # neighbours have opposite labels, so each moved by the other's share
    assert 0 < share < 1
    torch.testing.assert_close(shares, torch.full((4,), share))
    whole = PREPROCESSING.model_inputs(unmixed)["pixel_values"]
    mixed = PREPROCESSING.model_inputs(first)
    torch.testing.assert_close(mixed["pixel_values"], whole * (1 - share) + whole.roll(1, 0) * share)
    assert "mixup_share" not in mixed
    assert first["labels"][:, 1].isnan().all()
    evaluated = [table[row] for row in range(4)]
    assert mixing(evaluated).keys() == plain(evaluated).keys()


def test_a_batch_names_its_images_where_asked(rows):
    table = RadiographDataset(rows, PREPROCESSING)
    batch = RadiographCollator(with_ids=True)([table[4], table[2]])
    assert batch["image_ids"] == ["image 4", "image 2"]


def test_keyed_randomness_leaves_the_global_generators_alone():
    import random

    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    expected = (torch.rand(1).item(), random.random(), np.random.rand())  # noqa: NPY002
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    with seeded(99):
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_collator_hands_over_what_the_model_takes(rows):
    table = RadiographDataset(rows, PREPROCESSING, mask_units=4, mask_ratio=0.5, with_labels=True)
    batch = RadiographCollator()([table[0], table[1]])
    assert batch["pixel_values"].shape == (2, 1, 64, 64) and batch["pixel_values"].dtype == torch.uint8
    inputs = PREPROCESSING.model_inputs(batch)
    assert inputs["pixel_values"].shape == (2, 3, 64, 64)
    assert torch.equal(inputs["pixel_values"], PREPROCESSING.pixel_values(rows[:2]["image"]))
    assert batch["noise"].shape == (2, 4)
    assert batch["labels"][:, 0].tolist() == [0.0, 1.0]
    assert batch["labels"][:, 1].isnan().all()
    assert batch["mask_ratio"] == 0.5
    assert "image_id" not in batch


def test_sampler_visits_each_row_once_in_an_order_of_its_epoch():
    sampler = KeyedSampler(50, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        orders.append([key[1] for key in keys])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("step", [{"resample": 2}, {"do_center_crop": False}, {"rescale_factor": 1.0}])
def test_another_processors_steps_are_not_taken_for_ours(step):
    ours = Preprocessing(64, 72, 0.4, 0.3)
    assert Preprocessing.from_processor(ours.to_processor()) == ours
    settings = ours.to_processor().to_dict() | step
    with pytest.raises(ValueError, match=next(iter(step))):
        Preprocessing.from_processor(BitImageProcessor(**settings))


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.8])
def test_every_tensor_of_a_batch_can_be_pinned(rows, mixup_alpha):
    """Pinning copies a tensor into its own strides, which fails where elements share memory."""
    table = RadiographDataset(rows, PREPROCESSING, mask_units=4, with_labels=True)
    batch = RadiographCollator(with_ids=True, mixup_alpha=mixup_alpha)([table[0, row] for row in range(4)])
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    assert tensors.keys() == {"pixel_values", "noise", "labels"}
    for tensor in tensors.values():
        assert tensor.is_contiguous()
        copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        torch.testing.assert_close(copy, tensor, equal_nan=True)
