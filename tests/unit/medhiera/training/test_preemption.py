"""SIGTERM on several ranks: they ask each other every tenth step, and all end at the same one."""

import json
import subprocess
import sys

RANKS = """
import json, multiprocessing, os, signal, sys
import torch.distributed as dist
from transformers import TrainerControl, TrainerState
from medhiera.training import preemption

class Arguments:  # of TrainingArguments, what the callback reads
    world_size = 2

def train(rank, folder):
    os.makedirs(folder, exist_ok=True)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    callback, control, args = preemption.PreemptionCallback(), TrainerControl(), Arguments()
    state = TrainerState(global_step=100, epoch=0.5)  # a resumed run
    callback.on_train_begin(args, state, control)
    while not control.should_save and state.global_step < 180:
        state.global_step += 1
        if rank == 1 and state.global_step == 133:
            os.kill(os.getpid(), signal.SIGTERM)
        callback.on_step_end(args, state, control)
    asked = callback._group._get_sequence_number_for_group()
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump([state.global_step, asked], file)
    try:
        callback.on_save(args, state, control)
    finally:
        dist.barrier()

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    for slow_step in (600.0, 0.0):  # all steps are quick, or all slow, however busy the machine is
        preemption.SLOW_STEP = slow_step
        folder = f"{sys.argv[1]}/{slow_step:.0f}"
        ranks = [context.Process(target=train, args=(rank, folder)) for rank in (0, 1)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        assert [process.exitcode for process in ranks] == [143, 143]
"""


def test_two_ranks_end_at_the_same_step_and_ask_every_tenth(root, tmp_path):
    """Asked after steps 101, 111, …, 141, answered a step later; where steps are slow, after each."""
    ended = subprocess.run([sys.executable, "-c", RANKS, tmp_path], cwd=root)
    assert ended.returncode == 0
    for slow_step, step, asked in (("600", 142, 5), ("0", 134, 34)):
        told = [json.loads((tmp_path / slow_step / f"{rank}.json").read_text()) for rank in (0, 1)]
        assert told == [[step, asked]] * 2
