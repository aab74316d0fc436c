"""The private names of other libraries that our code overrides or uses: each exists, and none is unlisted.

A library may drop or change such a name in any release without notice; an override would never be called.
"""

import argparse
import ast
import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import datasets.arrow_writer
import evaluate
import pytest
import torch
import transformers
from torch import nn

ROOT = Path(__file__).resolve().parents[4]
PACKAGES = ("modeling_hiera_mae", "dataset_scripts", "medhiera")


class LibraryName(NamedTuple):
    """One name of a library's, and what our code relies on.

    `owner` has the name; where it is a function, it makes the owner in a folder. `parameters` are in the
    library's order, None for what is not a function. `is_open`: ours relies on these parameters alone and
    passes the others through, or leaves them out; otherwise the library's function must have no others.
    """

    owner: Any
    name: str
    parameters: tuple[str, ...] | None = None
    is_open: bool = False

    @property
    def label(self) -> str:
        """How pytest lists it: `Trainer._run_epoch`."""
        return f"{getattr(self.owner, '__name__', type(self.owner).__name__)}.{self.name}"


def stock_trainer(folder):
    arguments = transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[])
    return transformers.Trainer(model=nn.Linear(1, 1), args=arguments)


def stock_builder(folder):
    return datasets.load_dataset_builder("csv", data_files=__file__, cache_dir=str(folder))


TRAINER = (
    LibraryName(transformers.Trainer, "_build_accelerator_args", (), is_open=True),
    LibraryName(transformers.Trainer, "_wrap_model", ("model", "training", "dataloader")),
    LibraryName(transformers.Trainer, "_get_learning_rate", ()),
    LibraryName(transformers.Trainer, "_get_grad_norm", ("model", "grad_norm")),
    LibraryName(transformers.Trainer, "_get_train_sampler", ("train_dataset",)),
    LibraryName(transformers.Trainer, "_get_dataloader", (), is_open=True),
    LibraryName(transformers.Trainer, "_prepare_inputs", ("inputs",)),
    LibraryName(transformers.Trainer, "_get_num_items_in_batch", ("batch_samples", "device")),
    LibraryName(transformers.Trainer, "_run_epoch", ("epoch",), is_open=True),
    LibraryName(transformers.Trainer, "_maybe_log_save_evaluate", (), is_open=True),
    LibraryName(
        transformers.Trainer,
        "_prepare_for_training",
        ("max_steps", "train_dataloader", "resume_from_checkpoint"),
    ),
    LibraryName(transformers.Trainer, "_determine_best_metric", ("metrics", "trial")),
    LibraryName(transformers.Trainer, "_load_best_model", ()),
    LibraryName(transformers.Trainer, "_finalize_training", (), is_open=True),
    LibraryName(transformers.Trainer, "_save_checkpoint", ("model", "trial")),
)

OTHER_OVERRIDES = (
    LibraryName(transformers.PreTrainedModel, "_init_weights", ("module",)),
    LibraryName(transformers.PreTrainedModel, "_keys_to_ignore_on_load_unexpected"),
    LibraryName(transformers.PreTrainedModel, "_no_split_modules"),
    LibraryName(transformers.PreTrainedModel, "_supports_sdpa"),
    LibraryName(transformers.PreTrainedModel, "_supports_flash_attn"),
    LibraryName(transformers.PreTrainedModel, "_supports_flex_attn"),
    LibraryName(transformers.PreTrainedModel, "_supports_attention_backend"),
    LibraryName(datasets.GeneratorBasedBuilder, "_info", ()),
    LibraryName(datasets.GeneratorBasedBuilder, "_build_cache_dir", ()),
    LibraryName(datasets.GeneratorBasedBuilder, "_split_generators", ("dl_manager",)),
    LibraryName(datasets.GeneratorBasedBuilder, "_generate_examples", (), is_open=True),
    LibraryName(datasets.GeneratorBasedBuilder, "_make_split_generators_kwargs", ("prepare_split_kwargs",)),
    LibraryName(
        datasets.GeneratorBasedBuilder,
        "_download_and_prepare",
        ("dl_manager", "verification_mode"),
        is_open=True,
    ),
    LibraryName(transformers.HfArgumentParser, "_parse_dataclass_field", ("parser", "field")),
    LibraryName(evaluate.Metric, "_info", ()),
    LibraryName(evaluate.Metric, "_compute", (), is_open=True),
)

USED = (
    LibraryName(stock_trainer, "_created_lr_scheduler"),  # create_scheduler sets it
    LibraryName(transformers.PreTrainedModel, "_from_config", ("config",), is_open=True),
    LibraryName(transformers.PreTrainedConfig(), "_attn_implementation"),
    LibraryName(transformers.HfArgumentParser(()), "_actions"),
    LibraryName(stock_builder, "_output_dir"),
    LibraryName(datasets.Dataset.from_dict({}), "_indices"),
    LibraryName(nn.Linear(1, 1), "_forward_hooks"),
    LibraryName(nn.Linear(1, 1), "_forward_pre_hooks"),
    LibraryName(nn.Linear(1, 1), "_backward_hooks"),
    LibraryName(nn.Linear(1, 1), "_backward_pre_hooks"),
    LibraryName(nn.modules.module, "_has_any_global_hook", ()),
    LibraryName(torch, "_C"),
    LibraryName(torch._C, "_are_functorch_transforms_active"),
    LibraryName(torch.autograd.forward_ad, "_current_level"),
    LibraryName(torch, "_foreach_copy_"),
    LibraryName(torch, "_foreach_lerp_"),
    LibraryName(torch, "_foreach_norm"),
    LibraryName(torch.utils.data.DataLoader([]), "_iterator"),
    LibraryName(torch.utils.data.dataloader._MultiProcessingDataLoaderIter, "_shutdown_workers", ()),
    LibraryName(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"),
    LibraryName(torch.ops.mkldnn, "_linear_pointwise"),
    LibraryName(argparse.ArgumentParser(), "_option_string_actions"),
    LibraryName(os, "_exit"),  # documented, in spite of its name
)

# No underscore, but no documentation that promises them either.
UNDOCUMENTED = (
    LibraryName(torch.utils._python_dispatch, "is_in_torch_dispatch_mode"),
    LibraryName(datasets.arrow_writer, "ParquetWriter"),
    LibraryName(
        datasets.arrow_writer.ArrowWriter, "__init__", ("features", "path", "writer_batch_size"), is_open=True
    ),
    LibraryName(datasets.arrow_writer.ParquetWriter, "write", ("example",), is_open=True),
    LibraryName(datasets.arrow_writer.ParquetWriter, "finalize", (), is_open=True),
    LibraryName(datasets.arrow_writer.ParquetWriter, "close", (), is_open=True),
    LibraryName(datasets.utils, "tqdm"),
    LibraryName(
        transformers.trainer_utils,
        "rotate_checkpoints",
        ("output_dir", "save_total_limit", "best_model_checkpoint", "use_mtime"),
        is_open=True,
    ),
    LibraryName(transformers.utils.import_utils, "enable_tf32", ("enable",)),
)

OVERRIDDEN = TRAINER + OTHER_OVERRIDES
LISTED = {entry.name for entry in OVERRIDDEN + USED}


@pytest.mark.parametrize("entry", OVERRIDDEN + USED + UNDOCUMENTED, ids=lambda entry: entry.label)
def test_the_library_still_has_what_we_rely_on(entry, tmp_path):
    if entry.owner is torch.ops.mkldnn and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN, and the models do without it")
    owner = entry.owner(tmp_path) if inspect.isfunction(entry.owner) else entry.owner
    assert hasattr(owner, entry.name), f"the installed version has no {entry.label} any more"
    if entry.parameters is not None:
        parameters = [
            name for name in inspect.signature(getattr(owner, entry.name)).parameters if name != "self"
        ]
        if entry.is_open:
            parameters = [name for name in parameters if name in entry.parameters]
        assert tuple(parameters) == entry.parameters, f"{entry.label} takes other parameters now"


def sources() -> Iterator[Path]:
    """Our packages and scripts; tests and benchmarks are not what a user depends on."""
    yield from sorted(ROOT.glob("*.py"))
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_members(class_definition: ast.ClassDef) -> set[str]:
    """The private functions and variables that a class body defines."""
    names = set()
    for statement in class_definition.body:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return {name for name in names if is_private(name)}


def overrides() -> dict[str, set[type]]:
    """Private names that a class of ours defines and a library's class above it has: name → our classes."""
    found: dict[str, set[type]] = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef) or not (names := private_members(node)):
                continue
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            ours = getattr(module, node.name)
            libraries = [base for base in ours.__mro__ if base.__module__.split(".")[0] not in PACKAGES]
            for name in names:
                if any(name in vars(base) for base in libraries):
                    found.setdefault(name, set()).add(ours)
    return found


def test_every_private_override_of_the_trainer_is_listed():
    definitions = [
        node
        for file in ("trainer.py", "loaders.py")
        for node in ast.walk(ast.parse((ROOT / "medhiera/training" / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert {node.name for node in definitions} == {"MedHieraTrainer", "LoadingTrainer"}
    private = {name for node in definitions for name in private_members(node)}
    inherited = {name for name in private if hasattr(transformers.Trainer, name)}
    assert inherited == {entry.name for entry in TRAINER}


def test_every_other_private_override_is_listed_too():
    found = overrides()
    assert found.keys() == {entry.name for entry in OVERRIDDEN}
    for name, classes in found.items():
        owners = [entry.owner for entry in OVERRIDDEN if entry.name == name]
        for ours in classes:
            assert any(issubclass(ours, owner) for owner in owners), f"{ours.__name__}.{name} is not listed"


def test_every_private_name_that_we_use_and_do_not_define_is_listed():
    used: dict[str, str] = {}
    defined: set[str] = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                used[node.attr] = f"{path.relative_to(ROOT)}:{node.lineno}"
                if isinstance(node.ctx, ast.Store):
                    defined.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
    unlisted = {name: place for name, place in used.items() if name not in defined | LISTED}
    assert not unlisted, f"name these in USED above: {unlisted}"
    unused = {entry.name for entry in USED} - used.keys()
    assert not unused, f"nothing uses these any more: {unused}"
