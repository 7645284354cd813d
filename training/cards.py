"""What a run may not be launched on: several GPUs for one process, or a device without its number format."""

import os

import torch
from transformers import TrainingArguments

from ..models.precision import computes_in_bfloat16

GIB = 2**30


def refuse_what_the_device_cannot_do(training: TrainingArguments) -> None:
    """Raise `ValueError`, in one line that says what to type, where one process would share out a batch over GPUs, or
    where the device has not the number format of `training`.
    """
    if training.n_gpu > 1:  # the Trainer would wrap the model in `nn.DataParallel`, which scatters what is no batch
        cards = [_memory(card) for card in range(training.n_gpu)]
        best = max(range(len(cards)), key=lambda card: cards[card][0])
        free, total = cards[best]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # then PyTorch counts only what it lists, in its order
        name = visible.split(",")[best].strip() if visible else best
        raise ValueError(
            f"{len(cards)} GPUs are visible to one process: CUDA_VISIBLE_DEVICES={name} accelerate launch … (card "
            f"{name} has {free / GIB:.0f} of {total / GIB:.0f} GiB free), or all of them with "
            f"accelerate_configs/ddp.yaml --num_processes {len(cards)}"
        )
    device = training.device.type
    if training.bf16 and device == "cuda" and not computes_in_bfloat16():
        raise ValueError(
            f"{torch.cuda.get_device_name()} has no bfloat16: --bf16 false --fp16 true computes in float16, as "
            "accelerate_configs/t4_16gb.yaml does, and --bf16 false alone in float32"
        )
    if training.fp16 and device == "cpu":  # accelerate would leave autocast and the scaling of the loss out, silently
        raise ValueError(
            "float16 needs a GPU: launch with accelerate_configs/cpu.yaml, or with --fp16 false, for float32"
        )


def _memory(card: int) -> tuple[int, int]:
    """Free and total bytes of a GPU; none of one that is too full, or somebody's alone, to be asked."""
    try:
        return torch.cuda.mem_get_info(card)
    except RuntimeError:
        return 0, 0
