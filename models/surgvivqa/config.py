"""What SurgViVQA is made of, as a configuration, and what it gives back."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, BlipTextConfig, GPT2Config, PreTrainedConfig, VideoMAEConfig
from transformers.utils import ModelOutput


class SurgViVqaConfig(PreTrainedConfig):
    """The three models' configurations; `video_name_or_path` and `text_name_or_path` say what an adapter belongs to.

    Raises `ValueError` where one model's width does not fit the next one's.
    """

    model_type = "surgvivqa"
    sub_configs = {"video": VideoMAEConfig, "text": BlipTextConfig, "decoder": GPT2Config}

    def __init__(
        self,
        video: VideoMAEConfig | dict | None = None,
        text: BlipTextConfig | dict | None = None,
        decoder: GPT2Config | dict | None = None,
        video_name_or_path: str | None = None,
        text_name_or_path: str | None = None,
        **kwargs,
    ):
        self.video = video if isinstance(video, VideoMAEConfig) else VideoMAEConfig(**(video or {}))
        self.text = text if isinstance(text, BlipTextConfig) else BlipTextConfig(**(text or {}))
        self.decoder = decoder if isinstance(decoder, GPT2Config) else GPT2Config(**(decoder or {}))
        self.video_name_or_path, self.text_name_or_path = video_name_or_path, text_name_or_path
        if not self.text.is_decoder or self.text.encoder_hidden_size != self.video.hidden_size:
            raise ValueError(f"the text encoder has no cross-attention to a video of width {self.video.hidden_size}")
        if self.text.hidden_size != self.decoder.n_embd:
            raise ValueError(f"the text encoder is {self.text.hidden_size} wide, the decoder {self.decoder.n_embd}")
        # Like an encoder-decoder's, the labels are the answer alone, and generation returns nothing of the prompt.
        defaults = {"is_encoder_decoder": True, "tie_word_embeddings": False}
        defaults["attn_implementation"] = {}  # leaves each part the attention that it has; None would reset it
        super().__init__(**{**defaults, **kwargs})

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        return self.decoder


@dataclass
class SurgViVqaOutput(ModelOutput):
    """The loss, and the answer's logits `[B, T, V]`: the t-th predicts the t-th label."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


AutoConfig.register("surgvivqa", SurgViVqaConfig, exist_ok=True)
