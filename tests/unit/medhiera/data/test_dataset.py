"""Preprocessing equals the stock processor's; random choices depend on their key alone."""

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage
from torch.utils.data import DataLoader
from transformers import BitImageProcessor

from medhiera.data import batch_memory
from medhiera.data.augmentation import Augmentation
from medhiera.data.batch_memory import BatchMemory, SentBatch
from medhiera.data.dataset import KeyedSampler, RadiographCollator, RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.training.out_of_memory import first_images

MASKS = MaskDrawing((2, 2), 0.5)
PREPROCESSING = Preprocessing(image_size=64, resize_size=73, mean=0.5, std=0.25)


def picture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
    return PillowImage.fromarray(noise).resize((width, height), PillowImage.Resampling.BICUBIC)


def make_rows(sizes):
    return Dataset.from_dict(
        {
            "image": [picture(*size, seed) for seed, size in enumerate(sizes)],
            "image_id": [f"image {n}" for n in range(len(sizes))],
            "labels": [[float(n % 2), float("nan")] for n in range(len(sizes))],
        },
        features=Features({"image": Image(), "image_id": Value("string"), "labels": List(Value("float32"))}),
    )


@pytest.fixture
def rows():
    return make_rows([(80, 96)] * 6)


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


def test_a_crop_larger_than_the_resized_image_is_refused():
    """It would need padding, which the other processor does and crop_gray does not."""
    settings = PREPROCESSING.to_processor().to_dict()
    settings |= {"size": {"shortest_edge": 224}, "crop_size": {"height": 288, "width": 288}}
    with pytest.raises(ValueError, match="crop of 288 pixels .* 224"):
        Preprocessing.from_processor(BitImageProcessor(**settings))


MODERN = Augmentation(smallest_scale=0.3, has_flip=True, has_rand_augment=True)
PAPER = Augmentation(rotation_degrees=30.0)


def model_pixels(batch):
    return PREPROCESSING.model_inputs(batch)["pixel_values"]


@pytest.mark.parametrize("augmentation", [MODERN, PAPER, Augmentation(has_flip=True)])
def test_mask_and_augmentation_depend_on_seed_epoch_and_image_alone(rows, augmentation):
    def table(rows, seed=0):
        return RadiographDataset(rows, PREPROCESSING, seed=seed, augmentation=augmentation, masks=MASKS)

    def batch(epoch, seed=0):
        return table(rows, seed).__getitems__([(epoch, row) for row in range(6)])

    first, again = batch(3), batch(3)
    moved = table(rows.select(range(5, -1, -1))).__getitems__([(3, row) for row in range(5, -1, -1)])
    for other in (again, moved):
        assert torch.equal(model_pixels(first), model_pixels(other))
        assert torch.equal(first["noise"], other["noise"])
    for other in (batch(4), batch(3, seed=1)):
        assert not torch.equal(first["noise"], other["noise"])
        assert not torch.equal(model_pixels(first), model_pixels(other))
    assert model_pixels(first).shape == (6, 3, 64, 64)
    plain = RadiographDataset(rows, PREPROCESSING).__getitems__(range(6))
    assert not torch.equal(model_pixels(first), model_pixels(plain))


@pytest.mark.parametrize("augmentation", [MODERN, PAPER])
def test_a_batch_is_what_its_rows_are_alone(augmentation):
    """Also among images of other sizes, which the batch pads to."""
    rows = make_rows([(80, 96), (300, 90), (64, 64), (96, 80), (500, 400), (200, 73)])
    table = RadiographDataset(rows, PREPROCESSING, augmentation=augmentation, masks=MASKS, with_labels=True)
    keys = [(2, 5), (2, 0), (2, 4), (1, 1), (2, 2), (1, 3)]
    batch = table.__getitems__(keys)
    for place, key in enumerate(keys):
        alone = table[key]
        assert alone["image_ids"] == [batch["image_ids"][place]]
        assert torch.equal(model_pixels(alone)[0], model_pixels(batch)[place])
        for name in ("noise", "labels"):
            torch.testing.assert_close(alone[name][0], batch[name][place], rtol=0, atol=0, equal_nan=True)


def test_what_the_memory_held_beyond_a_crop_does_not_count():
    """Nobody clears it: a worker's memory holds an earlier batch."""
    rows = make_rows([(80, 96), (300, 90), (64, 64), (500, 400)])
    batch = RadiographDataset(rows, PREPROCESSING, augmentation=MODERN).__getitems__(
        [(0, n) for n in range(4)]
    )
    height, width = batch["pixel_values"].shape[-2:]
    assert not batch["crop_size"].eq(torch.tensor([height, width])).all()
    expected = model_pixels(batch)
    for value in (0, 255):
        for pixels, (bottom, right) in zip(batch["pixel_values"][:, 0], batch["crop_size"], strict=True):
            pixels[bottom:], pixels[:, right:] = value, value
        assert torch.equal(model_pixels(batch), expected)


def test_every_number_of_workers_gives_the_same_batches(rows):
    """All are kept until the end: a worker uses its memory again, and no batch may lie in it."""

    def batches(workers):
        table = RadiographDataset(rows, PREPROCESSING, augmentation=MODERN, masks=MASKS, with_labels=True)
        sampler = KeyedSampler(6, 0)
        loader = DataLoader(
            table, batch_size=1, num_workers=workers, sampler=sampler, persistent_workers=workers > 0,
            collate_fn=RadiographCollator(mixup_alpha=0.5),
        )  # fmt: skip
        for epoch in range(3):
            sampler.set_epoch(epoch)
            yield from loader

    for own, sent in zip(list(batches(0)), list(batches(2)), strict=True):
        assert own.keys() == sent.keys()
        for name in own:
            torch.testing.assert_close(own[name], sent[name], rtol=0, atol=0, equal_nan=True)


def send(slot, pixels, **options):
    batch = SentBatch({"pixel_values": pixels}, slot, **options)
    return ForkingPickler.loads(ForkingPickler.dumps(batch))["pixel_values"]


def test_a_workers_memory_is_used_again_when_its_batch_has_been_received():
    memory = BatchMemory()
    slot, pixels = memory.take(2, 1, 8, 8)
    waiting, _ = memory.take(2, 1, 8, 8)
    assert pixels.shape == (2, 1, 8, 8) and slot is not waiting
    pixels.fill_(7)
    received = send(slot, pixels)
    again, reused = memory.take(1, 1, 8, 9)
    assert again is slot and reused.shape == (1, 1, 8, 9)
    reused.fill_(9)
    assert received.is_contiguous() and received.eq(7).all()
    assert send(again, reused).eq(9).all()  # by the slot's number alone
    larger, pixels = memory.take(9, 1, 8, 8)
    assert larger not in (slot, waiting) and larger.number == slot.number
    pixels.fill_(5)
    assert send(larger, pixels).eq(5).all()
    other, theirs = BatchMemory().take(2, 1, 8, 8)
    theirs.fill_(3)
    assert send(other, theirs).eq(3).all() and waiting.number != other.number != larger.number


def test_what_is_not_pixels_arrives_through_the_pipe():
    """No memory is shared for it: torch would map each tensor anew in the process that receives."""
    slot, pixels = BatchMemory().take(2, 1, 8, 8)
    small = {
        "labels": torch.tensor([[0.5, float("nan")], [1, 0]]),
        "is_flipped": torch.tensor([True, False]),
        "crop_size": torch.tensor([[8, 7], [6, 5]]),
    }
    rest = {"mixup_share": 0.25, "image_ids": ["one", "two"]}
    sent = ForkingPickler.dumps(SentBatch({"pixel_values": pixels, **small, **rest}, slot))
    assert not any(tensor.is_shared() for tensor in small.values())
    received = ForkingPickler.loads(sent)
    assert received.keys() == {"pixel_values", *small, *rest}
    for name, tensor in small.items():
        torch.testing.assert_close(received[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert {name: received[name] for name in rest} == rest


def test_a_batch_is_received_in_pinned_memory_where_the_loader_pins(monkeypatch):
    """No GPU here: that pinned memory is asked for; the next test has one."""
    slot, pixels = BatchMemory().take(2, 1, 8, 8)
    make, asked = torch.empty, []

    def empty(*shape, pin_memory=None, **options):
        asked.extend([] if pin_memory is None else [pin_memory])
        return make(*shape, **options)

    monkeypatch.setattr(torch, "empty", empty)
    assert send(slot, pixels, pin_memory=True).shape == pixels.shape
    assert send(slot, pixels).shape == pixels.shape
    assert asked == [True, False]


@pytest.mark.gpu
def test_a_loader_that_pins_copies_a_batch_once():
    collator = RadiographCollator(pin_memory=True)
    loader = torch.utils.data.DataLoader(Pixels(), 4, num_workers=2, pin_memory=True, collate_fn=collator)
    for number, batch in enumerate(loader):
        assert batch["pixel_values"].is_pinned() and batch["pixel_values"].eq(4 * number).all()


class Pixels(torch.utils.data.Dataset):
    """Batches whose pixels are all equal to the index of their first row."""

    def __init__(self):
        self.memory = BatchMemory()

    def __len__(self):
        return 80

    def __getitems__(self, rows):
        slot, pixels = self.memory.take(len(rows), 1, 4 + rows[0], 8)
        pixels.fill_(rows[0])
        return {"slot": slot, "pixel_values": pixels, "image_ids": rows, "epochs": [0]}


def test_what_a_worker_sent_stays_mapped_until_it_has_ended():
    """Real workers: each slot is mapped once, whatever it holds, and none of a worker that is gone."""
    loader = torch.utils.data.DataLoader(Pixels(), 4, num_workers=2, collate_fn=RadiographCollator())
    owners = []
    for _ in range(2):  # without persistent workers each epoch has new ones
        batches = list(loader)
        for number, batch in enumerate(batches):
            assert batch["pixel_values"].shape == (4, 1, 4 + 4 * number, 8)
            assert batch["pixel_values"].eq(4 * number).all()
        owners.append({worker for worker, _ in batch_memory._mapped})
        assert len(batch_memory._mapped) <= 2 * 4  # each worker's slots: two wait, one is read, one written
    assert len(owners[1]) == 2 and not owners[0] & owners[1]


def test_evaluation_masks_are_fixed_across_runs(rows):
    one, two = (RadiographDataset(rows, PREPROCESSING, seed=seed, masks=MASKS)[1] for seed in (0, 7))
    assert torch.equal(one["noise"], two["noise"])


def test_mixup_depends_on_the_batch_and_keeps_nan(rows):
    table = RadiographDataset(rows, PREPROCESSING, seed=0, with_labels=True)
    mixing, plain = RadiographCollator(mixup_alpha=0.8), RadiographCollator()

    def batch(collator, epoch, order=(0, 1, 2, 3)):
        return collator(table.__getitems__([(epoch, row) for row in order]))

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
    evaluated = table.__getitems__(range(4))
    assert mixing(evaluated).keys() == plain(evaluated).keys()


def test_a_batch_names_its_images_where_asked(rows):
    table = RadiographDataset(rows, PREPROCESSING)
    batch = RadiographCollator(with_ids=True)(table.__getitems__([4, 2]))
    assert batch["image_ids"] == ["image 4", "image 2"]


def test_keyed_randomness_leaves_the_global_generators_alone(rows):
    import random

    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002 - the global one is meant

    def seed():
        torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002 - as above

    seed()
    expected = drawn()
    seed()
    table = RadiographDataset(rows, PREPROCESSING, augmentation=MODERN, masks=MASKS, with_labels=True)
    batch = RadiographCollator(mixup_alpha=0.5)(table.__getitems__([(0, row) for row in range(4)]))
    PREPROCESSING.model_inputs(batch)
    assert drawn() == expected


def test_collator_hands_over_what_the_model_takes(rows):
    table = RadiographDataset(rows, PREPROCESSING, masks=MASKS, mask_ratio=0.5, with_labels=True)
    batch = RadiographCollator()(table.__getitems__([0, 1]))
    assert batch["pixel_values"].shape == (2, 1, 64, 64) and batch["pixel_values"].dtype == torch.uint8
    inputs = PREPROCESSING.model_inputs(batch)
    assert inputs["pixel_values"].shape == (2, 3, 64, 64)
    assert torch.equal(inputs["pixel_values"], PREPROCESSING.pixel_values(rows[:2]["image"]))
    assert batch["noise"].shape == (2, 4)
    assert batch["labels"][:, 0].tolist() == [0.0, 1.0]
    assert batch["labels"][:, 1].isnan().all()
    assert batch["mask_ratio"] == 0.5
    assert "image_ids" not in batch and "epochs" not in batch


@pytest.mark.parametrize("labels", [[[1.0, 0.0], None, None, [0.0, 1.0]], [[1.0], [0.0, 1.0, 0.0]]])
def test_labels_of_several_lengths_are_refused(labels):
    """Put one after the other they would fit a table of two columns."""
    rows = make_rows([(80, 96)] * len(labels)).remove_columns("labels").add_column("labels", labels)
    with pytest.raises(ValueError, match="not of one length"):
        RadiographDataset(rows, PREPROCESSING, with_labels=True)


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
@pytest.mark.parametrize("augmentation", [Augmentation(), MODERN, PAPER])
def test_every_tensor_of_a_batch_can_be_pinned(rows, augmentation, mixup_alpha):
    """Pinning copies a tensor into its own strides, which fails where elements share memory."""
    table = RadiographDataset(rows, PREPROCESSING, augmentation=augmentation, masks=MASKS, with_labels=True)
    collator = RadiographCollator(with_ids=True, mixup_alpha=mixup_alpha)
    batch = collator(table.__getitems__([(0, row) for row in range(4)]))
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    drawn = {"crop_size", "is_flipped", "operations"} if augmentation is MODERN else set()
    drawn |= {"angle"} if augmentation is PAPER else set()
    assert tensors.keys() == {"pixel_values", "noise", "labels"} | drawn
    for tensor in tensors.values():
        assert tensor.is_contiguous() and len(tensor) == 4
        copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        torch.testing.assert_close(copy, tensor, equal_nan=True)
    assert batch["pixel_values"].dtype == torch.uint8 and batch["pixel_values"].shape[1] == 1


def test_half_of_a_batch_is_what_the_whole_makes_of_it(rows):
    """As the search for a batch that fits into memory takes it."""
    table = RadiographDataset(rows, PREPROCESSING, augmentation=MODERN, masks=MASKS, with_labels=True)
    batch = RadiographCollator(with_ids=True)(table.__getitems__([(0, row) for row in range(6)]))
    assert torch.equal(model_pixels(first_images(batch, 3)), model_pixels(batch)[:3])
