"""The batches of training and validation: their order, and worker processes that live as long as training."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer

from medhiera.data.dataset import KeyedSampler
from medhiera.training.preemption import ignore_sigterm_in_workers
from medhiera.training.settings import check_batches


class LoadingTrainer(Trainer):
    """transformers' Trainer with images in an order keyed by (seed, epoch), whatever the number of workers.

    With `dataloader_persistent_workers` the workers of the training images and of the validation images live
    until `train` ends, however it ends. Those of other images live for one pass.
    """

    _order: KeyedSampler | None = None
    _is_in_training = False

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers; no worker outlives it."""
        self._kept: list[torch.utils.data.DataLoader[Any]] = []
        self._is_in_training = True
        try:
            return super().train(*args, **kwargs)
        finally:
            self._is_in_training = False
            self._end_workers()

    def _end_workers(self) -> None:
        # They ignore SIGTERM, by which Python would end them at its exit, and it would wait for ever.
        for loader in self._kept:
            workers: Any = loader._iterator
            if workers is not None:
                workers._shutdown_workers()
                loader._iterator = None
        self._kept.clear()
        self._eval_dataloaders: dict[str, Any] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[Any] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        self._order = None if dataset is None else KeyedSampler(len(dataset), self.args.seed)
        return self._order

    def get_train_dataloader(self) -> Any:
        """The training batches.

        Raises:
            UserError: with `dataloader_drop_last` there is none.
        """
        loader = super().get_train_dataloader()
        check_batches(self.args, len(self.train_dataset), len(loader))
        return loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The batches of a split; transformers answers with those that it kept, of whichever split."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        with self._options(dataloader_persistent_workers=self._keeps_workers(dataset)):
            return super().get_eval_dataloader(eval_dataset)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        keeps_workers = self._keeps_workers(kwargs["dataset"])
        # transformers drops the rest of a split in evaluation too.
        drops_last = self.args.dataloader_drop_last and bool(kwargs.get("is_training"))
        with self._options(dataloader_drop_last=drops_last, dataloader_persistent_workers=keeps_workers):
            loader = super()._get_dataloader(*args, **kwargs)
        ignore_sigterm_in_workers(loader)
        if keeps_workers:
            self._kept.append(getattr(loader, "base_dataloader", loader))
        return loader

    def _keeps_workers(self, dataset: Any) -> bool:
        is_read_again = any(dataset is known for known in (self.train_dataset, self.eval_dataset))
        return self.args.dataloader_persistent_workers and self._is_in_training and is_read_again

    @contextlib.contextmanager
    def _options(self, **values: Any) -> Iterator[None]:
        """Inside, TrainingArguments are these; what they are meant to be is not lost."""
        before = {name: getattr(self.args, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self.args, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self.args, name, value)
