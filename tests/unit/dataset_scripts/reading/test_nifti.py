"""MRI volumes as axial slices."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from raw_folders import write_volume

from dataset_scripts.errors import BadImageError
from dataset_scripts.reading.nifti import axial_slices, read_volume


def marked_head() -> np.ndarray:
    """A head (right, anterior, superior) with a bright block anterior on the patient's right."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in (40, 36, 30)), indexing="ij"))
    right, anterior, _ = grid
    head = np.where((grid**2).sum(axis=0) < 0.9, 300 + 100 * anterior, 0).astype(np.int16)
    head[(right > 0.2) & (right < 0.5) & (anterior > 0.3) & (anterior < 0.6) & (head > 0)] = 900
    return head


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_slices_show_anterior_up_and_the_right_side_on_the_left(tmp_path: Path, axes: str) -> None:
    canonical = nibabel.Nifti1Image(marked_head(), np.eye(4))
    wanted = nibabel.orientations.axcodes2ornt(axes)
    turned = canonical.as_reoriented(wanted_from_canonical(wanted))
    assert "".join(nibabel.aff2axcodes(turned.affine)) == axes
    nibabel.save(turned, tmp_path / "head.nii.gz")
    slices = dict(axial_slices(read_volume(tmp_path / "head.nii.gz"), 5))
    assert len(slices) == 5
    middle = slices[sorted(slices)[2]]
    assert middle.shape == (36, 40)
    rows, columns = np.nonzero(middle == 255)
    assert rows.mean() < 18
    assert columns.mean() < 20


def wanted_from_canonical(wanted: np.ndarray) -> np.ndarray:
    return nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), wanted)


def test_slices_run_evenly_through_the_brain_and_miss_the_air(tmp_path: Path) -> None:
    voxels = np.zeros((30, 30, 100), np.int16)
    voxels[5:25, 5:25, 20:81] = np.random.default_rng(0).integers(100, 900, (20, 20, 61))
    write_volume(tmp_path / "a.nii.gz", voxels=voxels)
    slices = list(axial_slices(read_volume(tmp_path / "a.nii.gz"), 4))
    assert [index for index, _ in slices] == [20, 40, 60, 80]
    assert all(not image[:4].any() and image[10:20, 10:20].any() for _, image in slices)


def test_fewer_slices_than_asked_for_are_not_repeated(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz")
    indices = [index for index, _ in axial_slices(read_volume(tmp_path / "a.nii.gz"), 500)]
    assert len(indices) == len(set(indices)) <= 18


GRID = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in (48, 40, 36)), indexing="ij"))
IS_HEAD = (GRID**2).sum(axis=0) < 0.8
HEAD = np.where(IS_HEAD, 300 + 200 * GRID[1] + 20 * GRID[0], 0).astype(np.float32)


def slices_of(path: Path, voxels: np.ndarray, dtype: type = np.float32) -> dict[int, np.ndarray]:
    """Save a volume and read its slices."""
    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.set_data_dtype(dtype)
    nibabel.save(image, path)
    return dict(axial_slices(read_volume(path), 10))


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    "background",
    [
        lambda head: np.where(IS_HEAD, head, -1000),
        lambda head: np.where(IS_HEAD, head, head[IS_HEAD].min()),
        lambda head: np.where(IS_HEAD, head, 1e-5),
        lambda head: np.where(IS_HEAD, head, np.nan),
        lambda head: np.where(IS_HEAD, head, 5000),
        lambda head: head + np.where(IS_HEAD, 0, NOISE.integers(0, 12, head.shape)),
        lambda head: np.where(IS_HEAD, head, 20 + NOISE.normal(0, 3, head.shape)),
    ],
    ids=["-1000", "lowest", "rounding", "NaN", "high", "noise", "noise around 20"],
)
def test_air_is_what_the_border_holds(tmp_path: Path, background: Callable[[np.ndarray], np.ndarray]) -> None:
    wanted = slices_of(tmp_path / "plain.nii.gz", HEAD)
    found = slices_of(tmp_path / "a.nii.gz", background(HEAD).astype(np.float32))
    assert found.keys() == wanted.keys()
    for index, image in found.items():
        assert image[0, 0] == image[-1, -1] == 0
        off = np.abs(image.astype(int) - wanted[index])
        assert np.mean(off > 6) < 0.005


DISTANCE = np.sqrt((GRID[:2] ** 2).sum(axis=0))


@pytest.mark.parametrize("air", [0, -1000, "noise"])
@pytest.mark.parametrize("padding", [-1, -3024, -32768, 32767])
@pytest.mark.parametrize("area", ["circle", "circle and lowest planes", "stripe"])
def test_padding_around_the_scan_is_air_too(tmp_path: Path, air: int | str, padding: int, area: str) -> None:
    """Reslicing and a round field of view leave a second value at the border, beside the air's own."""
    around = NOISE.integers(0, 12, HEAD.shape) if air == "noise" else air
    outside = DISTANCE > 1.0
    if area == "circle and lowest planes":
        outside[..., :3] = True
    elif area == "stripe":
        outside = np.zeros(HEAD.shape, bool)
        outside[:, :2] = True
    offset = air if isinstance(air, int) else 0
    scan = np.where(IS_HEAD, HEAD + offset, around)
    wanted = slices_of(tmp_path / "plain.nii.gz", HEAD)
    found = slices_of(tmp_path / "a.nii.gz", np.where(outside, padding, scan).astype(np.float32))
    assert found.keys() == wanted.keys()
    for index, image in found.items():
        off = np.abs(image.astype(int) - wanted[index])
        assert np.mean(off > 6) < 0.005


def test_slices_that_show_nothing_are_left_out_and_named(tmp_path: Path) -> None:
    """Here the upper half of the brain is of one value."""
    head = np.where(IS_HEAD & (GRID[2] > 0), 400, HEAD).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(head, np.eye(4)), tmp_path / "a.nii.gz")
    notes: list[tuple[str, str]] = []
    slices = list(
        axial_slices(
            read_volume(tmp_path / "a.nii.gz"), 10, lambda kind, detail: notes.append((kind, detail))
        )
    )
    assert [index for index, _ in slices] == [3, 6, 9, 13, 16]
    assert all(image.std() > 20 for _, image in slices)
    assert notes[0] == ("empty_slice", "slice 19 shows nothing and is left out")
    assert len(notes) == 5
    with pytest.raises(BadImageError, match="shows_nothing: none of 10 slices"):
        slices_of(
            tmp_path / "b.nii.gz", np.where(IS_HEAD, np.where(GRID[0] > 0, 400, 500), 0).astype(np.float32)
        )


def test_a_volume_cut_to_the_brain_has_no_air(tmp_path: Path) -> None:
    voxels = NOISE.integers(1, 900, (24, 20, 18)).astype(np.float32)
    found = slices_of(tmp_path / "a.nii.gz", voxels)
    assert len(found) == 10 and all(image.mean() > 100 for image in found.values())


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_a_normalized_volume_saved_as_integers(tmp_path: Path, dtype: type) -> None:
    """Its background comes back as 1e-05 or so, and lies among the brain's own values."""
    normalized = np.where(IS_HEAD, (HEAD - HEAD[IS_HEAD].mean()) / HEAD[IS_HEAD].std(), 0)
    wanted = slices_of(tmp_path / "plain.nii.gz", HEAD)
    found = slices_of(tmp_path / "a.nii.gz", normalized, dtype)
    assert found.keys() == wanted.keys()
    for index, image in found.items():
        assert image[0, 0] == 0
        assert np.mean(np.abs(image.astype(int) - wanted[index]) > 4) < 0.002


def test_no_bit_flip_in_a_gzipped_volume_changes_it_unnoticed(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", voxels=(HEAD + NOISE.integers(0, 9, HEAD.shape)).astype(np.int16))
    content = (tmp_path / "a.nii.gz").read_bytes()
    whole = read_volume(tmp_path / "a.nii.gz").voxels
    for position in NOISE.integers(10, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(NOISE.integers(8))
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        try:
            voxels = read_volume(tmp_path / "b.nii.gz").voxels
        except BadImageError:
            continue
        assert np.array_equal(voxels, whole)  # the last byte of a deflated stream has bits that mean nothing
    (tmp_path / "b.nii").write_bytes(gzip.decompress(content))
    assert np.array_equal(read_volume(tmp_path / "b.nii").voxels, whole)


def test_content_decides_whether_a_volume_is_gzipped(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz")
    packed = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "b.nii").write_bytes(packed)
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress(packed))
    assert np.array_equal(read_volume(tmp_path / "b.nii").voxels, read_volume(tmp_path / "c.nii.gz").voxels)


def with_affine(path: Path, numbers: list[float]) -> None:
    nibabel.save(nibabel.Nifti1Image(HEAD, np.eye(4)), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<12f", content, 280, *numbers)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("numbers", [[np.nan] * 12, [0.0] * 12, [np.inf] + [0.0] * 11, [1.0] * 12])
def test_an_affine_that_says_nothing_is_refused(tmp_path: Path, numbers: list[float]) -> None:
    with_affine(tmp_path / "a.nii", numbers)
    with pytest.raises(BadImageError, match="bad_affine"):
        read_volume(tmp_path / "a.nii")


def test_color_complex_and_constant_volumes_are_refused(tmp_path: Path) -> None:
    color = np.zeros(HEAD.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for voxels, kind in [(color, "wrong_type"), (HEAD.astype(np.complex64), "wrong_type")]:
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
        with pytest.raises(BadImageError, match=kind):
            read_volume(tmp_path / "a.nii.gz")
    for voxels, kind in [(np.full(HEAD.shape, 7.0), "empty_volume"), (IS_HEAD * 9.0, "shows_nothing")]:
        with pytest.raises(BadImageError, match=kind):
            slices_of(tmp_path / "a.nii.gz", voxels.astype(np.float32))
    with pytest.raises(BadImageError, match="empty_volume: no voxel is finite"):
        slices_of(tmp_path / "a.nii.gz", np.full(HEAD.shape, np.nan, np.float32))


def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(HEAD, np.eye(4)), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    for sides, kind in [((48, 40, 37), "undecodable|truncated"), ((32000, 32000, 3200), "too_many_voxels")]:
        struct.pack_into("<3h", content, 42, *sides)
        (tmp_path / "a.nii").write_bytes(bytes(content))
        with pytest.raises(BadImageError, match=kind):
            read_volume(tmp_path / "a.nii")


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=9) as file:
        for _ in range(260):
            file.write(bytes(1_000_000))
    with pytest.raises(BadImageError, match="too_many_bytes"):
        read_volume(tmp_path / "a.nii.gz")
