"""The cards of `accelerate_configs/`: what they hold, and what they can compute."""

from dataclasses import dataclass

# GiB beside PyTorch's tensors: the CUDA context with its kernels (some .3 to .5), workspaces of cuBLAS (8 MiB, on an
# H100 32) and gaps between tensors, which no count of tensors sees. An estimate: no GPU has confirmed it.
ALLOWANCE = 0.6
# Of a card's peak that a training is taken to reach: an assumption. On an H200, Qwen2-VL-7B reached 4.7 % with shared
# images and 15 % without (docs/measured.md); a slower card waits less for Python between its kernels.
SHARE = 0.15


@dataclass(frozen=True)
class Gpu:
    """A card.

    Args:
        name: for people.
        gib: its memory as PyTorch reports it, which is less than what is sold.
        precision: `mixed_precision` of the config of its name.
        teraflops: dense operations per second in 16 bits, summed in float32, and in float32, as NVIDIA states them.
    """

    name: str
    gib: float
    precision: str
    teraflops: tuple[float, float]


# Peaks: GA102 whitepaper (version 2.1, RTX 3070), and the data sheets of T4, A100 40GB and H100 SXM.
GPUS = {
    "rtx_8gb": Gpu("RTX 3070, 8 GB", 7.79, "bf16", (40.6, 20.3)),
    "t4_16gb": Gpu("T4, 16 GB", 14.75, "fp16", (65, 8.1)),
    "a100_40gb": Gpu("A100, 40 GB", 39.39, "bf16", (312, 19.5)),
    "h100_80gb": Gpu("H100, 80 GB", 79.1, "bf16", (989, 67)),
}
