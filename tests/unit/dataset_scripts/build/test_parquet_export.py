"""The export: loadable by anyone, resumable, complete, refused where it would overwrite."""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
from exports import cocktail, content, truncate
from raw_folders import ChestFolder, gray, read_leakage_report, write_volume

from dataset_scripts import FINDINGS, Cocktail, label_names
from dataset_scripts.__main__ import main
from dataset_scripts.build.build_file import check_complete
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.export_plan import cut_into_shards, read_plan, write_plan
from dataset_scripts.build.parquet_export import export_parquet, push_to_hub
from dataset_scripts.build.pixel_statistics import read_statistics
from dataset_scripts.build.records import Box
from dataset_scripts.errors import DataLayoutError, TooManyBadFilesError

AddCovidx = Callable[[str, str, int], Path]


@pytest.fixture
def raw(chest: ChestFolder, covidx: AddCovidx) -> Path:
    chest.finish()
    for index in range(9):
        covidx("train", f"{index} picture {index}.png", 700 + index)
    return chest.root.parent


def test_anyone_can_load_it(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_parquet(cocktail(raw), out)
    direct = cocktail(raw)
    direct.download_and_prepare()
    expected = direct.as_dataset()
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "hf"))
    assert label_names(loaded["train"].features) == list(FINDINGS)
    assert {split: sorted(rows["image_id"]) for split, rows in loaded.items()} == {
        split: sorted(rows["image_id"]) for split, rows in expected.items()
    }
    by_id = {row["image_id"]: row for row in expected["train"]}
    row = loaded["train"][0]
    assert np.array_equal(np.asarray(row["image"]), np.asarray(by_id[row["image_id"]]["image"]))
    assert {**row, "image": 0, "labels": 0, "age_years": 0} == {
        **by_id[row["image_id"]],
        "image": 0,
        "labels": 0,
        "age_years": 0,
    }
    assert read_statistics(out) == read_statistics(direct.cache_dir)
    assert read_leakage_report(out) == read_leakage_report(direct.cache_dir)
    assert read_report(out)["images"] == read_report(direct.cache_dir)["images"]
    one = load_dataset(str(out), "covidx_cxr_3", cache_dir=str(tmp_path / "hf"))
    assert set(one["train"]["source"]) == {"COVIDx CXR-3"}


def test_two_ranks_stream_every_image_once(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_parquet(cocktail(raw), out)
    streamed = load_dataset(str(out), split="train", streaming=True)
    assert streamed.num_shards % 2 == 0
    seen = Counter(
        row["image_id"]
        for rank in range(2)
        for row in split_dataset_by_node(streamed, rank=rank, world_size=2)
    )
    assert len(seen) == 34 + 9
    assert set(seen.values()) == {1}


def test_an_unchanged_build_is_reused_and_a_changed_one_is_not(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_parquet(cocktail(raw), out)
    assert not export_parquet(cocktail(raw), out)
    (raw / "ChestXray-NIHCC" / "images" / "00000001_000.png").unlink()
    assert export_parquet(cocktail(raw), out)
    assert sum(sum(splits.values()) for splits in read_report(out)["images"].values()) == 48
    assert export_parquet(cocktail(raw, stored_size=32), out)
    assert load_dataset(str(out), split="test", streaming=True).take(1).__iter__().__next__()[
        "image"
    ].size == (
        32,
        32,
    )


def test_another_folder_is_never_overwritten(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataLayoutError, match="was not written by this command"):
        export_parquet(cocktail(raw), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("num_proc", [1, 2])
def test_too_many_unreadable_files(raw: Path, tmp_path: Path, num_proc: int) -> None:
    for path in sorted((raw / "ChestXray-NIHCC" / "images").iterdir())[:12]:
        path.write_bytes(b"")
    with pytest.raises(TooManyBadFilesError, match="unreadable"):
        export_parquet(cocktail(raw), tmp_path / "out", num_proc)


def test_the_card_says_what_is_in_it(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_parquet(cocktail(raw, allow_leakage=True), out)
    card = (out / "README.md").read_text()
    assert "| ChestX-ray14 | 34 | 4 | 2 |" in card
    assert "Leakage allowed" in card
    assert f"In the order of `labels`: {', '.join(FINDINGS)}." in card
    assert "Cite: Wang" in card
    assert str(tmp_path) not in card


def test_the_command_line(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data_dir", str(raw), "--output_dir", str(tmp_path / "out"), "--num_proc", "1"]
    assert main([*arguments, "--split_scheme", "medtransformer", "--stored_size", "48"]) == 0
    assert json.loads((tmp_path / "out" / "build.json").read_text())["complete"]
    assert "Split: `medtransformer`" in (tmp_path / "out" / "README.md").read_text()
    assert main(["--data_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out2")]) == 1
    with pytest.raises(SystemExit):
        main(["--data_dir", str(raw)])
    assert "--output_dir" in capsys.readouterr().err


@pytest.fixture
def built(raw: Path, tmp_path: Path) -> Path:
    assert export_parquet(cocktail(raw), tmp_path / "out")
    return tmp_path / "out"


def exchange(path: Path) -> None:
    shutil.copy(sorted(path.parent.glob("train-*"))[0], path)


def overwrite_the_footer(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-60] + bytes(50) + whole[-10:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "is missing"),
        (truncate, "ends without a Parquet footer"),
        (exchange, "is not the file that was written"),
        (overwrite_the_footer, r"footer|not the file that was written"),
        (lambda path: path.write_bytes(b""), "ends without a Parquet footer"),
    ],
)
def test_a_damaged_shard_of_a_complete_build_is_noticed(
    built: Path, raw: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], words: str
) -> None:
    caplog.set_level(logging.INFO, "dataset_scripts")
    whole = content(built)
    shard = sorted(built.glob("data/chestx_ray14/train-*"))[3]
    damage(shard)
    with pytest.raises(DataLayoutError, match=words):
        check_complete(built)
    with pytest.raises(DataLayoutError, match="no complete build"):
        push_to_hub(built, "someone/something")
    assert export_parquet(cocktail(raw), built)
    assert re.search(f"is not whole .*{shard.name}.*({words}).*building it anew", caplog.text)
    assert content(built) == whole
    assert not export_parquet(cocktail(raw), built)


@pytest.mark.parametrize("size", [0, 32])
def test_a_foreign_parquet_file_is_neither_read_nor_deleted(built: Path, raw: Path, size: int) -> None:
    options = {"stored_size": size} if size else {}
    shard = sorted(built.glob("data/covidx_cxr_3/train-*"))[0]
    foreign = shard.with_name("train-more.parquet")
    shutil.copy(shard, foreign)
    with pytest.raises(DataLayoutError, match=r"train-more\.parquet .*Move (it|them) away"):
        export_parquet(cocktail(raw, **options), built)
    foreign.rename(foreign.with_suffix(".bak"))
    assert export_parquet(cocktail(raw, **options), built) == (size > 0)
    assert foreign.with_suffix(".bak").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["build_report.json", "pixel_statistics.json", "leakage_report.json"])
@pytest.mark.parametrize("left", [None, "", '{"held_out_images": 4'])
def test_a_lost_or_damaged_report_is_made_again(built: Path, raw: Path, name: str, left: str | None) -> None:
    whole = content(built)
    (built / name).unlink()
    if left is not None:
        (built / name).write_text(left)
    assert export_parquet(cocktail(raw), built)
    assert content(built) == whole


@pytest.mark.parametrize("left", ["", '{"dataset": "cock', "\0" * 60])
def test_a_damaged_build_file_means_that_nothing_is_done(built: Path, raw: Path, left: str) -> None:
    whole = content(built)
    (built / "build.json").write_text(left)
    assert export_parquet(cocktail(raw), built)
    assert content(built) == whole


def test_a_build_of_an_earlier_version_is_built_anew_with_a_word(
    built: Path, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dataset_scripts")
    whole = content(built)
    build = json.loads((built / "build.json").read_text())
    earlier = {name: build[name] for name in ("dataset", "config", "version", "complete")}
    (built / "build.json").write_text(json.dumps(earlier) + "\n")
    check_complete(built)  # it can be read
    assert "by an earlier version that kept no list of its shards" in caplog.text
    assert export_parquet(cocktail(raw), built)
    assert "is of an earlier version" in caplog.text
    assert content(built) == whole
    (built / "build.json").write_text(json.dumps(earlier | {"complete": False}) + "\n")
    (built / ".build").mkdir()
    (built / ".build" / "plan.pickle").write_bytes(b"\x80\x04cos\nsystem\n")
    (built / ".build" / "worker-log-data-chestx_ray14-test-00000-of-00002.json").write_text('{"bad_files"')
    (built / "data" / "chestx_ray14" / ".test-00000-of-00002.parquet.part").touch()
    with pytest.raises(DataLayoutError, match="not finished"):
        check_complete(built)
    assert export_parquet(cocktail(raw), built)
    assert content(built) == whole


def test_a_plan_read_is_the_plan_written(raw: Path, tmp_path: Path) -> None:
    key = {"dataset": "cocktail", "config": "official", "version": "1"}
    builder = cocktail(raw)
    tasks = list(cut_into_shards(builder.list_records(tmp_path)))
    boxed = replace(tasks[0].records[0], boxes=(Box(3, 1.5, 2.0, 7.0, 0.25),), boxes_size=(640, 480))
    tasks[0] = replace(
        tasks[0], records=(boxed, replace(boxed, path="n\udcffme\u2028 é.png", is_volume=True))
    )
    written = write_plan(tmp_path, key, tasks)
    read = read_plan(tmp_path, key)
    assert read is not None and read.digest == written.digest
    assert repr(read.tasks) == repr(tuple(tasks))  # NaN is not equal to itself
    assert read_plan(tmp_path, key | {"config": "other"}) is None
    for old, new in (("data/", "../../"), ('"train"', "7"), ("1.5", '"1"'), ("[640, 480]", "[640]")):
        text = (tmp_path / "plan.jsonl").read_text()
        head, _, body = text.partition("\n")
        assert old in body
        body = body.replace(old, new)
        forged = json.loads(head) | {"sha256": hashlib.sha256(body.encode()).hexdigest()}
        (tmp_path / "plan.jsonl").write_text(json.dumps(forged) + "\n" + body)
        assert read_plan(tmp_path, key) is None, new
        (tmp_path / "plan.jsonl").write_text(text)


def test_a_run_killed_before_its_first_word_owns_its_folder(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    (out / ".build" / "plan.jsonl").write_text("{")
    (out / ".build.json.part").write_text('{"data')
    assert export_parquet(cocktail(raw), out)
    assert not (out / ".build").exists()
    assert not (out / ".build.json.part").exists()


def test_another_build_leaves_nothing_of_the_one_before(raw: Path, tmp_path: Path) -> None:
    gray(39, 96).save(raw / "COVIDx_CXR" / "train" / "picture 3.png")  # shows an image of the test list
    out = tmp_path / "out"
    export_parquet(cocktail(raw), out)
    assert (out / "leakage_pairs.png").exists()
    shutil.rmtree(raw / "COVIDx_CXR")
    assert export_parquet(cocktail(raw), out)
    export_parquet(cocktail(raw), tmp_path / "alone")
    assert content(out) == content(tmp_path / "alone")
    assert not (out / "leakage_pairs.png").exists() and not (out / "data" / "covidx_cxr_3").exists()


def test_unreadable_volumes_are_counted_against_the_files(tmp_path: Path) -> None:
    """A volume is ten images: the share of bad files is of files, not of images."""
    root = tmp_path / "raw" / "MICCAI_BraTS2020_TrainingData"
    for subject in range(1, 13):
        name = f"BraTS20_Training_{subject:03d}"
        for modality in ("t1", "t1ce", "t2", "flair"):
            path = root / name / f"{name}_{modality}.nii"
            write_volume(path)
            if modality == "t1":
                path.write_bytes(b"")
    builder = Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "cache", max_bad_fraction=0.03)
    with pytest.raises(TooManyBadFilesError, match="at most 10 of 48 are allowed"):
        export_parquet(builder, tmp_path / "out")
    with pytest.raises(TooManyBadFilesError, match="at most 10 of 48 are allowed"):
        builder.download_and_prepare()


@pytest.mark.parametrize("inside", [".", "out", "ChestXray-NIHCC/out"])
def test_an_output_inside_the_raw_data_is_refused(raw: Path, inside: str) -> None:
    with pytest.raises(DataLayoutError, match="lies inside --data_dir"):
        export_parquet(cocktail(raw), raw / inside)
    assert not (raw / "out").exists()


def test_a_build_dir_inside_a_source_is_refused(raw: Path) -> None:
    with pytest.raises(DataLayoutError, match="lies inside the raw data"):
        Cocktail(data_dir=raw, build_dir=raw / "ChestXray-NIHCC" / "built")


@pytest.mark.parametrize("inside", ["", "further/down"])
def test_an_output_that_is_a_file_is_refused(raw: Path, tmp_path: Path, inside: str) -> None:
    (tmp_path / "out").write_text("thesis")
    with pytest.raises(DataLayoutError, match="out is a file"):
        export_parquet(cocktail(raw), tmp_path / "out" / inside)
    assert (tmp_path / "out").read_text() == "thesis"


AS_NOBODY = """
import os, sys
from dataset_scripts.__main__ import main
import PIL.PngImagePlugin
if os.getuid() == 0:  # root may write anywhere
    os.setgroups([])
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="no permissions as POSIX has them")
@pytest.mark.parametrize("inside", ["", "further/down"])
def test_an_output_that_may_not_be_written_is_refused(inside: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        place = Path(folder)
        place.chmod(0o755)
        chest = ChestFolder(place / "raw" / "ChestXray-NIHCC")
        chest.add("train_val", "00000001_000.png", "Mass", 1)
        chest.finish()
        (place / "out").mkdir(mode=0o555)
        command = [sys.executable, "-W", "ignore", "-c", AS_NOBODY, "--data_dir", str(place / "raw")]
        command += ["--output_dir", str(place / "out" / inside)]
        done = subprocess.run(command, text=True, capture_output=True)
        assert done.returncode == 1
        assert re.search(r"out\S* may not be written \(Permission denied\)", done.stderr), done.stderr
        assert "choose another --output_dir" in done.stderr and "Traceback" not in done.stderr


def test_another_programs_build_file_is_not_ours(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "data" / "chestx_ray14").mkdir(parents=True)
    (out / "build.json").write_text('{"scripts": {}}')
    with pytest.raises(DataLayoutError, match="was not written by this command"):
        export_parquet(cocktail(raw), out)
    assert not (out / ".build.lock").exists()


def test_upload_asks_for_a_complete_build(tmp_path: Path) -> None:
    with pytest.raises(DataLayoutError, match="no complete build"):
        push_to_hub(tmp_path, "someone/something")
