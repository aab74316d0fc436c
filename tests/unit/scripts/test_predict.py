"""What a CSV that is already there means: go on, or refuse; and which files have a row."""

import csv
import logging
import os
from pathlib import Path

import pytest
from page_fixtures import phantom, write_stage2
from PIL import Image

from medhiera.errors import UserError
from predict import find_images, main, rows_done

HEADER = ["path", "model", "Mass"]


def test_a_new_file_gets_a_header_and_a_cut_line_goes(tmp_path):
    output = tmp_path / "out.csv"
    assert rows_done(output, HEADER, "abc") == set()
    assert output.read_text() == "path,model,Mass\n"
    with output.open("a") as file:
        file.write('"a, b.png",abc,0.5\nc.png,ab')
    assert rows_done(output, HEADER, "abc") == {"a, b.png"}
    assert output.read_text().endswith("0.5\n")
    output.write_text("path,mod")  # killed in the header
    assert rows_done(output, HEADER, "abc") == set()
    assert output.read_text() == "path,model,Mass\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,model,Hernia\n", "not those of this model"),
        (b"path,model,Mass\na.png,xyz,0.5\n", "predictions of another model .xyz, this one is abc"),
        (b"\xff\xfe\x00\n", "is not a CSV"),
    ],
)
def test_another_file_is_not_written_into(tmp_path, content, message):
    output = tmp_path / "out.csv"
    output.write_bytes(content)
    with pytest.raises(UserError, match=message):
        rows_done(output, HEADER, "abc")
    assert output.read_bytes() == content


def run(folder, output, *paths):
    main(["--model", str(folder), "--output", str(output), *map(str, paths)])
    with output.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [row["path"] for row in csv.DictReader(file)]


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(phantom()).save(file, "png")
    return path


@pytest.fixture(scope="module")
def stage2(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("stage2"))


def test_a_name_that_is_no_utf8_comes_out_as_it_went_in(stage2, tmp_path):
    names = [
        os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/in/R\xf6ntgen.png", b"/in/kaputt\xff.png")
    ]
    write_picture(Path(names[0]))
    Path(names[1]).write_bytes(b"no picture")
    for _ in range(2):  # the second goes on
        assert run(stage2, tmp_path / "out.csv", tmp_path / "in") == [names[0]]
        assert os.fsencode(names[1]) in (tmp_path / "out.unreadable.csv").read_bytes()


def test_a_file_has_one_row_however_it_is_named(stage2, tmp_path, monkeypatch):
    picture = write_picture(tmp_path / "in" / "line\u2028a.png")
    (tmp_path / "in" / "link.png").symlink_to(picture)
    monkeypatch.chdir(tmp_path)
    first = run(stage2, tmp_path / "out.csv", "in/line\u2028a.png", "in/../in/line\u2028a.png")
    assert first == ["in/line\u2028a.png"]
    assert run(stage2, tmp_path / "out.csv", picture) == first
    assert run(stage2, tmp_path / "out.csv", tmp_path / "in") == [*first, str(tmp_path / "in" / "link.png")]


def test_the_list_of_unreadable_files_keeps_what_was_not_looked_at(stage2, tmp_path):
    output, listing = tmp_path / "out.csv", tmp_path / "out.unreadable.csv"
    for folder in ("a", "b"):
        write_picture(tmp_path / folder / "good.png")
        (tmp_path / folder / "bad.png").write_bytes(b"no picture")
        run(stage2, output, tmp_path / folder)
    a, b = (f"{tmp_path / folder / 'bad.png'},not_an_image" for folder in "ab")
    assert [line.split(":")[0] for line in listing.read_text().splitlines()] == ["path,reason", a, b]
    write_picture(tmp_path / "a" / "bad.png")  # mended
    run(stage2, output, tmp_path / "a")
    assert [line.split(":")[0] for line in listing.read_text().splitlines()] == ["path,reason", b]
    write_picture(tmp_path / "b" / "bad.png")
    assert len(run(stage2, output, tmp_path / "b")) == 4
    assert not listing.exists()


def test_what_is_scored_is_what_a_build_would_read(tmp_path, caplog):
    """By content under any name, in folders and behind links; hidden and other files are counted."""
    folder = tmp_path / "in"
    wanted = ["1.2.840.113619.2.5", "a.PNG", "b.jfif", "c", "e.heic", "folder/k.png", "link.png", "sub/d.png"]
    for name in (
        "1.2.840.113619.2.5",
        "a.PNG",
        "c",
        "sub/d.png",
        "../else/k.png",
        ".ipynb_checkpoints/d.png",
    ):
        write_picture(folder / name)
    Image.fromarray(phantom()).save(folder / "b.jfif", "JPEG")
    (folder / "e.heic").write_bytes(b"a kind of picture that is not read")
    for name in ("._a.PNG", "Thumbs.db", "labels.csv", "notes"):
        (folder / name).write_bytes(b"no picture")
    (folder / "link.png").symlink_to(tmp_path / "else" / "k.png")
    (folder / "folder").symlink_to(tmp_path / "else", target_is_directory=True)
    with caplog.at_level(logging.INFO):
        assert sorted(str(path.relative_to(folder)) for path in find_images([folder])) == wanted
    assert "passed over, hidden or of the system: 3, for example ._a.PNG" in caplog.text
    assert "passed over, no pictures: 2, for example labels.csv, notes" in caplog.text
    named = [folder / "Thumbs.db", folder / "notes"]  # as `in/*` gives them
    assert list(find_images(named)) == named[1:]
    with pytest.raises(UserError, match="neither a file nor a folder"):
        list(find_images([tmp_path / "nowhere"]))
