"""The card of an export: hostile names in it, and whose images were removed."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard
from raw_folders import ChestFolder, gray

from dataset_scripts import Cocktail
from dataset_scripts.build.dataset_card import size_category, write_card
from dataset_scripts.build.origin import DatasetOrigin, read_origin
from dataset_scripts.build.parquet_export import export_parquet
from dataset_scripts.image_folder import ImageFolder

HOSTILE = [
    "a: b # x",
    "<script>alert(1)</script>",
    "cell | cell",
    "`code` <!--",
    "[x](javascript:y)",
    "- # z",
]


def exported(place: Path, names: list[str], own_card: str = "") -> tuple[ImageFolder, Path]:
    root = place / "own"
    (root / "images").mkdir(parents=True)
    if own_card:
        (root / "README.md").write_text(own_card)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", *names])
        for number in range(12):
            gray(number + 1).save(root / "images" / f"{number}.png")
            writer.writerow(
                [f"{number}.png", f"p{number}", *[str((number + i) % 2) for i in range(len(names))]]
            )
    builder = ImageFolder(data_dir=root, build_dir=place / "cache")
    export_parquet(builder, place / "out")
    return builder, place / "out"


def structure(card: str) -> tuple[list[str], list[int], int]:
    lines = card.split("---\n", 2)[2].splitlines()
    rows = [len(re.sub(r"\\.", "", line).split("|")) for line in lines if line.startswith("|")]
    return [line for line in lines if line.startswith("#")], rows, len(lines)


def test_hostile_labels_change_nothing_but_themselves(tmp_path: Path) -> None:
    builder, out = exported(tmp_path / "hostile", HOSTILE)
    card = (out / "README.md").read_text(encoding="utf-8")
    _, plain_out = exported(tmp_path / "plain", [f"finding {letter}" for letter in "abcdef"])
    plain = (plain_out / "README.md").read_text(encoding="utf-8")
    assert structure(card) == structure(plain)
    assert "<script>" not in card and "<!--" not in card and "](" not in card
    assert "cell \\| cell" in card and "&lt;script&gt;" in card
    assert yaml.safe_load(card.split("---\n")[1]) == yaml.safe_load(plain.split("---\n")[1])
    # A source and a kind of problem named by others: what a built dataset's reports may say.
    report = json.loads((out / "build_report.json").read_text())
    [counts] = report["images"].values()
    odd = "a\n## b | <b>"
    report |= {"images": {odd: counts}, "problem_counts": {odd: {odd: 3}}}
    (out / "build_report.json").write_text(json.dumps(report))
    (out / "data" / "x: y\n---").mkdir()
    (out / "data" / "x: y\n---" / "train-00000-of-00001.parquet").touch()
    write_card(out, builder.config, HOSTILE, [])
    again = (out / "README.md").read_text(encoding="utf-8")
    assert "| a ## b \\| &lt;b&gt; | a ## b \\| &lt;b&gt; | 3 |" in again
    assert [line for line in again.splitlines() if line.startswith("## b")] == []
    names = [entry["config_name"] for entry in yaml.safe_load(again.split("---\n")[1])["configs"]]
    assert "x: y\n---" in names


def test_what_the_hub_asks_of_a_dataset(tmp_path: Path) -> None:
    _, out = exported(tmp_path, ["Edema"])
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert head["task_categories"] == ["image-classification", "image-feature-extraction"]
    assert head["pretty_name"] and head["size_categories"] == ["n<1K"]
    assert (head["license"], head["license_link"]) == ("other", "LICENSE.md")
    assert "- image folder: Yours to state." in (out / "LICENSE.md").read_text()
    assert DatasetCard((out / "README.md").read_text()).data.pretty_name == head["pretty_name"]


def test_an_own_folder_is_called_by_its_name_or_by_the_card_in_it(tmp_path: Path) -> None:
    _, out = exported(tmp_path / "plain", ["Edema"])
    card = (out / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["pretty_name"] == "own (MedHiera)" and "\n# own\n" in card
    assert "chest-x-ray" not in head["tags"] and "cocktail" not in card.lower()
    assert "## Left out\n\nNothing: every file" in card
    noted = card.split("## Noted")[1].split("##")[0]
    assert "| image folder | split_cut | 1 |" in noted  # which left no file out
    named = (
        "---\npretty_name: Films of *Lund*\nlicense: cc-by-4.0\nhomepage: https://films.example\n---\nText\n"
    )
    _, out = exported(tmp_path / "named", ["Edema"], named)
    card = (out / "README.md").read_text()
    assert "\n# Films of *Lund*\n" in card and "License: cc-by-4.0" in card
    assert "Get it from https://films.example." in card
    assert "- image folder: cc-by-4.0" in (out / "LICENSE.md").read_text()
    for damage in ("---\npretty_name: [\n---\n", "---\n- a\n---\n", "no card", "---\nlicense: 3\n---\n"):
        (tmp_path / "named" / "own" / "README.md").write_text(damage)
        assert read_origin(tmp_path / "named" / "own") == DatasetOrigin(folder="own")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (112_120, "100K<n<1M"),
        (10**7, "10M<n<100M"),
    ],
)
def test_the_hubs_word_for_a_size(images: int, said: str) -> None:
    assert size_category(images) == said


def test_of_which_source_images_were_removed_and_whose_they_show(
    chest: ChestFolder, covidx: Callable[[str, str, int], Path], tmp_path: Path
) -> None:
    chest.add("test", "00000041_000.png", "Mass", 41, seed=600)
    raw = chest.finish().parent
    covidx("train", "7 harmless.png", 601)
    covidx("train", "8 leak.png", 600)
    out = tmp_path / "out"
    export_parquet(Cocktail(data_dir=raw, build_dir=tmp_path / "cache"), out)
    card = (out / "README.md").read_text(encoding="utf-8")
    wanted = "were removed (of COVIDx CXR-3 1; showing images of ChestX-ray14 1). "
    assert f"\n1 training images that show held-out images {wanted}" in card
    assert "Labels: none; all are NaN." in card.split("### COVIDx CXR-3")[1]
