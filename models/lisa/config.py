"""What LISA is made of, as a configuration, and what it gives back."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, LlavaConfig, PreTrainedConfig, SamConfig
from transformers.utils import ModelOutput

from ..upstream import clear_nested_dtypes


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
        self.llava, self.sam = (_part(of, part) for of, part in ((LlavaConfig, llava), (SamConfig, sam)))
        self.seg_token_id = seg_token_id
        self.ce_weight, self.bce_weight, self.dice_weight = ce_weight, bce_weight, dice_weight
        self.sam_name_or_path = sam_name_or_path
        # An empty dict leaves each part the attention that it has; None would reset it.
        super().__init__(**{"tie_word_embeddings": False, "attn_implementation": {}, **kwargs})

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        return self.llava.get_text_config(*args, **kwargs)


def _part(config_class: type[PreTrainedConfig], given: PreTrainedConfig | dict | None) -> PreTrainedConfig:
    if isinstance(given, config_class):
        return given
    config = config_class(**(given or {}))
    clear_nested_dtypes(config)
    return config


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
