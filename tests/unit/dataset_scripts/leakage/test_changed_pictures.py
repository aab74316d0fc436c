"""How sure the pixels are: under every change that a copy may have had, beside twins, and read in parts."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from raw_folders import jpeg

from benchmarks.picture_changes import BUILT_FOR, CHANGES, HARD, SIMPLE, border
from dataset_scripts.leakage.guard import THRESHOLD
from dataset_scripts.leakage.near_duplicates import best_matches, find_matches
from dataset_scripts.leakage.thumbnails import make_thumbnails, read_thumbnails
from dataset_scripts.phantom.anatomy import draw_body
from dataset_scripts.phantom.findings import draw_radiograph


def thumbnails(images: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([make_thumbnails(image.convert("L")) for image in images])


@pytest.fixture(scope="module")
def chests() -> list[Image.Image]:
    """Twenty-four phantom chests, a patient each."""
    pictures = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        pictures.append(Image.fromarray(phantom_pixels(rng)))
    return pictures


def phantom_pixels(rng: np.random.Generator) -> np.ndarray:
    pixels = draw_radiograph(draw_body(rng, is_female=bool(rng.integers(2))), (), 200, rng).pixels
    return np.clip(pixels, 0, 255).astype(np.uint8)


SOUGHT = 8  # of the chests, in every change


@pytest.fixture(scope="module")
def found(chests: list[Image.Image]) -> dict[str, int]:
    """How many of the changed pictures are found as what they are."""
    rng = np.random.default_rng(7)
    copies = thumbnails(change(chest, rng) for change in CHANGES.values() for chest in chests[:SOUGHT])
    matches = best_matches(copies, thumbnails(chests))
    is_found = np.array([match.correlation >= THRESHOLD for match in matches])
    is_found &= np.array([match.reference for match in matches]) == np.tile(range(SOUGHT), len(CHANGES))
    return dict(zip(CHANGES, is_found.reshape(-1, SOUGHT).sum(axis=1), strict=True))


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_picture_is_still_found(found: dict[str, int], name: str) -> None:
    is_surely_wanted = name in {**BUILT_FOR, **SIMPLE, **HARD}
    assert found[name] >= (SOUGHT if is_surely_wanted else SOUGHT - 1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("resize", ""),
        ("mirrored", "mirrored"),
        ("inverted", "inverted"),
        ("turned 180°", "turned 180° clockwise"),
        ("turned 90°", "turned 270° clockwise"),
    ],
)
def test_the_match_says_what_was_done(chests: list[Image.Image], name: str, change: str) -> None:
    changed = CHANGES[name](chests[3], np.random.default_rng(1))
    (match,) = best_matches(thumbnails([changed]), thumbnails(chests))
    assert match.change == change


def test_a_crop_is_found_whichever_of_the_two_is_cropped(chests: list[Image.Image]) -> None:
    cropped = chests[3].crop((20, 10, 180, 170))  # 0.8 of 200 pixels a side
    (match,) = best_matches(thumbnails([cropped]), thumbnails(chests))
    numbers = match.change.removeprefix("cropped to ").split(" x ")
    assert [float(number) for number in numbers] == pytest.approx([0.8, 0.8], abs=0.02)
    (match,) = best_matches(thumbnails([chests[3]]), thumbnails([*chests[:3], cropped, *chests[4:]]))
    assert match.reference == 3
    assert match.correlation >= THRESHOLD
    assert match.change.startswith("shows more, 1.2")


@pytest.mark.parametrize("change", ["resize", "mirrored", "inverted", "turned 90°", "letterbox 1.2:1"])
def test_a_reference_that_is_there_twice_does_not_speak_against_itself(
    chests: list[Image.Image], change: str
) -> None:
    copy = jpeg(chests[3].resize((150, 150)), 40)
    twin = CHANGES[change](chests[3], np.random.default_rng(1)).convert("L")
    alone, twice = (
        best_matches(thumbnails([copy]), thumbnails([*chests, *more]))[0].correlation for more in ([], [twin])
    )
    assert twice > alone - 0.05


def test_all_copies_of_a_picture_are_found_and_it_itself_is_not(chests: list[Image.Image]) -> None:
    turned = [CHANGES[name](chests[3], np.random.default_rng(1)) for name in ("mirrored", "turned 180°")]
    pictures = thumbnails([*chests[:6], *turned])
    (found,) = find_matches(pictures, pictures, own=np.arange(8))
    for query in (3, 6, 7):
        same = {match.reference for match in found[query] if match.correlation >= THRESHOLD}
        assert same == {3, 6, 7} - {query}
    assert max(match.correlation for query in (0, 1, 2, 4, 5) for match in found[query]) < THRESHOLD


def test_another_patient_is_not_the_same_picture(chests: list[Image.Image]) -> None:
    pictures = thumbnails(chests)
    matches = best_matches(pictures[::2], pictures[1::2])
    assert max(match.correlation for match in matches) < THRESHOLD


def test_flat_pictures_match_nothing(chests: list[Image.Image]) -> None:
    pictures = thumbnails([Image.new("L", (200, 200)), chests[0]])
    assert best_matches(pictures[:1], pictures)[0].correlation == 0
    assert best_matches(pictures[1:], pictures)[0].reference == 1


def test_pictures_of_one_variant_are_compared_too(chests: list[Image.Image]) -> None:
    whole = thumbnails(chests)[:, 0]
    assert [match.reference for match in best_matches(whole[:3, :, ::-1], whole)] == [0, 1, 2]


def test_work_in_parts_gives_the_same_answer(
    chests: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = thumbnails(chests)
    whole = best_matches(pictures, pictures)
    monkeypatch.setattr("dataset_scripts.leakage.near_duplicates.PART", 5)
    monkeypatch.setattr("dataset_scripts.leakage.descriptors._REFERENCES_AT_ONCE", 7)
    done: list[int] = []
    parts = best_matches(pictures, pictures, done.append)
    assert [match.reference for match in parts] == [match.reference for match in whole] == list(range(24))
    assert done == [5, 5, 5, 5, 4]


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_flat_border_is_trimmed_though_it_bears_letters(chests: list[Image.Image], level: int) -> None:
    lungs = chests[0].crop((40, 40, 160, 160)).resize((200, 200))  # no flat background of its own
    framed = border(lungs, level, 0.15)
    ImageDraw.Draw(framed).text((30, 10), "PORTABLE", fill=255 - level, font_size=16)
    whole, inside = make_thumbnails(framed).astype(float)
    expected = make_thumbnails(lungs)[0].astype(float)
    assert np.abs(inside - expected).mean() < 6
    assert np.abs(whole - expected).mean() > 20


def test_threads_read_the_same_thumbnails_and_leave_the_warnings_alone(
    chests: list[Image.Image], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(70)]  # more than two tasks of a thread
    for number, path in enumerate(paths):
        chests[number % len(chests)].save(path)
    paths[65].write_bytes(b"no image")
    filters = list(warnings.filters)
    read = read_thumbnails(paths, num_proc=4)
    assert np.array_equal(read, read_thumbnails(paths))
    assert not read[65].any()
    assert np.array_equal(read[66], read[66 - 24])
    assert warnings.filters == filters
