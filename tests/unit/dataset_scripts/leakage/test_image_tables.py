"""Which images of tables are compared, and by which names: every one of a dataset, no name twice."""

import json
from collections.abc import Mapping
from pathlib import Path

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from raw_folders import gray, write_shard

from dataset_scripts.errors import UserError
from dataset_scripts.leakage.__main__ import main
from dataset_scripts.leakage.image_sets import open_images
from dataset_scripts.leakage.protected import read_protected


def write_table(path: Path, columns: Mapping[str, list[int | None]]) -> None:
    """Write Parquet as `push_to_hub` does; numbers are seeds of pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table(columns).to_parquet(path)


def table(columns: Mapping[str, list[int | None]]) -> datasets.Dataset:
    pictures = {
        name: [None if seed is None else gray(seed, 96) for seed in seeds] for name, seeds in columns.items()
    }
    length = len(next(iter(columns.values())))
    features = datasets.Features(
        {"label": datasets.Value("int64"), **dict.fromkeys(columns, datasets.Image())}
    )
    return datasets.Dataset.from_dict({"label": list(range(length)), **pictures}, features)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Films 1 to 6, by their seeds."""
    folder = tmp_path / "films"
    folder.mkdir()
    for seed in range(1, 7):
        gray(seed, 96).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def pairs_of(a: Path, b: Path, out: Path) -> list[tuple[str, str]]:
    assert main([str(a), str(b), "--output_dir", str(out), "--num_proc", "1"]) == 0
    lines = (out / "pairs.csv").read_text().splitlines()[1:]
    return sorted((line.split(",")[0], line.split(",")[1]) for line in lines)


def test_a_column_of_images_is_found_whatever_its_name(films: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "hub" / "data" / "train-0.parquet", {"img": [3, 40]})
    assert pairs_of(tmp_path / "hub", films, tmp_path / "out") == [("data/train-0.parquet/0", "3.png")]
    references, pixels, names = read_protected(str(tmp_path / "hub"), 1)
    assert (len(references), len(pixels)) == (2, 2)
    assert names == ("data/train-0.parquet/0", "data/train-0.parquet/1")


def test_parquet_without_images_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    features = datasets.Features(
        {"sound": datasets.Audio(decode=False), "place": {"x": datasets.Value("int64")}}
    )
    row = {"sound": {"bytes": b"RIFF", "path": None}, "place": {"x": 1}}
    rows = pyarrow.Table.from_pylist([row], schema=features.arrow_schema)
    parquet.write_table(rows, tmp_path / "sounds.parquet")
    with pytest.raises(UserError, match=r"no column of images, but \['sound', 'place'\]"):
        open_images(str(tmp_path / "sounds.parquet"))


def test_files_of_one_name_in_two_folders_keep_their_names_apart(films: Path, tmp_path: Path) -> None:
    for site, seeds in {"east": [3, None], "west": [4, None]}.items():
        write_table(tmp_path / "sites" / site / "part.parquet", {"image": seeds})
    assert pairs_of(tmp_path / "sites", films, tmp_path / "out") == [
        ("east/part.parquet/0", "3.png"),
        ("west/part.parquet/0", "4.png"),
    ]
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert list(verdict["unreadable_a"]) == ["east/part.parquet/1", "west/part.parquet/1"]


def test_several_columns_of_images_are_all_compared(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"frontal": [3, 40, 41], "lateral": [42, 4, 5]}
    write_table(tmp_path / "views.parquet", both)
    assert pairs_of(tmp_path / "views.parquet", films, tmp_path / "out") == [
        ("views.parquet/0/frontal", "3.png"),
        ("views.parquet/1/lateral", "4.png"),
        ("views.parquet/2/lateral", "5.png"),
    ]
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda _: ["default"])
    monkeypatch.setattr("datasets.load_dataset", lambda _: datasets.DatasetDict(train=table(both)))
    ours, theirs = open_images(str(tmp_path / "views.parquet")), open_images("someone/views")
    assert theirs.names == tuple(name.replace("views.parquet", "train") for name in ours.names)
    cells = list(ours.cells.read(0))
    assert list(theirs.cells.read(0)) == cells and len(set(cells)) == 6
    for images in (ours, theirs):
        assert list(images.cells.read(3)) == cells[3:]


def test_every_configuration_of_a_dataset_is_compared(films: Path, tmp_path: Path) -> None:
    place = tmp_path / "dataset"
    write_shard(place / "adults" / "train-0.tar", [3, 40])
    write_shard(place / "children" / "train-0.tar", [41, 4])
    listed = [f"- config_name: {name}\n  data_files: {name}/*.tar\n" for name in ("adults", "children")]
    (place / "README.md").write_text(f"---\nconfigs:\n{''.join(listed)}---\n")
    images = open_images(str(place))
    assert images.names == ("adults/train/0", "adults/train/1", "children/train/0", "children/train/1")
    assert len(list(images.cells.read(1))) == 3
    assert pairs_of(place, films, tmp_path / "out") == [
        ("adults/train/0", "3.png"),
        ("children/train/1", "4.png"),
    ]


def test_a_configuration_without_images_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the library answers for a dataset of the Hub with these two."""
    words = datasets.Dataset.from_dict({"text": ["no image"]})
    held = {"films": table({"image": [3]}), "reports": words}
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda _: list(held))
    monkeypatch.setattr("datasets.load_dataset", lambda _, name: datasets.DatasetDict(test=held[name]))
    assert open_images("someone/chests").names == ("films/test/0",)
    assert "someone/chests: not compared, as no column holds images: reports (['text'])" in caplog.text
    held["films"] = words
    with pytest.raises(UserError, match=r"no column of images, but films \(\['text'\]\), reports"):
        open_images("someone/chests")
