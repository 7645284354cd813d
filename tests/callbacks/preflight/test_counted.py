"""Quantised layers against bitsandbytes' own, operations against formulas, optimizer states against real ones."""

import subprocess
import sys

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

from tests.support import tiny
from vlm_recipes.callbacks.preflight.allocations import CountAllocations
from vlm_recipes.callbacks.preflight.counted import CountStep, count_step
from vlm_recipes.callbacks.preflight.optimizers import optimizer_states
from vlm_recipes.callbacks.preflight.shapes import empty, tensors_of, to_shapes
from vlm_recipes.collators import ChatCollator
from vlm_recipes.models.upstream import as_on_a_gpu

WIDTH, MIDDLE, ROWS = 512, 1024, 96


class Layers(nn.Module):
    """Two linear layers of this kind between two adapters, so that gradients go through them."""

    def __init__(self, linear):
        super().__init__()
        self.before = nn.Linear(WIDTH, WIDTH, bias=False)
        self.first, self.second = linear(WIDTH, MIDDLE), linear(MIDDLE, WIDTH)
        self.after = nn.Linear(WIDTH, 8, bias=False)

    def forward(self, values):
        return self.after(self.second(self.first(self.before(values)).relu())).float().sum()


def in_4_bits(rows: int, columns: int, nested: bool = True) -> nn.Module:
    how = {"quant_type": "nf4", "compress_statistics": nested, "compute_dtype": torch.bfloat16}
    return bitsandbytes.nn.Linear4bit(rows, columns, bias=False, **how)


def in_8_bits(rows: int, columns: int) -> nn.Module:
    return bitsandbytes.nn.Linear8bitLt(rows, columns, bias=False, has_fp16_weights=False, threshold=6.0)


def bytes_of(model: nn.Module) -> int:
    return sum({one.untyped_storage(): one.untyped_storage().nbytes() for one in tensors_of(model)}.values())


@pytest.mark.parametrize("linear", [in_4_bits, in_8_bits], ids=["4 bits", "8 bits"])
def test_layers_of_few_bits_take_what_those_of_bitsandbytes_do(linear):
    real = Layers(linear).bfloat16()
    real.first.to("cpu"), real.second.to("cpu")  # packs
    values = torch.randn(ROWS, WIDTH).bfloat16()
    with as_on_a_gpu():
        real(values).backward()  # warms up
        real.zero_grad()
        with CountAllocations([*tensors_of(real), values]) as expected:
            real(values).backward()
        with torch.device("meta"):
            shaped = Layers(linear).bfloat16()
        to_shapes(shaped)
        assert bytes_of(shaped) == pytest.approx(bytes_of(real), rel=0.001)
        values = empty(values.shape, values.dtype)
        with CountStep([*tensors_of(shaped), values]) as counted:
            shaped(values).backward()
    copy = 2 * WIDTH * MIDDLE  # of a layer's weight in bfloat16
    assert counted.peak == pytest.approx(expected.peak, rel=0.05) and counted.peak > bytes_of(shaped) + copy
    # Each layer once forward, and backward by its input, but for the first, and by the weights of the outer two.
    first, middle, last = WIDTH * WIDTH, WIDTH * MIDDLE, WIDTH * 8
    assert counted.operations == 2 * ROWS * (2 * first + 4 * middle + 3 * last)


@pytest.mark.parametrize("name", ["adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_an_optimizer_keeps_what_it_is_said_to(name, tmp_path):
    model = nn.Sequential(nn.Embedding(200, 64), nn.Linear(64, 128), nn.Linear(128, 10))
    settings = {"report_to": "none", "use_cpu": True, "optim": name}
    optimizer = Trainer(model, TrainingArguments(tmp_path, **settings)).create_optimizer()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for name, value in state.items() if "qmap" not in name]
    held = sum(value.nbytes for value in kept if isinstance(value, torch.Tensor) and value.ndim)
    assert optimizer_states(name, model) == held > 0


def test_of_other_optimizers_nothing_is_known():
    assert optimizer_states("adafactor", nn.Linear(2, 2)) is None


RANK = 4


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_of_the_formulas_of_tower_layers_heads_and_lora(checkpointing, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    config, vision = model.config.text_config, model.config.vision_config
    projections = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    model = get_peft_model(model, LoraConfig(r=RANK, target_modules=projections))
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.disable_input_require_grads()
    trainer = Trainer(model, TrainingArguments(tmp_path, report_to="none", use_cpu=True))
    to_shapes(model)
    batch = ChatCollator(AutoProcessor.from_pretrained(tiny.qwen2_vl()))(tiny.chat_rows()[:1])
    counted = count_step(trainer, batch, on_a_gpu=False)

    patches, tokens = len(batch["pixel_values"]), batch["input_ids"].shape[-1]
    wide, merged = vision.embed_dim, vision.embed_dim * vision.spatial_merge_size**2
    block = (4 + 2 * vision.mlp_ratio) * wide**2  # queries, keys, values, output; up and down
    tower = 2 * patches * (batch["pixel_values"].shape[1] * wide + vision.depth * block)
    tower += 4 * vision.depth * patches**2 * wide  # queries by keys, and those by values
    tower += 2 * (patches // vision.spatial_merge_size**2) * merged * (merged + vision.hidden_size)
    hidden, middle = config.hidden_size, config.intermediate_size
    head = hidden // config.num_attention_heads
    keys = head * config.num_key_value_heads
    layers = {"q": (hidden, hidden), "k": (hidden, keys), "v": (hidden, keys), "o": (hidden, hidden)}
    layers |= {"gate": (hidden, middle), "up": (hidden, middle), "down": (middle, hidden)}
    weights = sum(2 * tokens * into * out for into, out in layers.values())
    lora = sum(2 * tokens * RANK * (into + out) for into, out in layers.values())
    attention = 2 * tokens**2 * hidden  # one product of all heads, for all pairs
    vocabulary = 2 * tokens * hidden * config.vocab_size
    depth = config.num_hidden_layers
    forward = depth * (weights + lora + 2 * attention)
    backward = depth * (weights + 2 * lora + 5 * attention)  # the fused one has the scores again
    first = sum(2 * tokens * (into * out + RANK * into) for into, out in (layers[name] for name in "qkv"))
    # Checkpointing computes a layer again, but for its last product, whose result no gradient needs.
    again = forward - depth * 2 * tokens * RANK * hidden if checkpointing else 0
    assert counted.operations == tower + forward + again + backward - first + 2 * vocabulary


FORKED = """
import os, torch
from vlm_recipes.callbacks.preflight.shapes import empty

def gradient():
    values = torch.ones(3, requires_grad=True)
    (2 * values).sum().backward()

empty((2, 3), torch.float32)
gradient()
if os.fork() == 0:
    gradient()
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.slow
def test_a_process_that_is_forked_after_a_count_still_computes_gradients():
    """As data loaders' workers do not, and processes of a test do. A fresh one: autograd begins but once."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
