"""MRI volumes as axial slices."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from raw_folders import write_volume

from dataset_scripts.reading.nifti import axial_slices, read_volume


def marked_head() -> np.ndarray:
    """A head (right, anterior, superior) with a bright block anterior on the patient's right."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in (40, 36, 30)), indexing="ij"))
    right, anterior, _ = grid
    head = np.where((grid**2).sum(axis=0) < 0.9, 300, 0).astype(np.int16)
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
