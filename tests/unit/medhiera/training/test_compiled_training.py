"""Training with torch_compile: the graphs that the compiler is given, and results beside plain training's.

The backend of these tests keeps the graphs and runs them as they are; generated code is in test_compile.py.
"""

import pytest
import torch
from tiny_training import PREPROCESSING, make_rows, make_trainer, tiny_mae

from medhiera.config.arguments import OptimizationArguments
from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.preprocessing import Preprocessing

MASKS = MaskDrawing((2, 2), 0.5)
FREE_NAME = "ofi"
"""A backend that accelerate knows by name and torch does not bring along."""

PLAIN = OptimizationArguments(optimizer="adam")
EPOCHS = {"max_steps": -1, "num_train_epochs": 2, "eval_strategy": "epoch", "per_device_eval_batch_size": 8}

# torch.compile uses what its own Python or torch version has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def backend():
    """The graphs of a test; a list, newest last."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.register_backend(keep, name=FREE_NAME)
    return graphs


@pytest.fixture
def graphs(backend):
    torch._dynamo.reset()
    backend.clear()
    yield backend
    torch._dynamo.reset()


def batch_sizes(graphs):
    """Of the pictures that each graph takes: a number, or a symbol where it takes any."""
    shapes = [
        node.meta["example_value"].shape
        for graph in graphs
        for node in graph.graph.nodes
        if node.op == "placeholder" and getattr(node.meta.get("example_value"), "ndim", 0) == 4
        and "pixel_values" in node.name
    ]  # fmt: skip
    return [shape[0] for shape in shapes]


def losses(trainer):
    return [
        entry[key] for entry in trainer.state.log_history for key in ("loss", "eval_loss") if key in entry
    ]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16_weights", 0.02)])
def test_a_shorter_last_batch_has_code_of_its_own_and_evaluation_is_compiled(
    precision, tolerance, graphs, tmp_path
):
    """12 pictures in batches of 8, trained on and evaluated twice: four graphs, none for any batch size."""
    rows, options = make_rows(12), OptimizationArguments(optimizer="adam", precision=precision)
    plain = make_trainer(tmp_path / "plain", options, rows=rows, **EPOCHS)
    plain.train()
    assert not graphs
    compiled = make_trainer(
        tmp_path / "compiled", options, rows=rows, torch_compile_backend=FREE_NAME, **EPOCHS
    )
    compiled.train()
    sizes = batch_sizes(graphs)
    assert all(type(size) is int for size in sizes) and sorted(sizes) == [4, 4, 8, 8]
    assert losses(compiled) == pytest.approx(losses(plain), rel=tolerance)
    assert len(set(losses(plain))) == 6  # it learned: two steps and an evaluation, twice


def test_what_is_reported_is_of_the_plain_model_in_single_precision(graphs, tmp_path):
    rows = make_rows()
    trainer = make_trainer(
        tmp_path, PLAIN, rows=rows, torch_compile_backend=FREE_NAME, bf16=True, max_steps=1
    )
    trainer.train()
    trainer.disable_autocast()
    graphs.clear()
    scored = trainer.predict(RadiographDataset(rows, PREPROCESSING, with_labels=True)).predictions
    with torch.no_grad():
        wanted = trainer.model(PREPROCESSING.pixel_values(rows["image"])).logits
    assert not graphs
    torch.testing.assert_close(torch.from_numpy(scored), wanted)


def mae_trainer(folder, **arguments):
    preprocessing, rows = Preprocessing(64, 72, 0.5, 0.25), make_rows(12)
    trainer = make_trainer(
        folder, PLAIN, rows=rows, model=tiny_mae(), label_names=["pixel_values"], prediction_loss_only=True,
        table=RadiographDataset(rows, preprocessing, masks=MASKS), **arguments,
    )  # fmt: skip
    trainer.preprocessing = preprocessing
    trainer.eval_dataset = RadiographDataset(rows, preprocessing, masks=MASKS, mask_ratio=0.5)
    return trainer


@pytest.mark.parametrize("compiles", [False, True])
def test_a_loss_alone_predicts_masked_tokens_alone(compiles, graphs, tmp_path):
    """Half of the tokens, and the loss is the one of all of them."""
    arguments = {"torch_compile_backend": FREE_NAME} if compiles else {}
    trainer = mae_trainer(tmp_path, max_steps=1, **arguments)
    seen = []
    trainer.model.decoder.decoder_norm.register_forward_hook(
        lambda layer, given, out: seen.append(out.shape[1])
    )
    found = trainer.evaluate()["eval_loss"]
    assert set(seen) == {2}  # of 4 mask units
    rows = trainer.eval_dataset.__getitems__(range(12))
    batch = trainer.preprocessing.model_inputs(RadiographCollator()(rows))
    with torch.no_grad():
        whole = trainer.model.eval()(**batch)
    assert whole.logits is not None and seen[-1] == 4
    assert found == pytest.approx(whole.loss.item(), rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16_weights", 0.05)])
def test_cuda_graphs_train_evaluate_and_score_as_plain_training_does(precision, tolerance, tmp_path):
    """Every batch's scores are kept, while the graph writes the next ones into the same memory."""
    rows, found = make_rows(20), []
    table = RadiographDataset(rows, PREPROCESSING, with_labels=True)
    options = OptimizationArguments(optimizer="adam", precision=precision)
    for mode in (None, "reduce-overhead"):
        trainer = make_trainer(
            tmp_path / str(mode), options, rows=rows, use_cpu=False, torch_compile_mode=mode, **EPOCHS
        )
        trainer.train()
        found.append((losses(trainer), torch.from_numpy(trainer.predict(table).predictions)))
    (plain_losses, plain), (graph_losses, graphs) = found
    assert graph_losses == pytest.approx(plain_losses, rel=tolerance)
    torch.testing.assert_close(graphs, plain, atol=10 * tolerance, rtol=0)
