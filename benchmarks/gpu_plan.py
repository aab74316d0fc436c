"""What gpu_run.py measures: groups of models that take turns, in the order of what the goals ask for."""

from dataclasses import dataclass, replace

from benchmarks.hiera_models import TOY, Case


@dataclass(frozen=True)
class Group:
    """Models that are compared with each other.

    Attributes:
        key: its name on the command line.
        title: its name in the table.
        contenders: key of BUILDERS and case; the first is what the others are compared with.
        seconds: not begun with less than this left.
    """

    key: str
    title: str
    contenders: list[tuple[str, Case]]
    seconds: float


@dataclass(frozen=True)
class Scale:
    """How large everything is: a GPU's, or a toy's to try the benchmark itself.

    Attributes:
        size: of the models, see Case.
        pixels: of the images.
        batch: of most groups.
        others: batches of one group each.
        rounds: timed ones.
        modes: what stands in for a mode of torch.compile.
        patience: a part is ended after so many times the seconds that it should take.
        trainer: options of trainer_overhead.py.
        loader: options of data_throughput.py.
    """

    size: str
    pixels: int
    batch: int
    others: tuple[int, ...]
    rounds: int
    modes: dict[str, str]
    patience: float
    trainer: tuple[str, ...]
    loader: tuple[str, ...]


GPU = Scale(
    "tiny", 224, 128, (32, 64, 256, 512), 5, {}, 2.5,
    ("--batch_size", "128", "--images", "4096", "--workers", "8", "--warm_up", "40", "--steps", "240",
     "--logging_steps", "20", "--rounds", "1", "--torch_compile", "true", "--precision", "bf16_weights"),
    ("--recipe_images", "4096", "--batches", "32", "--recipe_rounds", "3"),
)  # fmt: skip
EAGER = {"default": "eager", "reduce-overhead": "eager", "max-autotune": "default"}
CPU = Scale(
    TOY, 64, 2, (1, 4), 1, EAGER, 10,
    ("--batch_size", "8", "--images", "64", "--workers", "2", "--warm_up", "2", "--steps", "4",
     "--logging_steps", "2", "--rounds", "1", "--precision", "bf16_weights", "--image_size", "64",
     "--model_overrides", '{"embed_dim": 16, "depths": [1, 1, 1, 1], "decoder_depth": 1}'),
    ("--recipe_images", "256", "--batches", "2", "--recipe_rounds", "1"),
)  # fmt: skip


def groups(scale: Scale) -> list[Group]:
    """All groups of models, what the goals ask for first."""

    def train(
        name: str, precision: str, mode: str, batch: int = scale.batch, graphs_cudnn: bool = False
    ) -> tuple[str, Case]:
        case = Case("train", scale.size, scale.pixels, batch, precision, scale.modes.get(mode, mode), True)
        return name, replace(case, graphs_cudnn=graphs_cudnn)

    def infer(name: str, mode: str) -> tuple[str, Case]:
        mode = scale.modes.get(mode, mode)
        return name, Case("infer", scale.size, scale.pixels, scale.batch, "bf16", mode)

    graphs = "reduce-overhead"
    sizes = scale.others
    first = [
        train("ours", "bf16_weights", graphs), train("hiera-optim", "bf16_weights", graphs),
        train("hiera-optim", "bf16_weights", graphs, graphs_cudnn=True),
        train("ours", "bf16_weights", "eager"), train("hiera-optim", "bf16_weights", "eager"),
        train("meta", "bf16", "eager"),
    ]  # fmt: skip
    second = [
        train("ours", "bf16", "default"), train("ours", "bf16_weights", "default"),
        train("ours", "bf16", "eager"), train("hiera-optim", "bf16", graphs),
        train("hiera-optim", "bf16", "eager"), train("transformers", "bf16", "eager"),
    ]  # fmt: skip
    peers = ("ours", "timm", "transformers", "meta")
    return [
        Group("train", "Training step", first, 120),
        Group("infer", "Classifier", [infer(name, graphs) for name in peers], 45),
        Group("modes", "Training step, other modes", second, 75),
        *(
            Group(f"batch{size}", f"Training step, batch {size}",
                  [train(name, "bf16_weights", graphs, size) for name in ("ours", "hiera-optim")], 50)
            for size in (sizes[0], sizes[-1], *sizes[1:-1])
        ),
        Group("tf32", "Training step, TF32",
              [train(name, "tf32", graphs) for name in ("ours", "hiera-optim")], 50),
        Group("autotune", "Training step, max-autotune",
              [train(name, "bf16_weights", "max-autotune") for name in ("ours", "hiera-optim")], 120),
    ]  # fmt: skip


ORDER = ("infer", "train", "loader", "trainer", "modes")
"""Parts before the remaining groups; the trainer reads what the loader's built."""
NEEDS = {"trainer": 150, "loader": 75}
"""Seconds without which the two other parts are not begun."""
