"""Reading ahead: every item once and in order, a bounded number, errors at their place, an end at once."""

import contextlib
import threading
import time

import pytest
import torch

from medhiera.inference.read_ahead import read_ahead


class Shelf:
    """Squares numbers, slowly where asked, and knows which were begun."""

    def __init__(self, seconds=0.0):
        self.seconds, self.begun = seconds, []

    def read(self, number):
        self.begun.append(number)
        time.sleep(self.seconds * (number % 3))  # later ones are done before earlier ones
        if number == 17:
            raise ValueError("the 17th is damaged")
        return number**2


@pytest.mark.parametrize(
    ("count", "threads", "sizes"), [(0, 2, []), (1, 2, [1]), (12, 3, [4, 4, 4]), (15, 8, [4, 4, 4, 3])]
)
def test_every_item_once_and_in_order(count, threads, sizes):
    shelf = Shelf(0.003)
    batches = list(read_ahead(shelf.read, iter(range(count)), 4, threads))
    assert [len(batch) for batch in batches] == sizes
    assert [number for batch in batches for number in batch] == [number**2 for number in range(count)]
    assert sorted(shelf.begun) == list(range(count))


def test_no_more_is_read_than_the_batch_to_come_and_two_a_thread():
    shelf = Shelf()
    with contextlib.closing(read_ahead(shelf.read, range(1000), 5, threads=2)) as batches:
        for number in range(1, 4):
            next(batches)
            wanted = 5 * number + 5 + 2 * 2
            give_up = time.monotonic() + 10
            while len(shelf.begun) < wanted and time.monotonic() < give_up:  # the model computes
                time.sleep(0.01)
            time.sleep(0.03)
            assert len(shelf.begun) == wanted
    assert len(shelf.begun) == 24


def test_an_error_comes_at_its_items_turn():
    shelf = Shelf()
    batches = read_ahead(shelf.read, range(1000), 4, threads=2)
    assert [next(batches)[0] for _ in range(4)] == [0, 16, 64, 144]
    with pytest.raises(ValueError, match="the 17th is damaged"):
        next(batches)
    assert len(shelf.begun) <= 32


def test_what_waits_is_dropped_where_the_reader_is_closed_early():
    shelf, threads = Shelf(0.1), threading.active_count()
    batches = read_ahead(shelf.read, range(3, 1000), 1, threads=4)
    assert next(batches) == [9]
    batches.close()
    assert len(shelf.begun) <= 10 and threading.active_count() == threads


def test_torch_keeps_its_threads():
    """A reader has one of its own; what computes beside it, and what starts later, has as many as before."""
    wanted, later = torch.get_num_threads(), []
    batches = list(read_ahead(lambda _: torch.get_num_threads(), range(8), 2, 2))
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (batches, torch.get_num_threads(), later) == ([[1, 1]] * 4, wanted, [wanted])
