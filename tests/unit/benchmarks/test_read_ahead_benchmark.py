"""The variants read the same pictures in the same order, and are refused where they do not."""

import pytest
import torch

from benchmarks import read_ahead
from benchmarks.read_ahead import batches_of, measure, readers, score_all, write_tiny
from medhiera.inference.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return Classifier.from_pretrained(folder)


def test_both_kinds_of_pictures_are_read_alike_with_and_without_threads(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "DRAWN", 2)
    for read in readers(tmp_path, 19, classifier).values():
        one, two = (list(batches_of(read, 19, threads)) for threads in (0, 2))
        assert [len(batch) for batch in one] == [len(batch) for batch in two] == [16, 3]
        assert torch.equal(torch.stack(sum(one, [])), torch.stack(sum(two, [])))
        assert not torch.equal(one[0][0], one[0][1])
        rates = measure(classifier, read, 19, [0, 2], rounds=2)
        assert [len(each) for each in rates] == [2, 2] and min(map(min, rates)) > 0


def test_variants_that_differ_are_not_timed(classifier):
    calls = []

    def read(index):
        calls.append(index)
        return torch.full((1, 64, 64), len(calls) % 200, dtype=torch.uint8)

    with pytest.raises(SystemExit, match="0 threads give other probabilities"):
        measure(classifier, read, 4, [0], rounds=1)


def test_every_picture_is_scored_in_order(classifier):
    pictures = [torch.full((1, 64, 64), 40 * index, dtype=torch.uint8) for index in range(5)]
    scores = score_all(classifier, iter([pictures[:3], pictures[3:]]))
    alone = torch.cat([classifier.score(classifier.pixel_values([picture])) for picture in pictures])
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)
