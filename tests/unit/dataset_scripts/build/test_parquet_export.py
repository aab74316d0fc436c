"""The export: loadable by anyone, resumable, complete, refused where it would overwrite."""

import errno
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
from raw_folders import ChestFolder, read_leakage_report

from dataset_scripts import FINDINGS, Cocktail, label_names
from dataset_scripts.__main__ import main
from dataset_scripts.build.build_log import read_report
from dataset_scripts.build.parquet_export import export_parquet, push_to_hub
from dataset_scripts.build.pixel_statistics import read_statistics
from dataset_scripts.errors import DataLayoutError, TooManyBadFilesError

AddCovidx = Callable[[str, str, int], Path]


@pytest.fixture
def raw(chest: ChestFolder, covidx: AddCovidx) -> Path:
    chest.finish()
    for index in range(9):
        covidx("train", f"{index} picture {index}.png", 700 + index)
    return chest.root.parent


def cocktail(raw: Path, **options: object) -> Cocktail:
    return Cocktail(data_dir=raw, build_dir=raw.parent / "cache", **options)


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_a_full_disk_keeps_what_is_written_and_the_next_run_resumes(raw: Path, tmp_path: Path) -> None:
    (raw / "ChestXray-NIHCC" / "images" / "00000003_000.png").write_bytes(b"")
    export_parquet(cocktail(raw), tmp_path / "whole")
    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    build = json.loads((tmp_path / "whole" / "build.json").read_text())
    (out / "build.json").write_text(json.dumps(build | {"complete": False}))  # begun, and nothing written
    names = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").glob("data/*/*"))
    blocked = out / names[-1].with_name(f".{names[-1].name}.part")
    blocked.parent.mkdir(parents=True)
    blocked.symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"Errno {errno.ENOSPC}\b.*disk is full.*same command again"):
        export_parquet(cocktail(raw), out)
    written = {path: path.stat().st_mtime_ns for path in out.glob("data/*/*.parquet")}
    assert 4 <= len(written) < len(names)

    blocked.unlink()  # there is space again
    assert export_parquet(cocktail(raw), out)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert sorted(path.relative_to(out) for path in out.glob("data/*/*")) == names
    assert read_report(out) == read_report(tmp_path / "whole")
    assert read_statistics(out) == read_statistics(tmp_path / "whole")
    assert not (out / ".build").exists()


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


def test_upload_asks_for_a_complete_build(tmp_path: Path) -> None:
    with pytest.raises(DataLayoutError, match="no complete build"):
        push_to_hub(tmp_path, "someone/something")
