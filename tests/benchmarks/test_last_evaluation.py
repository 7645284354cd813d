"""The table of what the last evaluation costs, against what PyTorch counts and the bounds that are promised."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, LlamaConfig, VideoMAEConfig

from benchmarks import last_evaluation
from tests.support.paths import ROOT

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
KINDS = {
    "language": (LlamaConfig(**SIZES), (1, 50), 50),
    "video": (VideoMAEConfig(**SIZES, image_size=64, num_frames=8), (1, 8, 3, 64, 64), 64),
}


@pytest.mark.parametrize(("config", "shape", "seen"), KINDS.values(), ids=KINDS)
def test_a_forward_has_the_operations_that_pytorch_counts(config, shape, seen):
    network = AutoModel.from_config(config, attn_implementation="eager").eval()
    batch = torch.zeros(shape, dtype=torch.long if len(shape) == 2 else torch.float)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(batch)
    assert last_evaluation.part(network, 64, 3)(seen) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_an_embedding_is_looked_up_and_not_multiplied():
    assert last_evaluation.part(nn.ModuleList([nn.Embedding(100, 8), nn.Linear(8, 3)])) == last_evaluation.Part(24)


def test_the_last_evaluation_costs_at_most_a_quarter_of_the_training_but_for_ssg_vqa_and_docs_say_so():
    lines = (ROOT / "docs/scale.md").read_text()
    for name, counted in last_evaluation.RECIPES.items():
        cost = counted()
        assert cost.share <= (0.25 if name != "ssg_vqa" else 0.5), name
        row = next(line for line in lines.splitlines() if line.startswith(f"| {name} "))
        assert f"| {cost.training / 1e15:,.1f} | {100 * cost.share:.1f} % |" in row
        assert row.endswith(f"| {100 * cost.watched / cost.training:.1f} % |")
