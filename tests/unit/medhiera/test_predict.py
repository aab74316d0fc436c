"""What a CSV that is already there means: go on, or refuse."""

import pytest

from medhiera.recipe import RecipeError
from predict import rows_done

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
        (b"\xff\xfe\x00\n", "is no CSV"),
    ],
)
def test_another_file_is_not_written_into(tmp_path, content, message):
    output = tmp_path / "out.csv"
    output.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        rows_done(output, HEADER, "abc")
    assert output.read_bytes() == content
