"""A table that names its images by whole paths: of another machine, or outside of the folder."""

from pathlib import Path

import pytest
from raw_folders import gray

from dataset_scripts import Cocktail, ImageFolder
from dataset_scripts.build.build_log import note_lines
from dataset_scripts.cocktail import SOURCES
from dataset_scripts.errors import DataLayoutError
from dataset_scripts.image_folder import is_own_folder

COUNT = 30


def own(root: Path, name: str, place: str) -> Path:
    """Thirty pictures in `place`, each named as `name` says."""
    for n in range(COUNT):
        (root / place).mkdir(parents=True, exist_ok=True)
        gray(n, 24).save(root / place / f"p{n}.png")
    rows = [f"{name.format(n)},{n % 2}" for n in range(COUNT)]
    (root / "data.csv").write_text("\n".join(["image,Mass", *rows]))
    return root


def built(root: Path) -> tuple[int, list[str]]:
    builder = ImageFolder(data_dir=root, build_dir=root.parent / "cache")
    builder.download_and_prepare()
    lines = [line for line in note_lines(Path(builder.cache_dir)) if "names start with" in line]
    return sum(map(len, builder.as_dataset().values())), lines


@pytest.mark.parametrize(
    ("name", "place", "folder", "example"),
    [
        ("C:\\Users\\me\\xrays\\images\\p{}.png", "images", "C:/Users/me/xrays/", "images/p0.png"),
        ("/home/other/data/img/p{}.png", "images", "/home/other/data/img/", "images/p0.png"),
        ("/home/other/data/img/p{}.png", ".", "/home/other/data/img/", "p0.png"),
        ("\\\\server\\share\\a\\p{}.png", "a", "/server/share/", "a/p0.png"),
        ("/home/other/b/P{}.PNG", "a/b", "/home/other/b/", "a/b/p0.png"),
    ],
)
def test_a_folder_of_another_machine_is_left_out_and_named(
    tmp_path: Path, name: str, place: str, folder: str, example: str
) -> None:
    root = own(tmp_path / "own", name, place)
    count, (line,) = built(root)
    assert count == COUNT and f"start with {folder!r}" in line and line.endswith(f" is {example}")


def test_the_longest_end_counts_and_the_same_folder_for_all(tmp_path: Path) -> None:
    root = own(tmp_path / "own", "/x/images/test/p{}.png", "images/test")
    gray(99, 24).save(root / "p0.png")
    builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
    (listing,) = builder.list_records(None)
    assert {record.path for part in listing.splits.values() for record in part} == {
        f"images/test/p{n}.png" for n in range(COUNT)
    }
    rows = (root / "data.csv").read_text().replace("/x/images/test/p7.png", "/y/images/test/p7.png")
    (root / "data.csv").write_text(rows)
    with pytest.raises(DataLayoutError, match=r"for example '/x/images/test/p0.png': not there, but \["):
        ImageFolder(data_dir=root, build_dir=tmp_path / "cache").list_records(None)


def test_a_path_that_ends_like_no_file_is_absent_and_the_message_says_where_images_lie(
    tmp_path: Path,
) -> None:
    root = own(tmp_path / "own", "/home/other/q{}.jpg", "images")
    with pytest.raises(
        DataLayoutError,
        match=r"'/home/other/q0.jpg': named in data.csv, not in the folder, in or below which",
    ):
        built(root)


@pytest.mark.parametrize("header", ["image,label", "image,patient"])
def test_a_table_without_images_beside_it_says_where_they_belong(tmp_path: Path, header: str) -> None:
    elsewhere = own(tmp_path / "elsewhere", "p{}.png", "images")
    root = tmp_path / "mine"
    root.mkdir()
    rows = [f"{elsewhere}/images/p{n}.png,{'ab'[n % 2]}" for n in range(COUNT)]
    (root / "data.csv").write_text("\n".join([header, *rows]))
    assert is_own_folder(root, SOURCES)
    with pytest.raises(DataLayoutError) as refused:
        builder = ImageFolder(data_dir=root, build_dir=tmp_path / "cache")
        builder.list_records(None)
    assert f"data.csv is there, and names '{elsewhere}/images/p0.png': the images lie in" in str(
        refused.value
    )


def test_a_table_of_anything_else_makes_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert not is_own_folder(tmp_path, SOURCES)
    with pytest.raises(DataLayoutError, match="none of the sources"):
        Cocktail(data_dir=tmp_path, build_dir=tmp_path / "cache")
