"""A dataset of others as data_dir: which configuration is read, and where such options mean nothing."""

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_scripts.build.parquet_export import export_parquet
from dataset_scripts.image_folder import ImageFolder
from medhiera.config.arguments import DataArguments
from medhiera.data.cocktail import open_cocktail
from medhiera.data.own_dataset import is_own_dataset
from medhiera.errors import UserError


def pictures(first, count):
    generator = np.random.default_rng(first)
    return [Image.fromarray(generator.integers(0, 256, (40, 40), np.uint8)) for _ in range(count)]


def test_the_configuration_that_is_named_is_built(tmp_path):
    lines = ["---", "configs:"]
    for name, count in (("films", 30), ("masks", 20)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = datasets.Dataset.from_dict({"image": pictures(count, count)})
        rows.cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
        lines += [f"- config_name: {name}", f"  data_files: {name}/*.parquet"]
    (tmp_path / "data" / "README.md").write_text("\n".join([*lines, "---", ""]))

    def read(config):
        options = DataArguments(str(tmp_path / "data"), str(tmp_path / "built"), stored_size=32)
        options.dataset_config = config
        return sum(map(len, open_cocktail(options).rows.values()))

    assert (read("films"), read("masks")) == (30, 20)
    with pytest.raises(UserError, match=r"has several configurations: \['films', 'masks'\]; name one"):
        read(None)


def test_a_configuration_of_anything_else_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    for number, picture in enumerate(pictures(0, 30)):
        picture.save(tmp_path / "own" / f"{number}.png")
    builder = ImageFolder(data_dir=tmp_path / "own", build_dir=tmp_path / "cache", stored_size=32)
    export_parquet(builder, tmp_path / "exported")
    for name, words in (
        ("own", "is a folder of images; leave it out"),
        ("exported", "is built data: image_column and dataset_config are of your own images or of a dataset"),
    ):
        options = DataArguments(str(tmp_path / name), str(tmp_path / "built"), stored_size=32)
        options.dataset_config, options.image_column = "films", "film" if name == "exported" else None
        with pytest.raises(UserError, match=words):
            open_cocktail(options)


def test_a_dataset_that_cannot_be_reached_is_told_by_what_was_asked_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    options = DataArguments("nobody/chests", str(tmp_path))
    assert not is_own_dataset(options)
    options.dataset_config = "films"
    assert is_own_dataset(options)
