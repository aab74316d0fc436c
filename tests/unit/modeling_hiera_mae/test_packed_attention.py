"""Attention by kernels of our own: its results and gradients, in Triton's interpreter and on a GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model_configs import tiny_classifier
from torch.nn import functional
from transformers import AttentionInterface

from benchmarks.short_attention import attend_in_parts
from medhiera.hub.published_files import AUTO_MAP, MODEL_CODE, NOT_SHIPPED
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForPreTraining, attention, packed_attention
from modeling_hiera_mae.packed_attention import attend, can_run, is_short

ROOT = Path(__file__).parents[3]
CUDA, BF16 = torch.device("cuda"), torch.bfloat16
SHARED_MEMORY_OF_AN_H100 = 227 * 1024
"""Bytes that one program may have."""
MOST_SPILLED = 256
"""Bytes a thread that do not fit in registers; 240 in the backward pass of 16 keys, 16 or less elsewhere."""


@pytest.fixture(scope="module")
def interpreted():
    """Relative errors of everything that interpreted_attention.py tries."""
    pytest.importorskip("triton", reason="PyTorch's builds for CPUs come without Triton")
    script = Path(__file__).with_name("interpreted_attention.py")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], env=os.environ | {"PYTHONPATH": paths}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("single", 1e-6),
        ("second", 1e-5),
        ("unlikely", 1e-3),
        ("one key", 1e-6),
        ("half", 1e-3),
        ("mae", 1e-4),
        ("classifier", 1e-4),
        ("compiled", 1e-4),
        ("inference", 1e-5),
    ],
)
def test_results_and_gradients_are_those_of_plain_products(interpreted, what, most):
    errors = interpreted[what]
    flat = [each for row in errors for each in row] if isinstance(errors[0], list) else errors
    assert flat and all(each < most for each in flat)  # no number is not less


@pytest.mark.parametrize(
    ("keys", "width", "is_taken"),
    [
        (16, 96, True),
        (76, 96, True),
        (196, 32, True),
        (256, 64, True),
        (196, 96, False),
        (257, 32, False),
        (16, 256, False),
    ],
)
def test_which_windows_are_short(keys, width, is_taken):
    assert is_short(keys, width) == is_taken


@pytest.mark.parametrize(
    ("dtype", "keys", "runs", "path"),
    [
        (BF16, 64, True, "packed"),
        (torch.float16, 196, True, "packed"),
        (BF16, 784, True, "sdpa"),
        (BF16, 64, False, "sdpa"),
        (torch.float32, 64, True, "sdpa"),
    ],
)
def test_half_precision_on_a_hopper_gpu_takes_them(monkeypatch, dtype, keys, runs, path):
    monkeypatch.setattr(attention, "can_run", lambda device: runs)
    assert attention.resolve_attention(None, CUDA, dtype, True, keys, 32) == path
    assert attention.resolve_attention("sdpa", CUDA, dtype, True, keys, 32) == "sdpa"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit.trace
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_func_and_exports_keep_pytorchs_operators(monkeypatch):
    monkeypatch.setattr(packed_attention, "_is_hopper", lambda device: True)
    assert can_run(CUDA)
    told = []
    torch.func.grad(lambda x: (told.append(can_run(CUDA)), x)[1])(torch.ones(()))
    torch.jit.trace(lambda x: (told.append(can_run(CUDA)), x + 1)[1], torch.ones(1), check_trace=False)
    assert told == [False, False]


def test_without_a_hopper_gpu_they_do_not_run():
    assert can_run(CUDA) == (torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0))


BLOCKS = [(64, 64, 96), (16, 64, 96), (16, 16, 96), (4, 16, 96), (76, 76, 96), (196, 196, 32),
          (128, 128, 128), (256, 256, 64)]  # fmt: skip
"""Queries, keys and width of a head: Hiera-T's at 224 pixels, and the largest that are taken."""


def test_they_compile_for_an_h100_and_fit_its_memory(tmp_path):
    """Triton and ptxas need no card; the interpreter sees neither what they refuse nor what they use."""
    pytest.importorskip("triton", reason="PyTorch's builds for CPUs come without Triton")
    script = Path(__file__).with_name("compiled_attention.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, json.dumps(BLOCKS)], check=True, stdout=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    programs = json.loads(done.stdout)
    assert len(programs) == 2 * len(BLOCKS)
    for program in programs:
        assert program["shared"] <= SHARED_MEMORY_OF_AN_H100, program
        assert program["stack"] <= MOST_SPILLED, program


@pytest.fixture
def hopper():
    if not (torch.cuda.is_available() and can_run(CUDA)):
        pytest.skip("needs a Hopper GPU: on others these kernels are not used")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # the first product of a process
@pytest.mark.parametrize(
    ("queries", "keys", "heads", "width"),
    [(64, 64, 1, 96), (16, 64, 2, 96), (16, 16, 2, 96), (4, 16, 4, 96), (76, 76, 8, 96), (196, 196, 16, 32),
     (120, 196, 16, 32), (49, 49, 4, 80), (256, 256, 2, 64)],
)  # fmt: skip
def test_on_a_gpu_they_are_as_exact_as_pytorchs_and_repeat_themselves(hopper, queries, keys, heads, width):
    torch.manual_seed(0)
    size, is_apart = heads * width, queries != keys
    packed = torch.randn(8, keys, 3 * size, device=CUDA, dtype=BF16)[..., size if is_apart else 0 :]
    given = [packed, torch.randn(8, queries, size, device=CUDA, dtype=BF16)] if is_apart else [packed]
    gradient = torch.randn(8, queries, size, device=CUDA, dtype=BF16)

    def run(function, dtype):
        own = [each.detach().to(dtype).requires_grad_() for each in given]
        out = function(own[0], own[1] if is_apart else None, heads)
        return [out.detach(), *torch.autograd.grad(out, own, gradient.to(dtype))]

    def errors(found):
        return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]

    exact = run(attend_in_parts, torch.float64)
    ours = run(attend, BF16)
    for own, theirs in zip(errors(ours), errors(run(attend_in_parts, BF16)), strict=True):
        assert own < max(1.5 * theirs, 4e-3)
    assert all(torch.equal(a, b) for a, b in zip(ours, run(attend, BF16), strict=True))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor uses what its own torch has deprecated
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_on_a_gpu_a_model_learns_the_same(hopper, mode):
    torch.manual_seed(2)
    config = HieraMAEConfig.from_size("tiny", depths=[1, 2, 2, 1], decoder_depth=2)
    images, noise = torch.randn(4, 3, 224, 224, device=CUDA), torch.rand(4, 49, device=CUDA)
    exact = HieraMAEForPreTraining(config).to(CUDA).train()
    losses, gradients = [], []
    for implementation in ("sdpa", None):
        model = HieraMAEForPreTraining(config).to(CUDA).train()
        model.load_state_dict(exact.state_dict())
        model.set_attn_implementation(implementation)
        step = torch.compile(model, mode=mode) if mode and implementation is None else model
        for _ in range(3):  # a CUDA graph is recorded in the second
            model.zero_grad()
            with torch.autocast("cuda", BF16):
                loss = step(images, noise=noise).loss
            loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    loss = exact(images, noise=noise).loss
    loss.backward()
    wanted = torch.cat([weight.grad.flatten() for weight in exact.parameters()])
    assert losses[1] == pytest.approx(loss.item(), rel=2e-3)
    theirs, ours = (float((each - wanted).norm() / wanted.norm()) for each in gradients)
    assert ours < 1.2 * theirs


def test_a_repository_with_our_code_is_loaded_from_a_folder_of_any_name(tmp_path):
    """The copy's operators have names of their own, of letters that PyTorch takes."""
    folder = tmp_path / "modèle (v2)"
    tiny_classifier().save_pretrained(folder)
    for file in MODEL_CODE.glob("*.py"):
        if file.name not in NOT_SHIPPED:
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}))
    script = (
        "import sys; from transformers import AutoModelForImageClassification as Auto; "
        "print(type(Auto.from_pretrained(sys.argv[1], trust_remote_code=True)).__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, folder], cwd=tmp_path, text=True, check=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert done.stdout.startswith("transformers_modules.")


def test_a_function_that_a_user_calls_packed_is_called():
    seen = []

    def attend_too(module, query, key, value, attention_mask, scaling, dropout, is_causal, **options):
        seen.append(key.shape[2])
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2), None

    AttentionInterface.register("packed", attend_too)
    try:
        model = tiny_classifier(attn_implementation="packed").eval()
        model(torch.randn(1, 3, 64, 64))
    finally:
        AttentionInterface._global_mapping.pop("packed")
    assert len(seen) == sum(model.config.depths)
