"""Several processes see each row of an epoch once, where a Trainer fills its last step up with rows seen before."""

from collections.abc import Iterator

import torch
from torch.utils.data import BatchSampler, DataLoader
from transformers import Trainer

from ..rows.conventions import IGNORE_INDEX


class WholeRounds(BatchSampler):
    """Batches for processes that take turns: behind the last comes the first again, until each has had its turn."""

    def __init__(self, batches: BatchSampler, processes: int):
        super().__init__(batches.sampler, batches.batch_size, batches.drop_last)
        self.processes = processes

    def __len__(self) -> int:
        return -(-super().__len__() // self.processes) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(super().__iter__())
        yield from batches + batches[:1] * (len(self) - len(batches))

    def is_over(self, process: int) -> bool:
        """Whether the last turn of `process` is only there to make the round whole."""
        return process >= self.processes - (len(self) - super().__len__())


def see_each_row_once(trainer: Trainer) -> None:
    """Have a Trainer in several processes compute what one process would, at the end of an epoch, too.

    Its losses have to be divided by the trained tokens (or masks) of the whole step, as those of the recipes are: a
    process without a row left takes part with a batch in which nothing is trained. To be called before `train`.
    """
    accelerator = trainer.accelerator
    processes, process = accelerator.num_processes, accelerator.process_index
    if processes == 1 or trainer.args.dataloader_drop_last or accelerator.split_batches:
        return
    train_dataloader, eval_dataloader = trainer.get_train_dataloader, trainer.get_eval_dataloader
    batch_samples = trainer.get_batch_samples

    def in_whole_rounds(loader: DataLoader) -> DataLoader:
        share = loader.batch_sampler  # accelerate's
        if not isinstance(share.batch_sampler, WholeRounds):
            share.batch_sampler, share.even_batches = WholeRounds(share.batch_sampler, processes), False
        return loader

    def get_train_dataloader() -> DataLoader:
        loader = in_whole_rounds(train_dataloader())
        trainer.is_over = loader.batch_sampler.batch_sampler.is_over(process)
        return loader

    def get_batch_samples(batches: Iterator, *arguments):
        return batch_samples(counted(batches), *arguments)

    def counted(batches: Iterator) -> Iterator:
        for batch in batches:
            if trainer.is_over and accelerator.gradient_state.end_of_dataloader:
                batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
                if "masks" in batch:
                    batch["masks"] = [masks[:0] for masks in batch["masks"]]
            yield batch

    trainer.get_train_dataloader = get_train_dataloader
    trainer.get_eval_dataloader = lambda *arguments: in_whole_rounds(eval_dataloader(*arguments))
    trainer.get_batch_samples = get_batch_samples
