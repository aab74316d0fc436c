"""torch.compile: one graph, no break, static shapes. What generates C++ skips without a compiler."""

import shutil

import pytest
import torch
import torch._dynamo.testing
from model_configs import tiny_classifier, tiny_mae

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler"
)
pytestmark = [
    # Inductor itself uses what its own Python or torch version has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(autouse=True)
def fresh_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("build", [tiny_mae, tiny_classifier])
@pytest.mark.parametrize("is_training", [True, False])
def test_one_graph(build, is_training):
    model = build().train(is_training)
    images = torch.randn(2, 3, 64, 64)
    extra = {"noise": torch.rand(2, 4)} if build is tiny_mae else {"labels": torch.ones(2, 3)}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if is_training else "eager")
    with torch.set_grad_enabled(is_training):
        loss = compiled(images, **extra).loss
        assert torch.allclose(loss, model(images, **extra).loss, atol=1e-5)
    if is_training:
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_another_mask_does_not_compile_again():
    model = tiny_mae().train()
    graphs = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    for seed in range(3):
        torch.manual_seed(seed)
        compiled(torch.randn(2, 3, 64, 64), noise=torch.rand(2, 4))
    assert graphs.frame_count == 1


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("build", "autocast"), [(tiny_mae, True), (tiny_classifier, False)])
def test_generated_code_gives_the_same_step(build, autocast):
    torch.manual_seed(1)
    images = torch.randn(2, 3, 64, 64)
    extra = {"noise": torch.rand(2, 4)} if build is tiny_mae else {"labels": torch.ones(2, 3)}
    results = []
    for compiles in (False, True):
        model = build(depths=[1, 1, 1, 1], decoder_depth=1).train()
        step = torch.compile(model, fullgraph=True) if compiles else model
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = step(images, **extra).loss
        loss.backward()
        results.append((loss, [parameter.grad for parameter in model.parameters()]))
    (eager_loss, eager), (compiled_loss, compiled) = results
    tolerance = 0.05 if autocast else 1e-5
    assert torch.allclose(eager_loss, compiled_loss, atol=tolerance)
    for one, other in zip(eager, compiled, strict=True):
        assert (one - other).abs().max() <= tolerance * max(1.0, one.abs().max().item())


@needs_compiler
@pytest.mark.slow
def test_generated_code_gives_the_same_scores():
    model, images = tiny_classifier(depths=[1, 1, 1, 1]), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        assert torch.allclose(compiled(images).logits, model(images).logits, atol=1e-5)


@pytest.mark.gpu
def test_cuda_graphs_hold_a_training_step():
    torch.manual_seed(2)
    images, noise = torch.randn(2, 3, 64, 64, device="cuda"), torch.rand(2, 4, device="cuda")
    model = tiny_mae().cuda().train()
    wanted = model(images, noise=noise).loss
    compiled = torch.compile(model, fullgraph=True, mode="reduce-overhead")
    for _ in range(4):  # warm-up, recording, two replays
        torch.compiler.cudagraph_mark_step_begin()
        loss = compiled(images, noise=noise).loss
        loss.backward()
        assert torch.allclose(loss, wanted, atol=1e-3)
        model.zero_grad()
