"""Tables as people save them: read right, or refused with the line; random damage never ends in a trace."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts import chestxray14, covidx_cxr, image_folder
from dataset_scripts.build.config import SourceConfig
from dataset_scripts.build.records import SourceListing, scan_folder
from dataset_scripts.build.tables import read_table
from dataset_scripts.errors import LabelFileError, UserError

GOOD = "image,patient,Effusion,Größe\na.png,p1,1,0\nb b.png,p2,,1\n"
CONFIG = SourceConfig(name="official")


def write(tmp_path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def cells(path: Path) -> list[list[str]]:
    table = read_table(path, ("image",))
    return [list(table.columns), *(list(row.cells.values()) for row in table.rows)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_save_is_read(tmp_path: Path, encoding: str, separator: str, line_end: str) -> None:
    text = GOOD.replace(",", separator).replace("\n", line_end)
    assert cells(write(tmp_path, text, encoding)) == list(csv.reader(io.StringIO(GOOD)))


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\n" + GOOD.replace(",", ";"),
        "\n , , \n" + GOOD + "\n,,,\n\n",
        GOOD.replace("\n", ",,\n"),  # columns without a name or content
        GOOD.replace("b b.png", '"b b.png"'),
        GOOD.replace("a.png,p1", " a.png\xa0,\tp1 "),
        ",image,patient,Effusion,Größe\n0,a.png,p1,1,0\n1,b b.png,p2,,1\n",  # pandas' index
    ],
)
def test_harmless_dress_changes_nothing(tmp_path: Path, text: str) -> None:
    assert cells(write(tmp_path, text)) == list(csv.reader(io.StringIO(GOOD)))


def test_a_quoted_cell_keeps_its_separators_and_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, 'image,note\n"a, ""left"".png",1\n')
    assert cells(path)[1] == ['a, "left".png', "1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.encode("latin-1"), "line 1 holds a byte .0xf6. that is not UTF-8.*CSV UTF-8"),
        (GOOD.replace("p2", "Müller").replace("öß", "o").encode("cp1252"), "line 3 holds a byte .0xfc."),
        (GOOD.encode("utf-16-le"), "line 1 holds a"),
        (GOOD.encode("utf-16")[:-1], "not UTF-16"),
        (GOOD.replace("p2", "p\0"), "line 3 holds a NUL byte"),
        ("", "is empty"),
        ("\ufeff\n\n ;;\n", "is empty"),
        ("image,Mass\n", "a header and no row"),
        ("image,Mass\n,\n\n", "a header and no row"),
        ("image,Mass\na.png,1\nb.png\n", "line 3 has 1 cells, and the header 2"),
        ("image,Mass\na.png,1,0\n", "line 2 has 3 cells, and the header 2"),
        ("image,Mass,\na.png,x,1\n", "line 2 has 3 cells, and the header 2"),
        ("image;age;Mass\na.png;45;5;1\n", "line 2 has 4 cells.*holds a semicolon"),
        ('image,Mass\n"a.png,1\nb.png,1\n', "line 2: a double quote opens here"),
        ('image,Mass\na.png,1\n"b.png,1\n' + "c.png,1\n" * 30_000, "line 3: a double quote opens here"),
        ('image,Mass\na.png,"1\nb.png,1\nc.png,1"\n', "line 2: a double quote"),  # the same number of cells
        ('image,Mass\na".png,1\n', "line 2: a double quote stands inside a cell"),
        ('image,Mass\n"a"b.png,1\n', "line 2: a double quote"),
        ('"image,Mass\na.png,1\n', "line 1: a double quote"),
        ("image,Mass\n" + "a" * 200_000 + ",1\n", "line 2: field larger"),
        ("picture,Mass\na.png,1\n", "column .'image'. is missing.*found .'picture', 'Mass'"),
        ("image,Mass,Mass\na.png,1,0\n", "columns .'Mass', 'Mass'. mean the same"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(LabelFileError, match=message) as caught:
        read_table(write(tmp_path, content), ("image",), advice="Ask the one who wrote it.")
    assert str(caught.value).startswith("labels.csv") and str(caught.value).endswith(
        "Ask the one who wrote it."
    )
    assert len(str(caught.value)) < 500


def eight_pictures(root: Path) -> Path:
    (root / "images").mkdir()
    for index in range(8):
        Image.new("L", (8, 8), index).save(root / "images" / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_pictures(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = eight_pictures(tmp_path_factory.mktemp("nih"))
    (root / "train_val_list.txt").write_text("".join(f"{index}.png\n" for index in range(6)))
    (root / "test_list.txt").write_text("6.png\n7.png\n")
    return root


def accounted(listing: SourceListing, kinds: tuple[str, ...]) -> int:
    """Images built and rows reported."""
    built = sum(map(len, listing.splits.values()))
    return built + sum(problem.kind in kinds for problem in listing.problems)


OWN_ROWS = [f"{index}.png,p{index % 5},{40 + index},{index % 2},1" for index in range(8)]
OWN = "image,patient,age_years,Effusion,Mass\n" + "\n".join(OWN_ROWS) + "\n"
NIH_ROWS = [f"{index}.png,Effusion|Mass,0,{index},{40 + index},M,PA" for index in range(8)]
NIH_HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position"
PIECES = st.sampled_from(
    ['"', ",", ";", "\t", "\n", "\r", "\0", "é", "p1", "1", "2.0", "-3", "TRUE", "7.png", "\\", "/", " "]
)
OWN_KINDS = (
    *("duplicate_row", "conflicting_row", "bad_line", "absent", "hidden_file", "link_out_of_folder"),
    *("ambiguous_name", "unmatched_name"),
)


@st.composite
def damaged(draw: st.DrawFn, good: str) -> bytes:
    """A good table with a few pieces put in, cut out or doubled, in some encoding."""
    text = good
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        text = (
            text[:place]
            + draw(st.one_of(PIECES, st.just(text[place : place + length] * 2)))
            + text[place + length :]
        )
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-16-le", "cp1252"])), "replace")


FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(content=st.one_of(st.binary(max_size=200), damaged(OWN)))
def test_a_damaged_table_of_ones_own_is_refused_or_loses_no_row(own: Path, content: bytes) -> None:
    (own / "labels.csv").write_bytes(content)
    try:
        table = read_table(own / "labels.csv", ("image",))
        listing = image_folder.list_own_images(scan_folder(own), CONFIG)
    except UserError:
        return
    assert accounted(listing, OWN_KINDS) == len(table.rows)
    names = [record.image_id for part in listing.splits.values() for record in part]
    assert len(names) == len(set(names))


@FUZZ
@given(content=st.one_of(st.binary(max_size=200), damaged(NIH_HEADER + "\n" + "\n".join(NIH_ROWS) + "\n")))
def test_a_damaged_label_file_of_chestxray14_is_refused_or_loses_no_image(nih: Path, content: bytes) -> None:
    (nih / "Data_Entry_2017.csv").write_bytes(content)
    try:
        listing = chestxray14.list_images(scan_folder(nih), CONFIG)
    except UserError:
        return
    built = {record.path for part in listing.splits.values() for record in part}
    named = {problem.name for problem in listing.problems} | built
    assert all(f"{index}.png" in named or f"images/{index}.png" in named for index in range(8))


@FUZZ
@given(
    content=st.one_of(
        st.binary(max_size=200), damaged("".join(f"{n} {n}.png positive cohen\n" for n in range(4)))
    )
)
def test_a_damaged_list_of_covidx_is_refused_or_loses_no_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train").mkdir(exist_ok=True)
    for index in range(4):
        (tmp_path / "train" / f"{index}.png").write_bytes(b"x")
    (tmp_path / "train.txt").write_bytes(content)
    try:
        listing = covidx_cxr.list_images(scan_folder(tmp_path), CONFIG)
    except UserError:
        return
    lines = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    count = sum(bool(line.strip()) for line in lines.replace("\r", "\n").split("\n"))
    assert accounted(listing, OWN_KINDS) == count
