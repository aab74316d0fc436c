"""--device: what its words mean, and what is said of a device that is not there."""

import pytest
import torch

import evaluate_cls
import predict
from medhiera.device import choose_device, describe, move
from medhiera.errors import UserError

has_gpu = torch.cuda.is_available()


def test_auto_takes_the_gpu_where_there_is_one():
    assert choose_device() == torch.device("cuda:0" if has_gpu else "cpu")
    assert choose_device("cpu") == torch.device("cpu")
    assert describe(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"


@pytest.mark.parametrize(
    "word", ["", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda:\u0663", "cpu:0", "mps:0", "meta"]
)
def test_another_word_is_refused(word):
    with pytest.raises(UserError, match=f"--device {word}: wanted auto, cpu, cuda, cuda:N"):
        choose_device(word)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_an_apple_gpu_that_is_not_there():
    with pytest.raises(UserError, match="--device mps: PyTorch .* sees no Apple GPU here; take --device cpu"):
        choose_device("mps")


@pytest.mark.skipif(has_gpu, reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    (tmp_path / "a.png").touch()
    words = ["--model", "no/model", "--output", str(tmp_path / "out.csv"), str(tmp_path / "a.png")]
    said = r"--device cuda:1: PyTorch .*\(CUDA_VISIBLE_DEVICES is '7'\).* Take --device cpu, or auto"
    with pytest.raises(UserError, match=said):
        predict.main([*words, "--device", "cuda:1"])
    assert not (tmp_path / "out.csv").exists()
    words = ["--model", "no/model", "--data_dir", "none", "--output_dir", str(tmp_path / "scores")]
    with pytest.raises(UserError, match="--device cuda: PyTorch"):
        evaluate_cls.main([*words, "--device", "cuda"])
    assert not (tmp_path / "scores").exists()


@pytest.mark.gpu
def test_a_gpu_by_its_number():
    count = torch.cuda.device_count()
    assert choose_device(f"cuda:{count - 1}") == torch.device("cuda", count - 1)
    assert choose_device("cuda") == torch.device("cuda", count - 1)  # the one in use
    with pytest.raises(UserError, match=f"--device cuda:{count}: there is cuda:0.*take one of these"):
        choose_device(f"cuda:{count}")
    device = choose_device("cuda:0")
    assert torch.cuda.get_device_name(0) in describe(device)
    batch = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    assert move(batch, device).device == device and move(batch, device).cpu().equal(batch)
    assert move(batch.to(device), device).device == device
    # Single precision is single precision: TF32 would round these pixels to 1.
    picture, weight = torch.full((1, 8, 4, 4), 1 + 2**-12), torch.ones(8, 8, 1, 1)
    product = torch.nn.functional.conv2d(picture.to(device), weight.to(device)).cpu()
    assert torch.allclose(product, torch.full_like(product, 8 * (1 + 2**-12)), rtol=1e-6)
