"""torch.compile: one graph, no break, static shapes. What generates C++ skips without a compiler."""

import copy
import shutil

import pytest
import torch
import torch._dynamo.testing
from model_configs import tiny_classifier, tiny_mae
from torch.nn.utils import parameters_to_vector

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler"
)
pytestmark = [
    # Inductor itself uses what its own Python or torch version has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One folder of its own for all: each test compiles its own code, and the headers are compiled once."""
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture(autouse=True)
def fresh_compiler(cache, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
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


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("cpu", {"backend": "aot_eager"}),
        pytest.param("cuda", {"mode": "reduce-overhead"}, marks=pytest.mark.gpu),
    ],
)
def test_training_steps_are_those_of_the_plain_model(device, options):
    """With CUDA graphs warm-up, recording and replays, of which each must see the weights of its step."""
    torch.manual_seed(2)
    images, noise = torch.randn(2, 3, 64, 64, device=device), torch.rand(2, 4, device=device)
    first = tiny_mae().to(device).train()
    trained = []
    for compiles in (False, True):
        model = copy.deepcopy(first)
        step = torch.compile(model, fullgraph=True, **options) if compiles else model
        optimizer, losses = torch.optim.SGD(model.parameters(), 0.2), []
        for _ in range(5):
            torch.compiler.cudagraph_mark_step_begin()
            loss = step(images, noise=noise).loss
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
        trained.append((losses, parameters_to_vector(model.parameters())))
    (wanted_losses, wanted), (losses, found) = trained
    assert losses == pytest.approx(wanted_losses, abs=1e-3) and losses[-1] < losses[0] - 0.02
    moved = wanted - parameters_to_vector(first.parameters())
    assert (found - wanted).norm() < 0.02 * moved.norm()
