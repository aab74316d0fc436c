"""What a CSV that is already there means: go on, or refuse; and which files have a row."""

import csv
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from page_fixtures import phantom, write_dicom, write_picture, write_stage2
from PIL import Image
from safetensors.torch import load_file, save_file

from medhiera.errors import UserError
from medhiera.inference.picture_files import find_images
from medhiera.inference.predictions_csv import rows_done
from predict import main

HEADER = ["path", "model", "content", "Mass"]


def test_a_new_file_gets_a_header_and_a_cut_line_goes(tmp_path):
    output = tmp_path / "out.csv"
    assert rows_done(output, HEADER, "abc") == {}
    assert output.read_text() == "path,model,content,Mass\n"
    with output.open("a") as file:
        file.write('"a, b.png",abc,77,0.5\nc.png,ab')
    assert rows_done(output, HEADER, "abc") == {"a, b.png": "77"}
    assert output.read_text().endswith("0.5\n")
    output.write_text("path,mod")  # killed in the header
    assert rows_done(output, HEADER, "abc") == {}
    assert output.read_text() == "path,model,content,Mass\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"path,model,Hernia\n",
            "not those of this model: it has 'Hernia' and it lacks 'content', 'Mass'; name",
        ),
        (b"path,model,Mass,content\n", "not those of this model: they stand in another order"),
        (
            b"path,model,content,Mass\na.png,xyz,77,0.5\n",
            "of another model .xyz, this one is abc",
        ),
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
        assert sorted(str(path.relative_to(folder)) for path in find_images([folder]).values()) == wanted
    assert "skipped hidden or system files: 3, for example ._a.PNG" in caplog.text
    assert "skipped files that are no images: 2, for example labels.csv, notes" in caplog.text
    named = [folder / "Thumbs.db", folder / "notes"]  # as `in/*` gives them
    assert list(find_images(named).values()) == named[1:]
    with pytest.raises(
        UserError, match="nowhere: there is no such file or folder; the nearest that exists is"
    ):
        find_images([tmp_path / "nowhere"])


STRANGE = [
    b"a,b.png", b'quo"te.png', b'"quoted".png', b"line\nfeed.png", b'quote"and\nfeed.png', b"return\r.png",
    b"return\r\nfeed.png", b"=cmd|'/C calc'!A0.png", b"+1.png", b"-1.png", b"@sum.png", b"\ttab.png",
    b"semi;colon.png", b" space .png", "\N{GRINNING FACE}.png".encode(), "R\xf6ntgen.png".encode(),
    b"r\xf6ntgen.png", b"\xff\xfe.png", "line\N{LINE SEPARATOR}.png".encode(), "next\x85line.png".encode(),
    b"back\\slash.png", b"'apostrophe'.png", b"#hash.png", b"%s %d {0}.png", b"path.png", b"NULL.png",
    b"x" * 240 + b".png", b"dots..png", b"\x0bvertical.png", b"\x1c\x1d.png", b"\x1b[31mred.png",
]  # fmt: skip


def test_strange_names_come_out_as_they_went_in_and_have_one_row(stage2, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    for name in STRANGE:
        write_picture(folder / os.fsdecode(name))
    output = folder / "out.csv"  # beside the images, so that a name can begin a cell
    monkeypatch.chdir(folder)
    images = [Path(os.fsdecode(name)) for name in STRANGE]
    named = [b"./" + name if name[:1] in b"=+-@\t" else name for name in STRANGE]
    whole = run(stage2, output, "--batch_size", "7", "--", *images)
    assert whole == [os.fsdecode(name) for name in named]
    assert [len(row) for row in csv.reader(io.StringIO(read(output), newline=""))] == [3 + 4] * 32
    text = output.read_bytes()
    monkeypatch.chdir(tmp_path)
    for end in range(len(text) - 1, 0, -len(text) // 25):  # killed anywhere, also inside a quoted name
        output.write_bytes(text[:end])
        again = run(stage2, output, "in")
        assert sorted(again) == sorted(whole), end


def read(file):
    return file.read_bytes().decode("utf-8", "surrogateescape")


def test_a_run_from_another_folder_resumes(stage2, tmp_path, monkeypatch):
    for number in range(5):
        write_picture(tmp_path / "in" / f"{number}.png")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    names = [f"../in/{number}.png" for number in range(5)]
    assert run(stage2, Path("elsewhere/out.csv"), "in/0.png", "in/1.png") == names[:2]
    monkeypatch.chdir(tmp_path / "elsewhere" / "deep")
    assert run(stage2, Path("../out.csv"), "../../in") == names
    for folder in (tmp_path / "in", tmp_path / "link"):
        assert run(stage2, tmp_path / "elsewhere" / "out.csv", folder) == names


def test_the_list_of_unreadable_files_is_told_apart_by_file_not_by_name(stage2, tmp_path, monkeypatch):
    listing = tmp_path / "out.unreadable.csv"
    write_picture(tmp_path / "in" / "good.png")
    for name in ("bad.png", "gone.png"):
        (tmp_path / "in" / name).write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    run(stage2, tmp_path / "out.csv", "in")
    monkeypatch.chdir(tmp_path / "in")
    (tmp_path / "in" / "gone.png").unlink()
    run(stage2, Path("../out.csv"), "bad.png", "good.png")
    assert [line.split(":")[0] for line in listing.read_text().splitlines()] == [
        "path,reason", "in/bad.png,not_an_image",
    ]  # fmt: skip
    write_picture(tmp_path / "in" / "bad.png")
    run(stage2, Path("../out.csv"), tmp_path / "in" / "bad.png")
    assert not listing.exists()


def test_a_picture_read_in_another_way_than_its_header_says_is_listed(stage2, tmp_path):
    film = phantom()
    (tmp_path / "in").mkdir()
    write_dicom(tmp_path / "in" / "narrow.dcm", film, WindowCenter=9000, WindowWidth=2)
    write_dicom(tmp_path / "in" / "plain.dcm", film)
    rows = run(stage2, tmp_path / "out.csv", tmp_path / "in")
    assert len(rows) == 2
    listing = tmp_path / "out.remarks.csv"
    wanted = (
        f"{tmp_path / 'in' / 'narrow.dcm'},window_ignored: the window 9000 ± 1 shows nothing of these pixels"
    )
    assert listing.read_text() == f"path,reason\n{wanted}\n"
    run(stage2, tmp_path / "out.csv", tmp_path / "in")
    assert listing.read_text() == f"path,reason\n{wanted}\n"


def test_one_brightness_has_no_row(stage2, tmp_path):
    write_picture(tmp_path / "in" / "good.png")
    Image.new("L", (96, 96), 128).save(tmp_path / "in" / "gray.png")
    assert len(run(stage2, tmp_path / "out.csv", tmp_path / "in")) == 1
    assert "gray.png,shows_nothing" in (tmp_path / "out.unreadable.csv").read_text()


def test_a_file_that_holds_another_picture_is_scored_again(stage2, tmp_path, caplog):
    """Copied over with a date and size of its own, as rsync, unzip and `cp -p` do: the date tells nothing."""
    folder, output = tmp_path / "in", tmp_path / "out.csv"
    for name in ("a.png", "b.png", "c.png"):
        write_picture(folder / name)
    run(stage2, output, folder)
    before = output.read_text().splitlines()
    assert run(stage2, output, folder) == [str(folder / name) for name in ("a.png", "b.png", "c.png")]
    assert "scored again" not in caplog.text
    dates = (folder / "b.png").stat()
    Image.fromarray(255 - phantom()).save(folder / "b.png")
    os.utime(folder / "b.png", ns=(dates.st_atime_ns, dates.st_mtime_ns))
    run(stage2, output, folder)
    after = output.read_text().splitlines()
    assert "1 image has changed" in caplog.text
    assert after[:3] == [before[0], before[1], before[3]]
    assert len(after) == 4 and after[3].startswith(f"{folder / 'b.png'},") and after[3] != before[2]
    (folder / "c.png").write_bytes(b"no picture any more")
    assert len(run(stage2, output, folder)) == 2
    assert "c.png" in (tmp_path / "out.unreadable.csv").read_text()


@pytest.mark.parametrize("kind", ["remarks", "unreadable"])
def test_a_file_of_the_users_is_no_list_to_overwrite(stage2, tmp_path, kind):
    picture, notes = write_picture(tmp_path / "in" / "a.png"), tmp_path / f"out.{kind}.csv"
    notes.write_text("patient,note,date\n7,ask again,2026\n")
    with pytest.raises(UserError, match=f"out.{kind}.csv is there and is not a list of this command"):
        run(stage2, tmp_path / "out.csv", picture)
    assert notes.read_text().startswith("patient")


@pytest.mark.parametrize("size", ["0", "-3"])
def test_a_batch_without_images_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=f"--batch_size {size}: wanted 1 or more"):
        main(["--model", "none", "--output", str(tmp_path / "out.csv"), "--batch_size", size, str(tmp_path)])


def test_numbers_that_are_none_are_no_row(tmp_path):
    """Finite weights whose products overflow, with both signs."""
    folder = write_stage2(tmp_path / "stage2")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][:] = 3e38
    weights["classifier.weight"][:, ::2] = -3e38
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    picture = write_picture(tmp_path / "in" / "a.png")
    with pytest.raises(UserError, match="the model computes NaN"):
        run(folder, tmp_path / "out.csv", picture)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1


@pytest.fixture
def others_folder():
    """A folder that anyone may read; a test that runs as root becomes nobody, who has no rights in it."""
    folder = Path(tempfile.mkdtemp(prefix="medhiera-"))
    folder.chmod(0o755)
    write_picture(folder / "a.png")
    (folder / "old.csv").write_text("path,model,content,Mass\n")
    (folder / "old.csv").chmod(0o444)
    (folder / "mine").mkdir()
    (folder / "mine").chmod(0o777)
    (folder / "mine" / "old.csv").write_text("path,model,content,Mass\n")
    (folder / "mine" / "old.csv").chmod(0o444)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    else:
        folder.chmod(0o555)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("new.csv", "no write permission"),
        ("old.csv", "no write permission"),
        ("mine/old.csv", "no write permission"),
        ("a.png/new.csv", "a file of this name is there|part of the path is a file"),
        ("new/new.csv", "no write permission"),
        ("mine", "is a folder; name the file"),
        ("/dev/null", "no ordinary file"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_model_is_opened(others_folder, output, message):
    with pytest.raises(UserError, match=f"--output .*{message}"):
        main(["--model", "no/model", "--output", str(others_folder / output), str(others_folder / "a.png")])


def test_a_full_disk_ends_in_words_and_the_run_resumes(stage2, tmp_path, root):
    """A limit on the size of files stands for the disk."""
    for number in range(60):
        write_picture(tmp_path / "in" / f"{number}.png")
    words = [str(stage2), "--output", str(tmp_path / "out.csv"), "--batch_size", "4", str(tmp_path / "in")]
    command = f'ulimit -f 4; exec {sys.executable} predict.py --model "$@"'
    done = subprocess.run(["bash", "-c", command, "bash", *words], cwd=root, text=True, capture_output=True)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("predict.py: --output") and "File too large" in last and "to resume" in last
    assert "Traceback" not in done.stderr
    lines = (tmp_path / "out.csv").read_text().splitlines(keepends=True)
    assert 1 < len(lines) < 61 and all(line.endswith("\n") and line.count(",") == 6 for line in lines)
    assert len(set(run(stage2, tmp_path / "out.csv", tmp_path / "in"))) == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.csv"]  # and no lock's file
