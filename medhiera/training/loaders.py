"""The batches of training and validation: their order, and worker processes that live as long as training."""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer

from medhiera.data.batch_memory import forget_ended_workers
from medhiera.data.dataset import KeyedSampler
from medhiera.training.preemption import leave_signals_in_workers
from medhiera.training.settings import check_batches


class LoadingTrainer(Trainer):
    """transformers' Trainer with images in an order keyed by (seed, epoch), whatever the number of workers.

    With `dataloader_persistent_workers` the workers of the training images and of the validation images live
    until `train` ends, however it ends. Those of other images live for one pass.
    """

    _order: KeyedSampler | None = None
    _images_of_step = 0  # of this rank

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_training = multiprocessing.RawValue("b", 0)  # its workers see it change
        self._kept: list[torch.utils.data.DataLoader[Any]] = []
        super().__init__(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers; no kept worker outlives it, and SIGTERM ends what is left of the others.

        Raises:
            KeyboardInterrupt: Ctrl-C; the first one behind a checkpoint.
        """
        is_main_thread = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._is_training.value = 1
        try:
            return super().train(*args, **kwargs)
        finally:
            self._is_training.value = 0
            self._end_workers()
            for number, handler in before.items():
                if is_main_thread and handler is not None:  # an error skips the callback that would
                    signal.signal(number, handler)

    def _end_workers(self) -> None:
        for loader in self._kept:
            workers: Any = loader._iterator
            if workers is not None:
                workers._shutdown_workers()
                loader._iterator = None
        self._kept.clear()
        self._eval_dataloaders: dict[str, Any] = {}
        forget_ended_workers()

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

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of one step, as transformers collects them; how many images they have is noted."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self._images_of_step = sum(len(batch["pixel_values"]) for batch in batches)
        return batches, items

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The batches of a split; transformers answers with those that it kept, of whichever split."""
        is_own = eval_dataset is None or eval_dataset is self.eval_dataset
        with self._options(dataloader_persistent_workers=is_own and self._keeps_workers()):
            return super().get_eval_dataloader(eval_dataset)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        is_read_again = kwargs.get("is_training") or kwargs["dataset"] is self.eval_dataset
        keeps_workers = bool(is_read_again) and self._keeps_workers()
        # transformers drops the rest of a split in evaluation too.
        drops_last = self.args.dataloader_drop_last and bool(kwargs.get("is_training"))
        with self._options(dataloader_drop_last=drops_last, dataloader_persistent_workers=keeps_workers):
            loader = super()._get_dataloader(*args, **kwargs)
        inner = getattr(loader, "base_dataloader", loader)
        # Each start of workers draws a number. Of torch's own generator it would move what the model draws,
        # and a resumed run starts workers where the whole run kept them.
        inner.generator = torch.Generator().manual_seed(self.args.seed)
        leave_signals_in_workers(inner, self._is_training)
        if keeps_workers:
            self._kept.append(inner)
        return loader

    def _keeps_workers(self) -> bool:
        return self.args.dataloader_persistent_workers and bool(self._is_training.value)

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
