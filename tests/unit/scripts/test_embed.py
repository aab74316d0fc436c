"""embed.py: one row an image, the same after a kill; what is written into, and what is refused."""

import os
import signal
import subprocess
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from page_fixtures import phantom, write_dicom, write_stage1, write_stage2
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file
from teachers import write_vit
from warm_python import start_warm

from dataset_scripts.errors import DataLayoutError, LabelFileError
from embed import main, read_options
from medhiera import Encoder
from medhiera.errors import UserError
from medhiera.inference.features_file import feature_matrix, read_features


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    return write_stage1(tmp_path_factory.mktemp("stage1"))


@pytest.fixture
def pictures(tmp_path):
    """A DICOM file, PNGs, and two that cannot be read."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(np.roll(phantom(90), number * 9, axis=1)).save(folder / f"{number}.png")
    write_dicom(folder / "study.dcm", phantom(90))
    (folder / "3bad.png").write_bytes(b"no picture")
    return folder


def run(model, output, *words):
    main(["--model", str(model), "--output", str(output), "--batch_size", "3", *map(str, words)])
    return read_features(output)


def test_a_row_holds_what_the_encoder_says_and_bad_files_are_listed(stage1, pictures, tmp_path, caplog):
    output = tmp_path / "out.parquet"
    with caplog.at_level("INFO"):
        header, table = run(stage1, output, pictures)
    assert [os.path.basename(path) for path in table["path"].to_pylist()] == [
        *(f"{number}.png" for number in range(7)), "study.dcm",
    ]  # fmt: skip
    expected = Encoder.from_pretrained(stage1).features([pictures / "5.png", pictures / "study.dcm"])
    np.testing.assert_allclose(feature_matrix(table)[[5, 7]], expected, atol=1e-5)
    assert table["features"].type == pa.list_(pa.float32(), 64) and header.size == 64
    assert header.fingerprint == Encoder.from_pretrained(stage1).fingerprint()
    assert header.pooling == "mean of tokens" and "image_size=64" in header.preprocessing
    assert str(stage1.parent) not in parquet.read_schema(output).metadata[b"medhiera"].decode()
    assert "3bad.png" in (tmp_path / "out.unreadable.csv").read_text()
    assert "images/s; 8 of 9 files" in caplog.text
    # What others read it with.
    import pandas as pd
    from datasets import load_dataset

    assert len(pd.read_parquet(output)["features"][0]) == 64
    rows = load_dataset("parquet", data_files=str(output), split="train", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(rows[5]["features"], feature_matrix(table)[5])


def test_another_architecture_is_embedded_by_the_same_command(pictures, tmp_path):
    header, table = run(write_vit(tmp_path / "vit"), tmp_path / "out.parquet", pictures, "--tokens")
    assert (header.model_type, header.size, header.tokens) == ("vit", 16, [4, 4, 16])
    assert len(table) == 8


def test_tokens_lie_beside_the_file_each_where_its_row_says(stage1, pictures, tmp_path):
    header, table = run(stage1, tmp_path / "out.parquet", pictures, "--tokens")
    encoder = Encoder.from_pretrained(stage1)
    assert header.tokens == [4, 4, 64]
    for row in (0, 4, 7):
        path = pictures / os.path.basename(table["path"][row].as_py())
        grids = load_file(tmp_path / "out.tokens" / table["tokens_file"][row].as_py())["tokens"]
        pixels = [encoder.preprocessing.pixels(Image.fromarray(phantom(90)))] if row == 7 else [
            encoder.preprocessing.pixels(Image.open(path))
        ]  # fmt: skip
        grid = encoder.embed_tokens(pixels)[0]
        np.testing.assert_allclose(grids[table["tokens_row"][row].as_py()], grid, atol=1e-5)


def test_new_changed_and_repaired_files_join_the_rows_that_are_there(stage1, pictures, tmp_path, monkeypatch):
    output = tmp_path / "out.parquet"
    monkeypatch.chdir(tmp_path)
    _, before = run(stage1, output, "in", "--tokens")
    Image.fromarray(phantom(80)).save(pictures / "2.png")
    Image.fromarray(phantom(70)).save(pictures / "3bad.png")
    (tmp_path / "more").mkdir()
    Image.fromarray(phantom(60)).save(tmp_path / "more" / "new.png")
    _, after = run(stage1, output, pictures, "--tokens")  # named in another way
    names = [os.path.basename(path) for path in after["path"].to_pylist()]
    assert names == [
        "0.png",
        "1.png",
        "2.png",
        "3.png",
        "3bad.png",
        *(f"{n}.png" for n in (4, 5, 6)),
        "study.dcm",
    ]
    kept = [name not in ("2.png", "3bad.png") for name in names]
    assert (feature_matrix(after)[kept] == feature_matrix(before)[[0, 1, 3, 4, 5, 6, 7]]).all()
    assert not (feature_matrix(after)[2] == feature_matrix(before)[2]).all()
    assert not (tmp_path / "out.unreadable.csv").exists()
    _, both = run(stage1, output, tmp_path / "more", "--tokens")
    assert len(both) == 10 and both["path"][9].as_py().endswith("new.png")
    files = {name for name in both["tokens_file"].to_pylist()}
    assert files == set(os.listdir(tmp_path / "out.tokens"))
    stamp = output.stat().st_mtime_ns
    run(stage1, output, tmp_path / "more", "--tokens")
    assert output.stat().st_mtime_ns == stamp, "nothing was new"


def test_a_dataset_whose_configuration_and_columns_are_named(stage1, tmp_path):
    kind = datasets.ClassLabel(names=["clear", "opaque"])
    features = datasets.Features(
        film=datasets.Image(), mask=datasets.Image(), reader_1=kind, reader_2=kind,
        subject=datasets.Value("int64"),
    )  # fmt: skip
    images = [Image.fromarray(np.roll(phantom(90), number * 9, axis=1)) for number in range(12)]
    labels = [number % 2 for number in range(12)]
    columns = {"film": images, "mask": images[::-1], "reader_1": [0] * 12, "reader_2": labels}
    rows = datasets.Dataset.from_dict(columns | {"subject": [n // 2 for n in range(12)]}, features=features)
    configs = ["---", "configs:"]
    for name in ("films", "others"):
        (tmp_path / "parquet" / name).mkdir(parents=True)
        rows.to_parquet(tmp_path / "parquet" / name / "test.parquet")
        configs += [f"- config_name: {name}", "  data_files:", "  - split: test"]
        configs += [f"    path: {name}/*.parquet"]
    (tmp_path / "parquet" / "README.md").write_text("\n".join([*configs, "---", ""]))
    words = ["--data_dir", tmp_path / "parquet"]
    with pytest.raises(DataLayoutError, match=r"several configurations: \['films', 'others'\]; name one"):
        run(stage1, tmp_path / "out.parquet", *words)
    words += ["--dataset_config", "films"]
    with pytest.raises(LabelFileError, match=r"\['film', 'mask'\] may each hold the image; name one"):
        run(stage1, tmp_path / "out.parquet", *words)
    words[:2] = [tmp_path / "parquet"]  # among the files, it is the same dataset: no picture lies there
    words += ["--image_column", "film", "--label_column", "reader_2", "--patient_column", "subject"]
    header, table = run(stage1, tmp_path / "out.parquet", *words)
    assert header.finding_names == ["clear", "opaque"] and header.is_exclusive
    assert table["labels"].to_pylist() == [[1.0 - label, float(label)] for label in labels]
    assert table["patient_id"].to_pylist() == [f"image folder/{number // 2}" for number in range(12)]
    np.testing.assert_allclose(
        feature_matrix(table), Encoder.from_pretrained(stage1).features(images), atol=1e-2
    )


SLOWLY = """
import sys, time
from medhiera.inference.encoder import Encoder
import embed
once = Encoder.embed
def slow(self, pixels):
    time.sleep(0.2)
    return once(self, pixels)
Encoder.embed = slow
embed.main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_to_the_same_file(stage1, pictures, tmp_path, root):
    whole, killed = tmp_path / "a" / "out.parquet", tmp_path / "b" / "out.parquet"
    run(stage1, whole, pictures, "--tokens")
    words = ["--model", str(stage1), "--batch_size", "3", "--tokens", str(pictures), "--output", str(killed)]
    (tmp_path / "slowly.py").write_text(SLOWLY)
    process, pid = start_warm([str(tmp_path / "slowly.py"), *words], cwd=root, stderr=subprocess.DEVNULL)
    journal = killed.with_name("out.parquet.partial")
    deadline = time.monotonic() + 120
    while not (journal.is_file() and journal.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    process.wait()
    assert journal.is_file() and not killed.exists()
    with journal.open("ab") as file:
        file.write(journal.read_bytes()[-700:-100])  # a batch that the kill cut off
    (tmp_path / "b" / "out.tokens" / "0123.safetensors.part").write_bytes(b"cut")
    before = journal.stat().st_size
    main(words)
    assert before and not journal.exists()
    assert killed.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path / "a" / "out.tokens")) == sorted(
        os.listdir(tmp_path / "b" / "out.tokens")
    )


def test_another_file_is_not_written_into(stage1, pictures, tmp_path):
    output = tmp_path / "out.parquet"
    run(stage1, output, pictures)
    for words, message in (
        ([write_stage2(tmp_path / "stage2"), output, pictures], "holds features of another model"),
        ([stage1, output, pictures, "--tokens"], "holds features of a file without grids of tokens"),
    ):
        with pytest.raises(UserError, match=message):
            run(*words)
    parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "mine.parquet")
    (tmp_path / "text.parquet").write_text("text")
    (tmp_path / "new.parquet.partial").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name, folder, message in (
        ("mine.parquet", pictures, "was not written by `medhiera embed`"),
        ("text.parquet", pictures, "is no Parquet file that `medhiera embed` wrote"),
        ("new.parquet", pictures, "is not what `medhiera embed` leaves of an unfinished --output"),
        ("other.parquet", tmp_path / "empty", "no image in"),
    ):
        with pytest.raises(UserError, match=message):
            run(stage1, tmp_path / name, folder)
    assert (tmp_path / "new.parquet.partial").read_text() == "mine"
    with pytest.raises(UserError, match="no image in"):
        run(stage1, tmp_path / "made" / "out.parquet", tmp_path / "empty")
    assert not (tmp_path / "made").exists()


def test_other_labels_or_pictures_of_the_same_names_are_other_data(stage1, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(np.roll(phantom(90), number * 9, axis=1)).save(folder / f"{number}.png")
    for flip in (0, 1):
        rows = [f"{number}.png,test,{(number + flip) % 2}" for number in range(12)]
        (folder / "labels.csv").write_text("\n".join(["image,split,Edema", *rows]))
        words = (tmp_path / f"{flip}.parquet", "--data_dir", folder, "--build_dir", tmp_path / "build")
        _, table = run(stage1, *words)
        assert table["labels"].to_pylist() == [[(number + flip) % 2] for number in range(12)]
        run(stage1, *words)  # nothing to do
    with pytest.raises(UserError, match="0.parquet holds features of other data"):
        run(stage1, tmp_path / "0.parquet", *words[1:])


def test_the_output_is_named_as_what_it_is(capsys):
    with pytest.raises(SystemExit):
        main(["--model", "m", "--output", "features.csv", "a.png"])
    assert "--output features.csv: the file is Parquet" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["a.png", "--data_dir", "data"]])
def test_files_or_a_dataset_are_wanted(words, capsys):
    with pytest.raises(SystemExit):
        main(["--model", "m", "--output", "o.parquet", *words])
    assert "name either FILES_OR_FOLDER_OR_DATASET, or --data_dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "is_taken_for_data"),
    [("ORG/data-v1.0", True), ("ORG/data", True), ("folder/chset.png", False), ("folder/v1.0", False)],
)
def test_a_hub_id_with_a_dot_is_a_dataset_and_a_picture_or_a_folder_here_is_none(
    name, is_taken_for_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "v1.0").mkdir(parents=True)
    options = read_options(["--model", "m", "--output", "o.parquet", name])
    assert (options.data_dir, options.paths) == ((name, []) if is_taken_for_data else (None, [Path(name)]))
