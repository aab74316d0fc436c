"""A name in a table finds the one file that it can mean, and a file that is there is never called absent."""

import time
import unicodedata
from pathlib import Path

import pytest

from dataset_scripts.build.file_names import NoFile, match_names
from dataset_scripts.build.records import scan_folder

NFC, NFD = (unicodedata.normalize(form, "Müller.png") for form in ("NFC", "NFD"))
FILES = [
    NFD,
    "b.png",
    "c.PNG",
    "sub/d.png",
    "x/e.png",
    "y/e.png",
    "f.dcm",
    "g.png",
    "g.jpg",
    "Case.png",
    "case.png",
    "1.2.84.dcm",
]


def match(tmp_path: Path, *names: str, files: list[str] = FILES) -> list[str]:
    """The file of each name, or the kind of its problem."""
    root = tmp_path / "mine"
    for file in files:
        (root / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / file).write_bytes(b"x")
    scan = scan_folder(root)
    pictures = [path.removeprefix("images/") for path in scan.images()]
    found = match_names(names, pictures, scan, [path.removeprefix("images/") for path in scan.files])
    return [file.kind if isinstance(file := found[name], NoFile) else file for name in names]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (NFC, NFD),
        (f"images/{NFC}", NFD),
        ("images/b.png", "b.png"),
        ("./b.png", "b.png"),
        (".\\images\\B.PNG", "b.png"),
        ("/home/someone/mine/images/b.png", "b.png"),
        ("D:\\x\\mine\\images\\sub\\d.png", "sub/d.png"),
        ("c.png", "c.PNG"),
        ("sub\\d.png", "sub/d.png"),
        ("sub//d.png", "sub/d.png"),
        ("d.png", "sub/d.png"),
        ("D", "sub/d.png"),
        ("f.png", "f.dcm"),
        ("f", "f.dcm"),
        ("1.2.84", "1.2.84.dcm"),
        ("g.jpg", "g.jpg"),
        ("Case.png", "Case.png"),
        ("CASE.png", "ambiguous_name"),
        ("g.tif", "ambiguous_name"),
        ("e.png", "ambiguous_name"),
        ("z/e.png", "unmatched_name"),
        ("1.2.85", "absent"),
        ("b", "b.png"),
        ("h.png", "absent"),
        ("../images/h.png", "absent"),
        ("/etc/passwd", "absent"),
        ("", "absent"),
        ("sub", "absent"),
    ],
)
def test_spellings(tmp_path: Path, name: str, wanted: str) -> None:
    assert match(tmp_path, name) == [wanted]


def test_a_loose_match_takes_no_file_that_another_name_means(tmp_path: Path) -> None:
    assert match(tmp_path, "b.png", "b.jpg") == ["b.png", "unmatched_name"]
    assert match(tmp_path, "b.tif", "b.jpg") == ["ambiguous_name", "ambiguous_name"]
    assert match(tmp_path, "sub/d.png", "d.png") == ["sub/d.png", "unmatched_name"]
    assert match(tmp_path, "b.png", "images/b.png", "B.png") == ["b.png"] * 3


def test_hidden_files_and_links_are_named_as_such(tmp_path: Path) -> None:
    images = tmp_path / "mine" / "images"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "k.png").write_bytes(b"x")
    match(tmp_path, "b.png")
    (images / "._b.png").write_bytes(b"x")
    (images / "link.png").symlink_to(tmp_path / "elsewhere" / "k.png")
    (images / "folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    names = ("._b.png", "link.png", "images/link.png", "folder/k.png", "folder/m.png")
    assert match(tmp_path, *names) == ["hidden_file", *["link_out_of_folder"] * 3, "absent"]


def test_a_file_that_is_no_picture_is_met_by_its_own_name_only(tmp_path: Path) -> None:
    assert match(tmp_path, "notes.txt", "notes", files=["notes.txt", "b.png"]) == ["notes.txt", "absent"]


@pytest.mark.parametrize("file", ["a.png ", "a.png\xa0", " a.png", "sub/ a.png", "sub/a.png\u3000"])
def test_spaces_at_the_ends_that_a_table_loses(tmp_path: Path, file: str) -> None:
    (tmp_path / "mine" / "images" / file).parent.mkdir(parents=True)
    (tmp_path / "mine" / "images" / file).write_bytes(b"\x89PNG\r\n\x1a\n")
    assert match(tmp_path, "a.png", files=[]) == [file]


def test_kinds_of_spaces_inside_a_name(tmp_path: Path) -> None:
    assert match(tmp_path, "scan 1.png", files=["scan\xa01.png"]) == ["scan\xa01.png"]
    assert match(tmp_path / "two", "a b.png", files=["a\xa0b.png", "a  b.png"]) == ["ambiguous_name"]


def test_a_hundred_thousand_names_take_seconds(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    scan = scan_folder(tmp_path / "mine")
    files = [f"images_001/{index:08d}_000.png" for index in range(100_000)]
    start = time.perf_counter()
    found = match_names([f"{index:08d}_000.dcm" for index in range(100_000)], files, scan)
    assert time.perf_counter() - start < 30
    assert found["00000007_000.dcm"] == "images_001/00000007_000.png"
