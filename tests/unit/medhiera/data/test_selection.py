"""Which rows a stage reads: names refused or taken, shares as weighted, phantoms known as such."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from PIL import Image
from transformers import TrainingArguments

from dataset_scripts import Cocktail, write_phantom_cohort
from dataset_scripts.build.parquet_export import export_parquet
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import (
    BuiltDataset,
    are_drawn,
    by_source,
    count_without_patient,
    figure_mark,
    missing_validation,
    open_cocktail,
    phantom_sources,
)
from medhiera.data.columns import read_column
from medhiera.data.dataset import RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.selection import (
    mix_sources,
    sample_across_sources,
    select_examples,
    warn_of_small_images,
)
from medhiera.errors import UserError
from medhiera.hub.data_record import DataRecord

MASKS = MaskDrawing((2, 2), 0.5)
CHEST, BRAIN, COVIDX = "ChestX-ray14", "BraTS 2020", "COVIDx CXR-3"


@pytest.fixture
def rows() -> Dataset:
    sources = [CHEST] * 300 + [BRAIN] * 20 + [COVIDX] * 80
    return Dataset.from_dict({"source": sources, "image_id": [f"image {n}" for n in range(400)]})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_phantom_cohort(folder, patients=24, image_size=64)
    return folder


@pytest.fixture(scope="module")
def exported(raw: Path) -> Path:
    out = raw.parent / "exported"
    export_parquet(Cocktail(data_dir=raw, build_dir=raw.parent / "cache"), out)
    return out


def options(folder: Path, **more: object) -> DataArguments:
    return DataArguments(str(folder), build_dir=str(folder.parent / "built"), **more)


def test_what_is_exported_of_phantoms_says_so(raw: Path, exported: Path) -> None:
    for folder in (raw, exported):
        data = open_cocktail(options(folder))
        assert data.is_exported == (folder == exported)
        record = record_of(data, trained_on="train", validated_on="test")
        assert record.is_phantom and set(record.phantom_sources) == set(record.trained_on)
        assert record.split_scheme == "official" and are_drawn(data.split("validation"))
        assert figure_mark(data.split("train"), is_smoke_run=False) == "synthetic phantoms"
    assert "**Synthetic phantoms in its layout" in (exported / "README.md").read_text()


def record_of(data: BuiltDataset, **splits: str) -> DataRecord:
    return DataRecord.of(data, {use: data.split(split) for use, split in splits.items()})


def test_what_is_real_among_phantoms_is_known_as_real(raw: Path, tmp_path: Path) -> None:
    """A film added to drawn ones makes its source real; the other sources of the run stay phantoms."""
    mixed = tmp_path / "raw"
    for name in ("ChestXray-NIHCC", "MICCAI_BraTS2020_TrainingData"):
        shutil.copytree(raw / name, mixed / name)
    shutil.copy(mixed / "ChestXray-NIHCC/images/00000001_000.png", mixed / "ChestXray-NIHCC/images/new.png")
    data = open_cocktail(options(mixed))
    record = record_of(data, trained_on="train", validated_on="validation", tested_on="test")
    assert not record.is_phantom and CHEST not in record.phantom_sources
    assert BRAIN in record.phantom_sources
    mark = figure_mark(data.split("train"), data.split("validation"), is_smoke_run=True)
    assert mark == "synthetic phantoms among real images · smoke run, not a trained model"
    assert not are_drawn(data.split("train")) and not are_drawn(data.split("validation"))
    drawn = select_examples(data.split("train"), [BRAIN], None, seed=0)
    assert are_drawn(drawn) and not are_drawn(drawn.select([]))
    chest = select_examples(data.split("train"), [CHEST], None, seed=0)
    assert figure_mark(chest, is_smoke_run=False) == ""
    assert not are_drawn(chest.remove_columns("is_phantom")) and phantom_sources(chest) == set()


def cut_a_shard(folder: Path) -> None:
    path = sorted(folder.glob("data/*/train-*"))[0]
    path.write_bytes(path.read_bytes()[:-1000])


def lose_a_shard(folder: Path) -> None:
    sorted(folder.glob("data/*/train-*"))[0].unlink()


def stop_in_the_middle(folder: Path) -> None:
    build = json.loads((folder / "build.json").read_text())
    key = {name: build[name] for name in ("dataset", "config", "version")}
    (folder / "build.json").write_text(json.dumps(key | {"complete": False}))


def tear_the_build_file(folder: Path) -> None:
    (folder / "build.json").write_text('{"dataset": "cock')


def lose_the_leak_counts(folder: Path) -> None:
    (folder / "leakage_report.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_a_shard, r"data/\S*train\S* ends without a Parquet footer"),
        (lose_a_shard, r"data/\S*train\S* is missing"),
        (stop_in_the_middle, "build.json says that the build was not finished"),
        (tear_the_build_file, r"build\.json is absent or damaged"),
        (lose_the_leak_counts, r"leakage_report\.json is missing"),
    ],
)
def test_nothing_is_trained_on_built_data_that_is_not_whole(
    exported: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    copy = tmp_path / "exported"
    shutil.copytree(exported, copy)
    damage(copy)
    with pytest.raises(UserError, match=f"holds no complete build: {words}.*--output_dir again"):
        open_cocktail(options(copy))


@pytest.mark.parametrize("field", ["sources", "source_weights"])
def test_a_source_that_no_split_holds_is_refused(exported: Path, field: str) -> None:
    asked = [CHEST, "BraTS2020"]
    value = dict.fromkeys(asked, 1.0) if field == "source_weights" else asked
    with pytest.raises(UserError, match=rf"{field} names \['BraTS2020'\], .*'BraTS 2020', 'COVID-19"):
        open_cocktail(options(exported, **{field: value}))


def test_the_folder_of_own_images_is_no_name_of_a_source(exported: Path) -> None:
    message = r"names \['own_images'\], which no split holds.*; the images of own_images are 'image folder'"
    with pytest.raises(UserError, match=message):
        open_cocktail(options(exported, sources=["own_images"]))


def test_a_source_of_another_split_is_no_fault(exported: Path) -> None:
    opened = open_cocktail(options(exported, sources=[CHEST, BRAIN]))
    held_out = select_examples(opened.split("validation"), [CHEST, BRAIN], None, 0)
    assert set(held_out["source"]) == {CHEST}
    said = r"'BraTS 2020'\]: none is in this split \(validation\), which holds \['ChestX-ray14'\]\. Name one"
    with pytest.raises(UserError, match=said):
        select_examples(opened.split("validation"), [BRAIN], None, 0)


def test_shares_are_as_weighted_and_every_image_is_shown(rows: Dataset) -> None:
    mixed = mix_sources(rows, {CHEST: 3, BRAIN: 1}, seed=0)
    counts = Counter(mixed["source"])
    assert counts.keys() == {CHEST, BRAIN}
    assert counts[BRAIN] / len(mixed) == pytest.approx(0.25, abs=0.05)
    assert set(mixed["image_id"]) == {f"image {n}" for n in range(320)}
    assert mix_sources(rows, {CHEST: 3, BRAIN: 1}, seed=0)["image_id"][:] == mixed["image_id"][:]
    assert mix_sources(rows, {CHEST: 3, BRAIN: 1}, seed=1)["image_id"][:] != mixed["image_id"][:]
    assert mix_sources(rows, {}, seed=0) is rows


def test_a_weighted_source_without_a_chosen_row(rows: Dataset) -> None:
    with pytest.raises(UserError, match=r"source_weights names \['BraTS 2020'\], of which no training row"):
        mix_sources(select_examples(rows, [CHEST], None, 0), {CHEST: 1, BRAIN: 1}, seed=0)


def test_an_image_shown_again_is_masked_anew(rows: Dataset) -> None:
    pictures = Dataset.from_dict({"image": [Image.new("L", (64, 64), 100)] * len(rows)})
    mixed = mix_sources(concatenate_datasets([rows, pictures], axis=1), {CHEST: 1, BRAIN: 1}, seed=0)
    table = RadiographDataset(mixed, Preprocessing(64, 64, 0.5, 0.25), masks=MASKS)
    shown = [row for row, image_id in enumerate(mixed["image_id"]) if image_id == "image 310"]
    assert len(shown) > 3
    masks = {tuple(noise) for noise in table.__getitems__([(0, row) for row in shown])["noise"].tolist()}
    assert len(masks) == len(shown)
    once = RadiographDataset(mixed.select(shown[:1]), Preprocessing(64, 64, 0.5, 0.25), masks=MASKS)
    assert torch.equal(once[0, 0]["noise"], table[0, shown[0]]["noise"])


def test_a_figure_takes_each_source_in_turn(rows: Dataset) -> None:
    chosen = sample_across_sources(rows, 7)
    assert [rows[row]["source"] for row in chosen] == [CHEST, BRAIN, COVIDX, CHEST, BRAIN, COVIDX, CHEST]
    assert len(set(chosen)) == 7
    assert chosen[-1] > 50
    few = rows.select([0, 1, 2, 300])
    assert sorted(sample_across_sources(few, 9)) == [0, 1, 2, 3]


def test_images_smaller_than_the_model_asks_for_are_said_to_be(caplog) -> None:
    images = [Image.new("L", size) for size in ((60, 48), (40, 64))]
    rows = Dataset.from_dict({"image": images})
    warn_of_small_images(rows, 48, is_exported=True)
    assert not caplog.records
    warn_of_small_images(rows, 49, is_exported=True)
    assert "at most 48 pixels" in caplog.text and "enlarged to 49" in caplog.text
    assert "If the files it was built from are larger, name their folder" in caplog.text
    caplog.clear()
    warn_of_small_images(rows, 49, is_exported=False)
    assert "The files themselves are so small" in caplog.text and "built" not in caplog.text


def test_what_a_recipe_protects_is_not_trained_on_and_counted(raw: Path, tmp_path: Path) -> None:
    plain = open_cocktail(options(raw))
    assert plain.leakage().protected == 0
    shown = plain.rows["train"].filter(lambda row: row["source"] == COVIDX)[0]
    held_out = tmp_path / "held out"
    held_out.mkdir()
    Image.open(raw / "COVIDx_CXR" / shown["image_id"].removeprefix(f"{COVIDX}/")).save(held_out / "a.png")
    data = open_cocktail(options(raw, protect=str(held_out), keep_duplicates="once"))
    assert data.leakage().protected == 1
    assert data.leakage().dropped > plain.leakage().dropped
    assert shown["image_id"] not in data.rows["train"]["image_id"]
    used = {"trained_on": data.rows["train"], "validated_on": data.rows["validation"]}
    record = DataRecord.of(data, used)
    assert record.leakage == data.leakage()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"split_scheme": "medtransformer"}, "with split_scheme: official, wanted is medtransformer"),
        ({"allow_leakage": True}, "its leaks are left out, and the recipe has allow_leakage: True"),
        ({"keep_duplicates": "once"}, "it keeps near-duplicates all, wanted is once"),
        ({"nih_mapping": "map.csv"}, "nih_mapping is read when data is built"),
        ({"contours": "learned"}, "contours is read when data is built"),
        ({"protect": "held out"}, "protect is read when data is built"),
    ],
)
def test_training_refuses_what_built_data_cannot_give(
    exported: Path, tmp_path: Path, asked: dict[str, object], said: str
) -> None:
    training = TrainingArguments(str(tmp_path), use_cpu=True)
    with pytest.raises(UserError, match=said):
        open_cocktail(options(exported, **asked), training)
    assert open_cocktail(options(exported), training).rows
    if "split_scheme" in asked:  # another scheme's test images may have been trained on
        with pytest.raises(UserError, match=said):
            open_cocktail(options(exported, **asked))
    else:
        assert open_cocktail(options(exported, **asked)).rows  # evaluation takes it as it is


def write_own(folder: Path, rows: list[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    for index, row in enumerate(rows):
        gray = np.random.default_rng(index).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(gray).save(folder / "images" / row.split(",")[0])
    (folder / "labels.csv").write_text("image,patient,split,Mass\n" + "\n".join(rows) + "\n")
    return folder


def test_an_own_folder_without_validation_images_is_refused_before_building(tmp_path: Path) -> None:
    rows = [f"{n}.png,p{n},{'train' if n % 2 else 'test'},1" for n in range(6)]
    own = write_own(tmp_path / "own", rows)
    (fault,) = missing_validation(own)
    assert fault.startswith("labels.csv has no row with split validation: ") and "ChestX" not in fault
    (fault,) = missing_validation(write_own(tmp_path / "a", [r.replace("test", "val") for r in rows]), True)
    assert fault.startswith("labels.csv has no row with split test: ")
    write_own(tmp_path / "raw" / "own_images", rows)
    (fault,) = missing_validation(tmp_path / "raw")
    assert "own_images: labels.csv has no row with split validation" in fault and "ChestXray-NIHCC" in fault
    (tmp_path / "raw" / "ChestXray-NIHCC").mkdir()
    assert missing_validation(tmp_path / "raw") == []
    data = open_cocktail(options(own))
    with pytest.raises(
        UserError, match=r"no validation split, only \['test', 'train'\]: .*labels.csv.* has no row with"
    ):
        data.split("validation")


def test_a_drawn_split_whose_images_cannot_be_read_says_so(tmp_path: Path) -> None:
    """No table is there to be corrected: the split was drawn, and what was drawn for it was left out."""
    folder = tmp_path / "own"
    write_own(tmp_path / "source", [f"{n}.png,p{n},,1" for n in range(7)])
    (tmp_path / "source" / "images").rename(folder)
    drawn = open_cocktail(options(folder)).split("validation")["image_id"]
    for image in drawn:
        path = folder / image.partition("/")[2]
        path.write_bytes(path.read_bytes()[:100])
    data = open_cocktail(options(folder))
    with pytest.raises(UserError) as told:
        data.split("validation")
    said = str(told.value)
    name = drawn[0].partition("/")[2]
    assert said.startswith("the data has no validation split, only ['test', 'train']: ") and name in said
    assert "was left out (" in said and "labels.csv" not in said and said.endswith("or add images")


def test_folders_of_classes_are_asked_for_a_folder_of_the_split(tmp_path: Path) -> None:
    for number, place in enumerate(f"{split}/{name}" for split in ("train", "validation") for name in "AB"):
        write_own(tmp_path / "rows" / str(number), [f"{number}.png,p,,"])
        (tmp_path / "own" / place).mkdir(parents=True)
        (tmp_path / "rows" / str(number) / "images" / f"{number}.png").rename(
            tmp_path / "own" / place / f"{number}.png"
        )
    data = open_cocktail(options(tmp_path / "own"))
    with pytest.raises(UserError, match="no test split, .*without a table, no folder test holds an image"):
        data.split("test")


def test_an_own_folder_of_test_images_alone_is_opened_to_be_scored(tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", [f"{n}.png,p{n},test,1" for n in range(3)])
    data = open_cocktail(options(own))
    assert (data.names, len(data.split("test"))) == (["Mass"], 3) and math.isnan(data.mean)
    with pytest.raises(UserError, match=r"no train split to train on, only \['test'\]"):
        open_cocktail(options(own), TrainingArguments(str(tmp_path / "run"), use_cpu=True))


def test_a_column_is_read_in_the_order_of_the_rows(rows: Dataset) -> None:
    """Through datasets' own table of row numbers, which has no public name."""
    chosen = rows.shuffle(seed=0).select(range(50, 350)).select([7, 3, 3, 200])
    assert read_column(chosen, "image_id").to_pylist() == list(chosen["image_id"])
    mixed = mix_sources(rows, {CHEST: 1.0, COVIDX: 1.0}, seed=0)
    assert read_column(mixed, "image_id").to_pylist() == list(mixed["image_id"])
    assert by_source(rows.shuffle(seed=0)) == {CHEST: 300, COVIDX: 80, BRAIN: 20}


def test_data_whose_shard_is_gone_is_built_again(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (6, 32, 32), np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(own / "images" / f"{index}.png")
    rows = [f"{index}.png,{'train' if index < 4 else 'validation'},{index % 2}" for index in range(6)]
    (own / "labels.csv").write_text("\n".join(["image,split,mass", *rows]))
    before = open_cocktail(options(own))
    assert not before.is_reused and open_cocktail(options(own)).is_reused
    (shard,) = before.folder.glob("*-train.arrow")
    shard.unlink()
    again = open_cocktail(options(own))
    assert not again.is_reused and open_cocktail(options(own)).is_reused
    assert again.rows["train"]["image_id"][:] == before.rows["train"]["image_id"][:]


def test_images_without_a_patient_are_counted(tmp_path: Path) -> None:
    """A patient with one image is a patient; so is one whose name begins like the mark of a missing one."""
    own = write_own(tmp_path / "own", ["0.png,p,train,1", "1.png,,train,0", "2.png,image 3.png,test,1"])
    data = open_cocktail(options(own))
    used = {"trained_on": data.split("train"), "validated_on": data.split("test")}
    assert count_without_patient(used) == 1
    assert DataRecord.of(data, used).images_without_patient == 1
