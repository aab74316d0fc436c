"""Two ranks read an export in place: every row once, and after kill -9 what was left, in the same order."""

import pytest

from benchmarks import shard_reading
from benchmarks.shard_reading import check_flat, main


def test_two_ranks_read_every_row_once_and_go_on_where_kill_9_ended_them(tmp_path, capsys, monkeypatch):
    """4,000 rows in 41 row groups; the ranks are processes, the loader is accelerate's as in training."""
    checked = []
    monkeypatch.setattr(shard_reading, "check_flat", lambda found: (checked.extend(found), check_flat(found)))
    main(["--work_dir", str(tmp_path), "--rows", "4000", "--side", "16", "--batch", "10", "--rounds", "0"])
    printed = capsys.readouterr().out
    assert "read: 4,000 rows, each 1 to 1 times on 2 ranks" in printed
    assert "the same rows in the same order [True, True], rows read again 0" in printed
    step = int(printed.split("killed with -9 after step ")[1].split()[0])
    assert 80 < step < 200, "in the middle of the 200 steps of each rank"
    assert [len(memory) for memory in checked] == [21, 21]


def test_memory_that_grows_with_the_rows_is_an_error():
    check_flat([[400.0, 500.0, 600.0, 544.0]] * 2)  # a peak on the way is given back
    with pytest.raises(SystemExit, match="rank 1: private memory grew from 500 to 546 MiB"):
        check_flat([[400.0, 500.0, 500.0], [400.0, 500.0, 546.0]])
