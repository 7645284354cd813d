"""What LISA is made of, as a configuration, and what it gives back."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, LlavaConfig, PreTrainedConfig, SamConfig
from transformers.utils import ModelOutput


class LisaConfig(PreTrainedConfig):
    """The two models' configurations, the `[SEG]` token's id, and the weights of the three losses.

    `sam_name_or_path` says which SAM an adapter belongs to; PEFT knows the LLaVA.
    """

    model_type = "lisa"
    sub_configs = {"llava": LlavaConfig, "sam": SamConfig}

    def __init__(
        self,
        llava: LlavaConfig | dict | None = None,
        sam: SamConfig | dict | None = None,
        seg_token_id: int | None = None,
        ce_weight: float = 1.0,
        bce_weight: float = 2.0,
        dice_weight: float = 0.5,
        sam_name_or_path: str | None = None,
        **kwargs,
    ):
        self.llava = llava if isinstance(llava, LlavaConfig) else LlavaConfig(**(llava or {}))
        self.sam = sam if isinstance(sam, SamConfig) else SamConfig(**(sam or {}))
        for whole in (self.llava, self.sam):
            for name in whole.sub_configs:  # `from_pretrained(dtype=…)` reaches one level down; None follows
                getattr(whole, name).dtype = None
        self.seg_token_id = seg_token_id
        self.ce_weight, self.bce_weight, self.dice_weight = ce_weight, bce_weight, dice_weight
        self.sam_name_or_path = sam_name_or_path
        parts = {"": self.llava, "llava": self.llava, "sam": self.sam}
        attention = {name: part._attn_implementation for name, part in parts.items()}  # or it would be reset to None
        super().__init__(**{"tie_word_embeddings": False, "attn_implementation": attention, **kwargs})

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        return self.llava.get_text_config(*args, **kwargs)


@dataclass
class LisaOutput(ModelOutput):
    """The weighted loss, its three parts unweighted, and per sequence a list of logits `[H, W]`, one per mask."""

    loss: torch.Tensor | None = None
    ce_loss: torch.Tensor | None = None
    bce_loss: torch.Tensor | None = None
    dice_loss: torch.Tensor | None = None
    mask_logits: list[list[torch.Tensor]] | None = None


@dataclass
class LisaAnswers(ModelOutput):
    """Token ids `[B, prompt + new]`, and per row a boolean tensor `[n, H, W]`: one mask for each `[SEG]` it said."""

    sequences: torch.Tensor | None = None
    masks: list[torch.Tensor] | None = None


AutoConfig.register("lisa", LisaConfig, exist_ok=True)
