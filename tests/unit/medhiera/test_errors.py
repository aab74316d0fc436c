"""How a script ends."""

import sys

import pytest
import torch.distributed

from medhiera.errors import UserError, run_script


def start_ranks(folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", world_size=1, rank=0)
    torch.distributed.barrier()


def test_a_script_leaves_the_group_of_its_ranks(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train_mae.py"])
    run_script(lambda words: start_ranks(tmp_path))
    assert not torch.distributed.is_initialized()


def test_a_users_error_is_one_message_and_waits_for_no_other_rank(monkeypatch, tmp_path):
    def main(words):
        start_ranks(tmp_path)
        raise UserError("no such folder")

    monkeypatch.setattr(sys, "argv", ["some/train_mae.py"])
    try:
        with pytest.raises(SystemExit, match="^train_mae.py: no such folder$"):
            run_script(main)
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()
