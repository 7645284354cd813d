"""Train `Toy` in a plain Trainer with `GradNormCallback`, in one process or several; write what it logged.

torchrun --nproc_per_node 2 tests/processes/grad_norms.py --output_dir FOLDER [any TrainingArguments]
"""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import HfArgumentParser, Trainer, TrainingArguments

from callbacks import GradNormCallback

N_ROWS, WIDTH = 8, 4


class Toy(nn.Module):
    """Parts named as in a vision-language model, with gradients of different size; `spare` is never used."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.visual = nn.Linear(WIDTH, 6)
        self.merger = nn.Linear(6, 6)
        self.language_model = nn.Linear(6, 1)
        self.visual_spare = nn.Linear(2, 2)

    def forward(self, x, y):
        features = self.merger(torch.tanh(self.visual(x)))
        return {"loss": (self.language_model(torch.tanh(features)).squeeze(-1) - y).pow(2).mean()}


def toy_rows() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(WIDTH, generator=generator), "y": 3 * torch.randn((), generator=generator)}
        for _ in range(N_ROWS)
    ]


if __name__ == "__main__":
    (args,) = HfArgumentParser((TrainingArguments,)).parse_args_into_dataclasses()
    trainer = Trainer(Toy(), args, train_dataset=toy_rows())
    trainer.add_callback(GradNormCallback(trainer))
    trainer.train()
    if trainer.is_world_process_zero():
        described = {"kind": str(trainer.accelerator.distributed_type), "processes": args.world_size}
        Path(args.output_dir, "logged.json").write_text(json.dumps(described | {"log": trainer.state.log_history}))
