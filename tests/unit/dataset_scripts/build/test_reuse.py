"""Built data that lies in the cache: read again where it is whole and up to date, else built again."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_dicom, write_compressed
from pydicom.uid import MPEG2MPML, JPEGLSLossless
from raw_folders import gray

from dataset_scripts import ImageFolder
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.parquet_export import export_parquet

BUILD_POORLY = """
import os, sys
for name in ("jpeg_ls", "pylibjpeg", "openjpeg", "libjpeg"):
    sys.modules[name] = None  # as where these packages are not installed
import pydicom.pixels
import PIL.PngImagePlugin
from dataset_scripts import ImageFolder
from dataset_scripts.build.parquet_export import export_parquet
from pathlib import Path
if os.getuid() == 0:  # root may read anything
    os.setgroups([])
    os.setuid(65534)
raw, built, exported = sys.argv[1:]
ImageFolder(data_dir=raw, build_dir=built).download_and_prepare()
export_parquet(ImageFolder(data_dir=raw, build_dir=built), Path(exported))
"""


def write_own(root: Path, *more: str) -> Path:
    """Eight PNG, and rows for other files."""
    (root / "images").mkdir(parents=True)
    for index in range(8):
        gray(900 + index).save(root / "images" / f"{index}.png")
    splits = ["train"] * 5 + ["validation"] * 2 + ["test"]
    rows = [f"{index}.png,{index},{split},{index % 2}" for index, split in enumerate(splits)]
    rows += [f"{name},{name},train,1" for name in more]
    (root / "labels.csv").write_text("\n".join(["image,patient,split,mass", *rows]) + "\n")
    return root


def build(raw: Path, place: Path) -> ImageFolder:
    builder = ImageFolder(data_dir=raw, build_dir=place)
    builder.download_and_prepare()
    return builder


def images(builder: ImageFolder) -> dict[str, bytes]:
    return {
        row["image_id"]: np.asarray(row["image"]).tobytes()
        for rows in builder.as_dataset().values()
        for row in rows
    }


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="no permissions as POSIX has them")
def test_a_build_that_lacked_a_package_or_a_permission_is_built_again_with_it() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        place = Path(folder)
        place.chmod(0o755)
        raw = write_own(place / "raw", "scan.dcm", "locked.png")
        gray(950).save(raw / "images" / "locked.png")
        (raw / "images" / "locked.png").chmod(0)
        dataset = make_dicom(np.asarray(gray(951)))
        dataset.compress(JPEGLSLossless)
        dataset.save_as(raw / "images" / "scan.dcm", enforce_file_format=True)
        for name in ("built", "exported"):
            (place / name).mkdir()
            (place / name).chmod(0o777)
        command = [sys.executable, "-W", "ignore", "-c", BUILD_POORLY, str(raw)]
        subprocess.run([*command, str(place / "built"), str(place / "exported")], check=True)
        left_out = {"unsupported_compression": 1, "no_permission": 1}
        poor = ImageFolder(data_dir=raw, build_dir=place / "built")
        assert read_report(poor.cache_dir)["problem_counts"] == {"image folder": left_out}
        assert read_report(place / "exported")["problem_counts"] == {"image folder": left_out}

        (raw / "images" / "locked.png").chmod(0o644)
        again = build(raw, place / "built")
        assert not again.is_reused
        assert images(again).keys() >= {"image folder/scan.dcm", "image folder/locked.png"}
        assert len(images(again)) == 10 and read_report(again.cache_dir)["problem_counts"] == {}
        assert build(raw, place / "built").is_reused
        assert export_parquet(again, place / "exported")
        assert read_report(place / "exported")["problem_counts"] == {}
        assert not export_parquet(again, place / "exported")


def test_what_still_cannot_be_read_is_not_tried_by_another_build(tmp_path: Path) -> None:
    raw = write_own(tmp_path / "raw", "film.dcm")
    write_compressed(raw / "images" / "film.dcm", np.asarray(gray(1)), MPEG2MPML, [b"\0" * 64])
    first = build(raw, tmp_path / "built")
    assert not first.is_reused
    assert read_report(first.cache_dir)["problem_counts"] == {"image folder": {"unsupported_compression": 1}}
    assert build(raw, tmp_path / "built").is_reused


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_after_schema(path: Path) -> None:
    """As many whole record batches as there are: none."""
    content = path.read_bytes()
    path.write_bytes(content[: 8 + int.from_bytes(content[4:8], "little")])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def without_labels(path: Path) -> None:
    info = json.loads(path.read_text())
    del info["features"]
    path.write_text(json.dumps(info))


SHARD, INFO, REPORT = "image_folder-train.arrow", "dataset_info.json", "build_report.json"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (SHARD, cut),
        (SHARD, cut_after_schema),
        (SHARD, empty),
        (SHARD, Path.unlink),
        ("image_folder-test.arrow", Path.unlink),
        (INFO, cut),
        (INFO, empty),
        (INFO, write("{}")),
        (INFO, write("[1]")),
        (INFO, write('{"splits": 3}')),
        (INFO, without_labels),
        (INFO, Path.unlink),
        (REPORT, cut),
        (REPORT, Path.unlink),
        ("pixel_statistics.json", Path.unlink),
    ],
)
def test_a_damaged_cache_is_built_again(
    tmp_path: Path, name: str, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    raw = write_own(tmp_path / "raw")
    first = build(raw, tmp_path / "built")
    before = images(first)
    damage(Path(first.cache_dir) / name)
    again = build(raw, tmp_path / "built")
    assert not again.is_reused
    assert images(again) == before and len(before) == 8
    assert again.as_dataset()["train"].features == first.as_dataset()["train"].features
    said = [record.getMessage() for record in caplog.records if "built again" in record.getMessage()]
    if (name, damage) != (INFO, Path.unlink):  # without that file nothing was built
        (message,) = said
        assert name.removesuffix(".arrow") in message and "\n" not in message
    assert build(raw, tmp_path / "built").is_reused
