"""The benchmark compares before it times, and its ratios are of the same round."""

import json

import numpy as np
import pytest

from benchmarks import inference
from benchmarks.inference import Result, check_agreement, draw_images, measure, table


def test_ratios_are_by_round():
    results = [Result("pipeline", "fp32", 1, [2.0, 4.0, 6.0]), Result("ours", "fp32", 1, [1.0, 4.0, 2.0])]
    ours, stock = sorted(table(results).splitlines(), key=lambda line: "pipeline" in line)
    assert "| 2.00 (1.00–3.00) |" in ours
    assert "| 2000 (1000–4000) | 0.5 |" in ours
    assert "| 1.00 (1.00–1.00) |" in stock


def test_contenders_take_turns():
    order = []
    contenders = {
        (name, "fp32"): (lambda files, name=name: order.append((name, tuple(files)))) for name in "ab"
    }
    files = [b"0", b"1", b"2", b"3"]
    results = measure(contenders, files, batch=2, rounds=2)
    assert [name for name, _ in order] == ["a", "b"] * 3
    assert all(
        order[index][1] == order[index + 1][1] for index in range(0, 6, 2)
    )  # the same images in a round
    assert [len(result.seconds) for result in results] == [2, 2]


def test_models_that_differ_are_not_timed():
    contenders = {
        ("pipeline", "fp32"): lambda files: np.full((1, 2), 0.5),
        ("ours", "fp32"): lambda files: np.full((1, 2), 0.6),
    }
    with pytest.raises(SystemExit, match="ours in fp32 gives probabilities 1.0e-01"):
        check_agreement(contenders, [b""])


@pytest.mark.slow
def test_the_command_on_real_models(tmp_path, capsys):
    inference.main(
        ["--rounds", "1", "--batch-sizes", "1", "2", "--pixels", "256", "--precisions", "fp32",
         "--contenders", "ours", "pipeline", "onnxruntime", "--json", str(tmp_path / "out.json")]
    )  # fmt: skip
    assert "| 2 | fp32 | onnxruntime |" in capsys.readouterr().out
    content = json.loads((tmp_path / "out.json").read_text())
    assert {result["contender"] for result in content["results"]} == {"ours", "pipeline", "onnxruntime"}


def test_images_are_png_of_the_size_asked_for():
    [content] = draw_images(1, 128)
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 128
