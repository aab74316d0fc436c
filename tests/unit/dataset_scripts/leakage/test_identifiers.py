"""Which image shows which by its names alone: ChestX-ray14's and RSNA's, whichever set it came with."""

from pathlib import Path

import numpy as np
import pytest
from mini_rsna import SOURCE as RSNA
from mini_rsna import RsnaFolder
from raw_folders import gray

from dataset_scripts import Cocktail
from dataset_scripts.build.records import ImageRecord
from dataset_scripts.leakage.identifiers import find_named
from dataset_scripts.leakage.pairs import Located


def located(source: str, name: str, split: str, **names: str) -> Located:
    return Located(ImageRecord(f"{source}/{name}", source, name, name, (), **names), Path(), split)


@pytest.mark.parametrize(
    ("trained", "held_out", "guards"),
    [
        ({"rsna_image": "uuid"}, {"rsna_image": "uuid"}, ("identifier",)),
        ({"rsna_image": "uuid"}, {"rsna_image": "uuid", "nih_image": "00000007_000.png"}, ("identifier",)),
        ({"rsna_image": "uuid", "nih_image": "00000007_000.png"}, {"nih_image": "00000007_000.png"},
         ("identifier",)),
        # Another image of the patient, and an RSNA image that is called like a file of ChestX-ray14.
        ({"nih_image": "00000007_001.png"}, {"rsna_image": "uuid", "nih_image": "7_000.png"}, ("patient",)),
        ({"rsna_image": "00000007_000.png"}, {"nih_image": "00000007_000.png"}, None),
        ({"rsna_image": "uuid"}, {"rsna_image": "other"}, None),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_an_image_is_known_by_either_name(
    trained: dict[str, str], held_out: dict[str, str], guards: tuple[str, ...] | None
) -> None:
    image, reference = located("A", "1.png", "train", **trained), located("B", "2.png", "test", **held_out)
    shown = find_named([image], [reference])
    assert {name: (pair.partner, pair.guards) for name, pair in shown.items()} == (
        {} if guards is None else {"A/1.png": (reference, guards)}
    )


def test_covidx_trains_on_no_held_out_image_of_rsna_though_nothing_maps_either(tmp_path: Path) -> None:
    """The pictures differ here, so that the name alone can tell."""
    rsna = RsnaFolder(tmp_path / "raw" / RSNA.folder)
    for number in range(20):
        rsna.add(f"uuid-{number}", ",,,,0", pixels=np.asarray(gray(number)))
    rsna.finish()
    splits = Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "1").list_records(None)[0].splits
    held_out = {record.rsna_image for part in ("validation", "test") for record in splits[part]}
    assert 0 < len(held_out) < 20
    root = tmp_path / "raw" / "COVIDx_CXR"
    (root / "train").mkdir(parents=True)
    lines = [f"{number} uuid-{number}.png negative rsna" for number in range(20)]
    (root / "train.txt").write_text("\n".join(lines) + "\n")
    for number in range(20):
        gray(900 + number).save(root / "train" / f"uuid-{number}.png")
    listings = Cocktail(data_dir=tmp_path / "raw", build_dir=tmp_path / "2").list_records(None)
    (covidx,) = (listing for listing in listings if listing.source.name == "COVIDx CXR-3")
    kept = {record.rsna_image for record in covidx.splits["train"]}
    assert kept == {f"uuid-{number}" for number in range(20)} - held_out
    assert {problem.kind for problem in covidx.problems if "RSNA" in problem.detail} == {"leak"}
