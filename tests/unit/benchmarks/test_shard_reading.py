"""Two ranks read an export in place: every row once, and after kill -9 what was left, in the same order."""

from benchmarks.shard_reading import main


def test_two_ranks_read_every_row_once_and_go_on_where_kill_9_ended_them(tmp_path, capsys):
    """4,000 rows in 41 row groups; the ranks are processes, the loader is accelerate's as in training."""
    main(["--work_dir", str(tmp_path), "--rows", "4000", "--side", "16", "--batch", "10", "--rounds", "0"])
    printed = capsys.readouterr().out
    assert "read: 4,000 rows, each 1 to 1 times on 2 ranks" in printed
    assert "the same rows in the same order [True, True], rows read again 0" in printed
    step = int(printed.split("killed with -9 after step ")[1].split()[0])
    assert 80 < step < 200, "in the middle of the 200 steps of each rank"
