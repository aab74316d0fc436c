"""FSDP2 over two real processes: the same step as on one, and the gathered weights come back."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from warm_python import warm_python

from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = {
    "image_size": [64, 64], "embed_dim": 8, "num_heads": [1, 1, 2, 2], "depths": [1, 1, 2, 1],
    "decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2,
}  # fmt: skip

# What accelerate does for configs/accelerate/fsdp2.yaml, with a process group for CPUs, where accelerate
# leaves FSDP out; the weights are gathered by the call that Accelerator.get_state_dict makes.
RANK = """
import sys, torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed import barrier, destroy_process_group, get_rank, init_process_group
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from medhiera.training.sharding import keep_float32_inputs
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining

torch.set_num_threads(1)
init_process_group("gloo")
torch.manual_seed(0)
model = HieraMAEForPreTraining(HieraMAEConfig(**{geometry}))
start = {{name: weight.clone() for name, weight in model.state_dict().items()}}
mesh = init_device_mesh("cpu", (2,))
for module in model.modules():
    if type(module).__name__ in model._no_split_modules:
        fully_shard(module, mesh=mesh)
fully_shard(model, mesh=mesh)
assert any(each.to_local().numel() < each.numel() for each in model.parameters())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs = torch.load(sys.argv[1], weights_only=True)
own = slice(2 * get_rank(), 2 * get_rank() + 2)
loss = model(inputs["pixel_values"][own], noise=inputs["noise"][own]).loss
loss.backward()
optimizer.step()
weights = get_model_state_dict(
    model, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=True)
)
if get_rank() == 0:
    model.save_pretrained(sys.argv[2], state_dict=weights)

plugin = FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy="bf16")
keep_float32_inputs(plugin)
half = HieraMAEForPreTraining(HieraMAEConfig(**{geometry}))
half.load_state_dict(start)
fully_shard(half, mesh=mesh, mp_policy=plugin.mixed_precision_policy)
with torch.no_grad():
    out = half(**inputs, output_logits=True)
if get_rank() == 0:
    torch.save((out.bool_masked_pos, out.loss, out.logits.dtype), sys.argv[2] + "/half.pt")
barrier()  # a rank that leaves while the other still saves can abort it
destroy_process_group()
"""


def test_a_sharded_step_is_the_whole_models_and_is_saved_whole(tmp_path):
    # In bf16 all numbers of the noise would be one, and each mask that of a tie.
    noise = 0.75 + 1e-5 * torch.rand(4, 4).argsort(1)
    inputs = {"pixel_values": torch.randn(4, 3, 64, 64), "noise": noise}
    torch.save(inputs, tmp_path / "inputs.pt")
    (tmp_path / "rank.py").write_text(RANK.format(geometry=GEOMETRY))
    done = subprocess.run(
        [warm_python(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(tmp_path / "rank.py"), str(tmp_path / "inputs.pt"), str(tmp_path / "saved")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, text=True, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]

    torch.manual_seed(0)
    alone = HieraMAEForPreTraining(HieraMAEConfig(**GEOMETRY))
    before = {name: weight.clone() for name, weight in alone.state_dict().items()}
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    whole = alone(**inputs)
    whole.loss.backward()
    optimizer.step()
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == before.keys()
    moved = 0.0
    for name, weight in alone.state_dict().items():
        assert saved[name] == pytest.approx(weight.numpy(), abs=1e-6), name
        moved = max(moved, (weight - before[name]).abs().max().item())
    assert moved > 1e-3
    HieraMAEForPreTraining.from_pretrained(tmp_path / "saved")

    masks, loss, dtype = torch.load(tmp_path / "saved" / "half.pt", weights_only=True)
    assert torch.equal(masks, whole.bool_masked_pos) and dtype == torch.bfloat16
    assert loss.item() == pytest.approx(whole.loss.item(), rel=0.01)
