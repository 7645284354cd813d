"""A model with parts named as in a vision-language model, and rows for it: small enough to compute by hand."""

import torch
from torch import nn

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
