"""Training on studies: pictures reach what is written, and validation scores what was written."""

import csv
import subprocess

import pytest
import torch
from report_rows import report_rows
from transformers import TrainingArguments
from warm_python import warm_python

from medhiera.config.arguments import OptimizationArguments
from medhiera.config.report_arguments import ReportArguments
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.report_dataset import ReportCollator, ReportDataset, read_studies
from medhiera.data.report_tokenizer import decode_reports, encode_report, train_byte_tokenizer
from medhiera.errors import UserError
from medhiera.evaluation.written_reports import ValidationReports
from medhiera.training.callbacks import CSVLoggerCallback
from medhiera.training.report_model import start_report_model
from medhiera.training.report_trainer import ReportTrainer
from modeling_hiera_mae import HieraMAEConfig, HieraMAEModel

OPTIONS = ReportArguments(
    decoder_layers=1, decoder_width=32, decoder_heads=2, decoder_dropout=0.0, max_tokens=40, num_beams=1
)
PREPROCESSING = Preprocessing(64, 64, 0.3, 0.15)


def make_trainer(folder, rows, optimizer="adamw", batch=6, encoder_rate=0.5, **options):
    studies = read_studies(rows, "findings", 2)
    reports = [study.report for study in studies]
    tokenizer = train_byte_tokenizer(reports, 320)
    torch.manual_seed(0)
    config = HieraMAEConfig.from_size("tiny", embed_dim=8, depths=[1, 1, 1, 1], image_size=[64, 64])
    tokens = [encode_report(tokenizer, report, OPTIONS.max_tokens) for report in reports]
    dataset = ReportDataset(rows, studies, PREPROCESSING, 2, tokens)
    training = {"max_steps": 60, "learning_rate": 1e-2, "logging_steps": 20, "report_to": "none"} | options
    return ReportTrainer(
        optimization=OptimizationArguments(optimizer=optimizer),
        preprocessing=PREPROCESSING,
        encoder_rate=encoder_rate if optimizer else 1.0,
        model=start_report_model(HieraMAEModel(config), tokenizer, OPTIONS),
        args=TrainingArguments(
            str(folder), use_cpu=True, per_device_train_batch_size=batch, per_device_eval_batch_size=4,
            remove_unused_columns=False, save_strategy="no", disable_tqdm=True, **training,
        ),
        data_collator=ReportCollator(),
        train_dataset=dataset,
        eval_dataset=dataset,
        compute_metrics=ValidationReports(tokenizer, reports, "iu"),
        callbacks=[CSVLoggerCallback(folder / "log.csv", ReportArguments.logged_metrics)],
    ), reports, tokenizer  # fmt: skip


def test_a_few_studies_are_learned_by_heart_from_their_pictures(tmp_path):
    trainer, reports, tokenizer = make_trainer(
        tmp_path, report_rows(6, "train"), eval_strategy="steps", eval_steps=60
    )
    assert len(set(reports)) >= 3
    trainer.train()
    written = decode_reports(tokenizer, trainer.predict(trainer.eval_dataset).predictions)
    assert written == reports
    with (tmp_path / "log.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["eval_loss"]][-1]
    assert float(last["eval_bleu_4"]) == pytest.approx(1) and int(last["eval_distinct"]) == len(set(reports))


def test_memory_that_ends_while_reports_are_written_is_said_in_words(tmp_path):
    """The loss of a batch fits; what is written of it does not."""
    trainer, _, _ = make_trainer(tmp_path, report_rows(6, "train"))
    room = 2

    def ask(module, inputs, kwargs):
        if kwargs.get("use_cache") is not False and len(kwargs["encoder_hidden_states"]) > room:
            torch.empty(2**50, dtype=torch.uint8)

    trainer.model.decoder.register_forward_pre_hook(ask, with_kwargs=True)
    with pytest.raises(UserError, match="while reports are written: a batch of 4 .*; 2 do .*: 2;"):
        trainer.evaluate()
    room = 0
    with pytest.raises(UserError, match=r"neither does one study\. Set fewer num_beams, views or"):
        trainer.evaluate()


ONE_OF_TWO = """
import sys, torch
from medhiera.errors import run_script
from medhiera.training.out_of_memory import end_writing

def main(argv):
    store = f"file://{argv[1]}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=int(argv[0]), world_size=2)
    def write(part):
        raise MemoryError
    end_writing(write, {"pixel_values": torch.zeros(2, 1)})

run_script(main)
"""


def test_of_a_frozen_encoder_no_bit_changes(tmp_path):
    trainer, _, _ = make_trainer(tmp_path, report_rows(6, "train"), encoder_rate=0.0, max_steps=2)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    learned = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "decoder" in learned and "encoder" not in learned


@pytest.mark.slow
def test_each_of_several_ranks_says_which_it_is(root, tmp_path):
    (tmp_path / "rank.py").write_text(ONE_OF_TWO)
    ranks = [
        subprocess.Popen(
            [warm_python(), "-W", "ignore", tmp_path / "rank.py", str(rank), tmp_path / "store"],
            cwd=root, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for rank, process in enumerate(ranks):
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1 and f"rank {rank} of 2: out of memory while reports" in said, said


def test_accumulated_batches_make_the_step_of_a_whole_one(tmp_path):
    """Of reports of different lengths: the loss is divided by the tokens of the whole step."""
    rows = report_rows(6, "train")
    found = []
    for batch, accumulation in ((6, 1), (2, 3)):
        trainer, _, _ = make_trainer(
            tmp_path, rows, None, batch, optim="sgd", max_steps=1, gradient_accumulation_steps=accumulation
        )
        trainer.train()
        found.append(trainer.model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6)
