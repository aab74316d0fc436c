"""The guards: what each catches, what is kept, and how sure the pixels are under every change."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from mini_iu import IuFolder
from PIL import Image
from raw_folders import ChestFolder, gray, jpeg, read_leakage_report

from dataset_scripts import FINDINGS, ChestXray14, Cocktail, ImageFolder
from dataset_scripts.build.build_log import note_lines, read_report
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.layout import LEAKAGE_SHEET_FILE as SHEET_FILE
from dataset_scripts.build.layout import PROTECTED_PAIRS_FILE
from dataset_scripts.build.parquet_export import export_parquet
from dataset_scripts.build.records import ImageRecord
from dataset_scripts.errors import DataLayoutError, LabelFileError, UserError
from dataset_scripts.iu_xray import _official_split
from dataset_scripts.leakage.label_conflicts import describe_conflict

AddCovidx = Callable[[str, str, int], Path]


def build(root: Path, **options: object) -> Cocktail:
    builder = Cocktail(data_dir=root, build_dir=root.parent / "cache", **options)
    builder.download_and_prepare()
    return builder


@pytest.fixture
def leaking(chest: ChestFolder, covidx: AddCovidx) -> Path:
    """COVIDx with one image of the test list under another name, and one harmless image."""
    chest.add("test", "00000041_000.png", "Mass", 41, seed=600)
    chest.finish()
    covidx("train", "7 harmless.png", 601)
    covidx("train", "8 leak.png", 600)
    return chest.root.parent


def test_allowed_leakage_keeps_and_names_the_images(leaking: Path) -> None:
    builder = build(leaking, allow_leakage=True)
    assert "COVIDx CXR-3/train/leak.png" in builder.as_dataset()["train"]["image_id"]
    report = read_leakage_report(builder.cache_dir)
    assert (report["dropped"], report["allow_leakage"]) == ([], True)
    assert [leak["image_id"] for leak in report["allowed"]] == ["COVIDx CXR-3/train/leak.png"]
    assert read_report(builder.cache_dir)["problem_counts"] == {"COVIDx CXR-3": {"leak_allowed": 1}}
    assert build(leaking).cache_dir != builder.cache_dir


def test_caught_pairs_can_be_looked_at(leaking: Path) -> None:
    builder = build(leaking)
    with Image.open(Path(builder.cache_dir) / SHEET_FILE) as sheet:
        assert sheet.size == (264, 160)
        pixels = np.asarray(sheet, float)
    left, right = pixels[:128, :128], pixels[:128, 128:256]
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.95
    assert read_leakage_report(builder.cache_dir)["near_threshold"]["images"] == 0
    assert "1 of 36 training images show a held-out one; " in "; ".join(note_lines(Path(builder.cache_dir)))


@pytest.mark.parametrize(
    ("shown", "guards"), [("00000041_000.png", ["identifier"]), ("00000041_007.png", ["patient"])]
)
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_mapping_of_the_users_names_images_and_patients(
    leaking: Path, tmp_path: Path, shown: str, guards: list[str], suffix: str
) -> None:
    mapping = tmp_path / f"mapping.{suffix}"
    if suffix == "csv":
        mapping.write_text(f"rsna,nih\nharmless,{shown}\nnobody,00000001_000.png\n")
    else:
        mapping.write_text(json.dumps([{"subset_img_id": "harmless", "img_id": shown}]))
    dropped = read_leakage_report(build(leaking, nih_mapping=str(mapping)).cache_dir)["dropped"]
    assert {leak["image_id"].rsplit("/", 1)[1]: leak["guards"] for leak in dropped} == {
        "harmless.png": guards,
        "leak.png": ["pixels"],
    }
    assert {leak["held_out_image_id"] for leak in dropped} == {"ChestX-ray14/00000041_000.png"}


def test_a_changed_mapping_is_built_anew(leaking: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.csv"
    folders = []
    for shown in ("00000041_000.png", "00000001_000.png"):
        mapping.write_text(f"rsna,nih\nharmless,{shown}\n")
        folders.append(build(leaking, nih_mapping=str(mapping)).cache_dir)
    assert folders[0] != folders[1]


def test_a_file_that_is_no_mapping(leaking: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.json"
    mapping.write_text('[{"image": 1}]')
    table = tmp_path / "mapping.csv"
    table.write_text(f'rsna,nih\nharmless,"{"0" * 200_000}\n')
    with pytest.raises(LabelFileError, match=r"mapping\.csv is no mapping.*line 2: a double quote"):
        build(leaking, nih_mapping=str(table))
    with pytest.raises(LabelFileError, match=r"mapping\.json is no mapping.*Wanted the RSNA"):
        build(leaking, nih_mapping=str(mapping))


def add_radiography(raw: Path, name: str, picture: Image.Image) -> str:
    """Adds a training image of the Radiography database and returns its id."""
    path = raw / "COVID-19_Radiography_Dataset" / "COVID" / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return f"COVID-19 Radiography/COVID/images/{name}"


def add_own(raw: Path, pictures: dict[str, tuple[str, int]]) -> None:
    """Writes own_images: name → (split, seed)."""
    (raw / "own_images" / "images").mkdir(parents=True)
    for name, (_, seed) in pictures.items():
        gray(seed, 96).save(raw / "own_images" / "images" / name)
    lines = ["image,split,Mass", *(f"{name},{split},1" for name, (split, _) in pictures.items())]
    (raw / "own_images" / "labels.csv").write_text("\n".join(lines) + "\n")


def copy_of(seed: int) -> Image.Image:
    """The picture of a seed as another set would hold it: smaller, and recompressed."""
    return jpeg(gray(seed, 96).resize((75, 80), Image.Resampling.BICUBIC), 60)


def test_a_test_image_of_covidx_is_guarded_without_chestxray14(tmp_path: Path, covidx: AddCovidx) -> None:
    raw = tmp_path / "raw"
    covidx("test", "1 held out.png", 600)
    covidx("train", "2 mine.png", 601)
    leak, harmless = (add_radiography(raw, f"{seed}.jpg", copy_of(seed)) for seed in (600, 602))
    twin = add_radiography(raw, "601.jpg", copy_of(601))  # shows a training image: harmless
    builder = build(raw)
    assert sorted(builder.as_dataset()["train"]["image_id"]) == sorted(
        [harmless, twin, "COVIDx CXR-3/train/mine.png"]
    )
    report = read_leakage_report(builder.cache_dir)
    (dropped,) = report["dropped"]
    assert (dropped["image_id"], dropped["held_out_image_id"]) == (leak, "COVIDx CXR-3/test/held out.png")
    assert (dropped["held_out_source"], dropped["held_out_split"]) == ("COVIDx CXR-3", "test")
    assert dropped["guards"] == ["pixels"]
    assert report["reference"] == ["COVIDx CXR-3"]
    assert report["held_out"] == {"COVIDx CXR-3": {"images": 1, "compared": 4, "shown": 1}}
    assert (report["held_out_images"], report["compared_images"]) == (1, 4)
    assert read_report(builder.cache_dir)["problem_counts"] == {"COVID-19 Radiography": {"leak": 1}}
    allowed = build(raw, allow_leakage=True)
    assert leak in allowed.as_dataset()["train"]["image_id"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_own_images_hold_out_is_guarded(tmp_path: Path, covidx: AddCovidx, split: str) -> None:
    raw = tmp_path / "raw"
    add_own(raw, {"a.png": (split, 610), "b.png": ("train", 611)})
    covidx("train", "1 harmless.png", 612)
    leak = add_radiography(raw, "610.jpg", copy_of(610))
    builder = build(raw)
    assert sorted(builder.as_dataset()["train"]["image_id"]) == [
        "COVIDx CXR-3/train/harmless.png",
        "image folder/b.png",
    ]
    (dropped,) = read_leakage_report(builder.cache_dir)["dropped"]
    assert (dropped["image_id"], dropped["held_out_image_id"]) == (leak, "image folder/a.png")
    assert dropped["held_out_split"] == split


def test_each_source_guards_against_the_others(chest: ChestFolder, covidx: AddCovidx) -> None:
    chest.add("test", "00000052_000.png", "Mass", 52, seed=621)
    raw, trained = chest.finish().parent, chest.trained()
    covidx("test", "1 held out.png", chest.seeds[trained])
    covidx("train", "2 leak.png", 621)
    report = read_leakage_report(build(raw).cache_dir)
    assert {leak["image_id"]: leak["held_out_source"] for leak in report["dropped"]} == {
        f"ChestX-ray14/{trained}": "COVIDx CXR-3",
        "COVIDx CXR-3/train/leak.png": "ChestX-ray14",
    }
    assert {source: counts["shown"] for source, counts in report["held_out"].items()} == {
        "ChestX-ray14": 1,
        "COVIDx CXR-3": 1,
    }


def test_within_one_source_the_identifier_decides_and_the_pixels(tmp_path: Path, covidx: AddCovidx) -> None:
    covidx("test", "1 held.png", 630)
    covidx("train", "2 alike.png", 630)
    covidx("train", "3 named.png", 631)
    covidx("train", "4 other.png", 632)
    mapping = tmp_path / "mapping.csv"
    mapping.write_text("rsna,nih\nheld,00000001_000.png\nnamed,00000001_000.png\n")
    builder = build(tmp_path / "raw", nih_mapping=str(mapping))
    assert builder.as_dataset()["train"]["image_id"][:] == ["COVIDx CXR-3/train/other.png"]
    report = read_leakage_report(builder.cache_dir)
    assert {leak["image_id"].rpartition("/")[2]: leak["guards"] for leak in report["dropped"]} == {
        "alike.png": ["pixels"],
        "named.png": ["identifier"],
    }
    assert report["compared_within"] == ["COVIDx CXR-3"]
    assert report["held_out"] == {"COVIDx CXR-3": {"images": 1, "compared": 3, "shown": 2}}
    assert report["found_by"]["leaks"] == {"identifier": 1, "pixels": 1}
    assert report["named_images"] == {"COVIDx CXR-3": 1}


def test_a_source_is_not_compared_with_itself_where_that_takes_hours(
    tmp_path: Path, covidx: AddCovidx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_scripts.leakage.guard._MOST_COMPARISONS", 8_000)
    covidx("test", "1 held.png", 630)
    covidx("train", "2 alike.png", 630)
    builder = build(tmp_path / "raw")
    assert builder.as_dataset()["train"]["image_id"][:] == ["COVIDx CXR-3/train/alike.png"]
    assert read_leakage_report(builder.cache_dir)["compared_within"] == []


def test_a_validation_image_that_shows_a_test_image_is_named_and_stays(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    add_own(raw, {"a.png": ("test", 610), "b.png": ("validation", 610), "c.png": ("train", 611)})
    builder = ImageFolder(data_dir=raw / "own_images", build_dir=tmp_path / "cache")
    builder.download_and_prepare()
    (pair,) = read_leakage_report(builder.cache_dir)["held_out_duplicates"]
    assert (pair["image_id"], pair["test_image_id"]) == ("image folder/b.png", "image folder/a.png")
    assert builder.as_dataset().num_rows == {"train": 1, "validation": 1, "test": 1}


def test_near_duplicates_in_training_are_kept_once_where_that_is_asked_for(
    tmp_path: Path, covidx: AddCovidx
) -> None:
    for number, seed in enumerate((640, 641, 640, 642)):
        covidx("train", f"{number} {number}.png", seed)
    copy_of(640).save(tmp_path / "raw" / "COVIDx_CXR" / "train" / "2.png")
    every = build(tmp_path / "raw")
    assert len(every.as_dataset()["train"]) == 4
    assert read_leakage_report(every.cache_dir)["source_duplicates"] is None
    once = build(tmp_path / "raw", keep_duplicates="once")
    assert [path[-5:] for path in sorted(once.as_dataset()["train"]["image_id"])] == [
        "0.png",
        "1.png",
        "3.png",
    ]
    (repeated,) = read_leakage_report(once.cache_dir)["source_duplicates"]
    assert repeated["image_id"] == "COVIDx CXR-3/train/2.png"
    assert (repeated["kept_image_id"], repeated["guards"]) == ("COVIDx CXR-3/train/0.png", ["pixels"])
    assert read_report(once.cache_dir)["problem_counts"] == {"COVIDx CXR-3": {"duplicate": 1}}


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A user's own held-out images, one of which stands in `leaking` as COVIDx's harmless.png."""
    folder = tmp_path / "secret ward 7"
    folder.mkdir()
    copy_of(601).save(folder / "jane doe.png")
    gray(650, 96).save(folder / "john roe.png")
    (folder / "unreadable.png").write_bytes(b"\x89PNG")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_list_of_the_users_is_protected_and_its_names_stay_here(
    leaking: Path, hospital: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builder = Cocktail(data_dir=leaking, build_dir=tmp_path / "cache", protect=str(hospital))
    out = tmp_path / "out"
    with caplog.at_level("INFO"):
        export_parquet(builder, out)
    assert "unreadable.png (not_an_image" in caplog.text
    assert f"protect: 2 images of {hospital} are protected; 1 files are no pictures" in caplog.text
    report = read_leakage_report(out)
    assert report["protected"] == {"images": 2, "compared": 36, "shown": 1}
    assert {leak["image_id"].rpartition("/")[2]: leak["held_out_source"] for leak in report["dropped"]} == {
        "harmless.png": "protected",
        "leak.png": "ChestX-ray14",
    }
    assert [leak["guards"] for leak in report["dropped"]] == [["pixels"], ["pixels"]]
    assert read_report(out)["problem_counts"] == {"COVIDx CXR-3": {"leak": 2}}
    pairs = (out / PROTECTED_PAIRS_FILE).read_text().splitlines()
    assert pairs[1].startswith("COVIDx CXR-3/train/harmless.png,jane doe.png,0.")
    assert len(pairs) == 2
    published = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert {path.name for path in published} >= {"README.md", "leakage_report.json", "leakage_pairs.png"}
    for path in published:
        assert not any(word in path.read_bytes() for word in (b"jane", b"john", b"ward 7", b"unreadable"))
    with Image.open(out / SHEET_FILE) as sheet:
        assert sheet.size == (264, 160)  # one pair: of ChestX-ray14
    card = (out / "README.md").read_text()
    assert "2 images that are held out elsewhere were protected too: 1 training image showed one" in card
    assert not export_parquet(builder, out)  # complete
    gray(602, 96).save(hospital / "another.png")
    changed = Cocktail(data_dir=leaking, build_dir=tmp_path / "cache", protect=str(hospital))
    assert changed.cache_dir != builder.cache_dir


def test_protected_parquet_and_ones_own_folder(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": [copy_of(seed) for seed in (610, 611)]})
    rows.to_parquet(tmp_path / "held out.parquet")
    add_own(
        tmp_path,
        {f"{seed}.png": ("train", seed) for seed in (610, 620, 621)} | {"v.png": ("validation", 622)},
    )
    builder = ImageFolder(
        data_dir=tmp_path / "own_images",
        build_dir=tmp_path / "cache",
        protect=str(tmp_path / "held out.parquet"),
    )
    builder.download_and_prepare()
    assert builder.as_dataset()["train"]["image_id"][:] == ["image folder/620.png", "image folder/621.png"]
    assert (Path(builder.cache_dir) / PROTECTED_PAIRS_FILE).read_text().count("held out.parquet/0") == 1


def test_a_study_is_left_out_whole_where_one_of_its_pictures_leaks(tmp_path: Path) -> None:
    iu = IuFolder(tmp_path / "raw" / "iu_xray")
    uids = [uid for uid in range(1, 40) if _official_split(f"CXR{uid}", SourceConfig()) == "train"][:2]
    names = [f"{uid}_IM-0001-{view}" for uid in uids for view in ("1001", "2001")]
    iu.kaggle(
        [(uid, "", "Mass.", "") for uid in uids],
        [(name.split("_")[0], f"{name}.dcm.png", "Frontal") for name in names],
    )
    iu.draw(*(f"images/images_normalized/{name}.dcm.png" for name in names))
    (tmp_path / "held out").mkdir()
    pictures = iu.root / "images" / "images_normalized"
    shutil.copy(pictures / f"{names[0]}.dcm.png", tmp_path / "held out" / "film.png")
    listing = Cocktail(data_dir=tmp_path / "raw", protect=str(tmp_path / "held out")).list_records(None)[0]
    assert {record.study_id for record in listing.splits["train"]} == {f"iu_x_ray/CXR{uids[1]}"}
    told = {Path(problem.name).name[: len(names[0])]: problem.detail for problem in listing.problems}
    assert told[names[0]] == "shows a protected image" and "of one study with" in told[names[1]]


def test_nothing_to_protect_is_refused(leaking: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name one of the two"):
        build(leaking, protect=str(tmp_path / "absent"), allow_leakage=True)
    with pytest.raises(DataLayoutError, match=r"protect is .*absent: not there, or neither a folder"):
        build(leaking, protect=str(tmp_path / "absent"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataLayoutError, match="of which no image can be read"):
        build(leaking, protect=str(tmp_path / "broken"))
    with pytest.raises(DataLayoutError, match="for Cocktail and ImageFolder alone"):
        ChestXray14(data_dir=leaking / "ChestXray-NIHCC", protect=str(tmp_path / "broken")).list_records(None)


def test_labels_that_contradict_each_other_are_listed_and_left_alone(chest: ChestFolder) -> None:
    chest.add("test", "00000041_000.png", "Pneumonia", 41, seed=600)
    chest.add("test", "00000042_000.png", "No Finding", 42, seed=601)
    chest.add("test", "00000043_000.png", "Mass", 43, seed=602)
    raw = chest.finish().parent
    normal, viral, agreeing = (
        raw / "COVID-19_Radiography_Dataset" / group / "images" / f"{seed}.png"
        for group, seed in (("Normal", 600), ("Viral Pneumonia", 601), ("Lung_Opacity", 602))
    )
    for path in (normal, viral, agreeing):
        path.parent.mkdir(parents=True)
        copy_of(int(path.stem)).save(path)
    builder = Cocktail(data_dir=raw, build_dir=raw.parent / "cache")
    out = raw.parent / "out"
    export_parquet(builder, out)
    conflicts = read_leakage_report(out)["label_conflicts"]
    assert [(row["says"], row["other_says"], row["guards"]) for row in conflicts] == [
        ("Normal", "Pneumonia", ["pixels"]),
        ("Viral Pneumonia", "No Finding", ["pixels"]),
    ]
    assert conflicts[0]["image_id"] == "COVID-19 Radiography/Normal/images/600.png"
    assert conflicts[0]["other_image_id"] == "ChestX-ray14/00000041_000.png"
    assert "The labels of 2 pairs contradict each other" in (out / "README.md").read_text()


def test_a_finding_affirmed_and_denied_is_a_contradiction() -> None:
    def record(**findings: float) -> ImageRecord:
        labels = tuple(findings.get(name, float("nan")) for name in FINDINGS)
        return ImageRecord("id", "source", "patient", "path", labels)

    assert describe_conflict(record(Pneumonia=1), record(Pneumonia=0)) == ("Pneumonia", "no Pneumonia")
    assert describe_conflict(record(Pneumonia=1), record(Mass=0)) is None
    assert describe_conflict(record(Pneumonia=0), record(Pneumonia=0)) is None
    assert describe_conflict(record(**{"No Finding": 1, "Mass": 0}), record(Hernia=1)) == (
        "No Finding",
        "Hernia",
    )
    own = ImageRecord("id", "own", "patient", "path", (1.0,))  # labels with names of their own
    assert describe_conflict(own, record(Pneumonia=0), {"own": ("sign",)}) is None


def test_nothing_is_compared_where_no_source_holds_images_out(tmp_path: Path, covidx: AddCovidx) -> None:
    raw = tmp_path / "raw"
    covidx("train", "1 a.png", 640)
    add_radiography(raw, "640.jpg", copy_of(640))
    builder = build(raw)
    report = read_leakage_report(builder.cache_dir)
    assert (report["reference"], report["held_out"], report["dropped"]) == ([], {}, [])
    assert (report["held_out_images"], report["compared_images"]) == (0, 0)
    assert len(builder.as_dataset()["train"]) == 2
