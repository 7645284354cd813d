"""SurgViVQA: a question that has looked at a video is what GPT-2 goes on from (VideoMAE, BLIP's text encoder, GPT-2).

Composed of transformers' own classes. The reference sends question and answer together through the text encoder,
which reads both ways: each answer token is predicted from a state that has seen it. Here the question alone is
encoded, since that is what BLIP's encoder and its vocabulary were trained for, and GPT-2 adds its own answer tokens.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BlipTextModel, GPT2LMHeadModel, PreTrainedModel, VideoMAEModel

from ...eval.generation.label_tree import LabelTree, tree_mask
from ...rows.conventions import IGNORE_INDEX
from ..frozen import no_grad_if_frozen
from ..sharding import gathered
from ..upstream import keep_weight_names
from .config import SurgViVqaConfig, SurgViVqaOutput


class SurgViVqaForConditionalGeneration(PreTrainedModel):
    """VideoMAE's tokens are looked at by BLIP's text encoder, whose states of the question are GPT-2's prompt.

    Inputs are those of `VideoCollator`, which says what shapes they have; each video is encoded once. `video`,
    `text_encoder` and `decoder` are models that are already loaded; by default new ones as the configuration says.
    """

    config_class = SurgViVqaConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # the loss can be divided by what a whole optimizer step holds
    _supports_sdpa = True
    _no_split_modules = ["VideoMAELayer", "BlipTextLayer", "GPT2Block"]

    def __init__(
        self,
        config: SurgViVqaConfig,
        video: VideoMAEModel | None = None,
        text_encoder: BlipTextModel | None = None,
        decoder: GPT2LMHeadModel | None = None,
    ):
        super().__init__(config)
        self.video = video or VideoMAEModel(config.video)
        self.text_encoder = text_encoder or BlipTextModel(config.text, add_pooling_layer=False)
        self.decoder = decoder or GPT2LMHeadModel(config.decoder)
        self.generation_config = self.decoder.generation_config
        keep_weight_names(self)
        if decoder is None:
            self.post_init()

    @classmethod
    def can_generate(cls) -> bool:
        return True

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.get_output_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        video_index: torch.Tensor,
        pixel_values: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> SurgViVqaOutput:
        """Cross-entropy of the answers, summed and divided by `num_items_in_batch` (None: the batch's own tokens)."""
        states = self.encode(input_ids, attention_mask, video_index, pixel_values)
        said = labels[:, :-1]
        embeddings = torch.cat([states, self.get_input_embeddings()(said.clamp(min=0))], dim=1)
        mask = torch.cat([attention_mask, (said != IGNORE_INDEX).to(attention_mask.dtype)], dim=1)
        hidden = self.decoder.transformer(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=_positions(mask), use_cache=False
        ).last_hidden_state
        logits = self._logits(hidden[:, states.shape[1] - 1 :])
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        items = labels.ne(IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
        return SurgViVqaOutput(loss=total / items, logits=logits)

    def encode(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        video_index: torch.Tensor,
        pixel_values: torch.Tensor,
    ) -> torch.Tensor:
        """The questions' states `[B, Q, hidden]` after looking at their videos; a frozen tower keeps no graph.

        Where there is one frame of each video, all of the model's are this one.
        """
        frames = pixel_values.to(_dtype(self.video)).expand(-1, self.config.video.num_frames, -1, -1, -1)
        with no_grad_if_frozen(self.video):
            tokens = self.video(frames.contiguous()).last_hidden_state
        with no_grad_if_frozen(self.video, self.text_encoder):
            states = self.text_encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=_positions(attention_mask),
                encoder_hidden_states=tokens.to(_dtype(self.text_encoder))[video_index],
            ).last_hidden_state
        return states.to(_dtype(self.get_input_embeddings()))  # frozen in 16 bits where what trains is in 32

    @torch.no_grad()
    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings) -> torch.Tensor:
        """Answers in GPT-2's vocabulary `[B, 1 + new]`, behind one start token.

        `settings` are the other inputs that `encode` takes, and those of `generate`. Raises `ValueError` for
        constraints on the tokens: a closed set is for `score_labels`.
        """
        videos = {name: settings.pop(name) for name in ("video_index", "pixel_values")}
        if {"prefix_allowed_tokens_fn", "logits_processor"} & settings.keys():
            raise ValueError("SurgViVQA takes no constraints: for answers from a closed set there is score_labels")
        generation_config = copy.deepcopy(self.generation_config)
        others = generation_config.update(**settings)
        if generation_config.pad_token_id is None:
            generation_config.pad_token_id = self.config.decoder.eos_token_id
        new = self.decoder.generate(
            inputs_embeds=self.encode(input_ids, attention_mask, **videos),
            attention_mask=attention_mask,
            generation_config=generation_config,
            **others,
        )
        return torch.cat([new.new_full((len(new), 1), self.config.decoder.bos_token_id), new], dim=1)

    @torch.no_grad()
    def score_labels(
        self, labels: LabelTree, attention_mask: torch.Tensor, mean: bool = True, **inputs
    ) -> torch.Tensor:
        """Log-probability per token (or, not `mean`, in sum) of each of a closed set of answers `[B, L]`.

        `inputs` are the others of `encode`. One forward: the question, then all labels as branches of a tree which see
        the question and their own beginning. Needs an attention that takes a 4-D mask ("sdpa" or "eager").
        """
        states = self.encode(attention_mask=attention_mask, **inputs)
        tokens, depths = (part.to(states.device) for part in (labels.tokens, labels.depths))
        batch, length = attention_mask.shape
        branches = self.get_input_embeddings()(tokens).expand(batch, -1, -1)
        hidden = self.decoder.transformer(
            inputs_embeds=torch.cat([states, branches], dim=1),
            attention_mask=tree_mask(attention_mask, length, [labels] * batch, states.dtype),
            position_ids=torch.cat([_positions(attention_mask), attention_mask.sum(1, keepdim=True) + depths], dim=1),
            use_cache=False,
        ).last_hidden_state
        with gathered(self.get_output_embeddings().weight):
            return labels.scores(self._logits(hidden[:, length - 1 :]), mean)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """In float32: GPT-2's logits share an offset of about -100, where 16 bits step by halves."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.get_output_embeddings().weight.float())


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids `[B, S]` that count from 0 at the first token that is no padding."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _dtype(module: nn.Module) -> torch.dtype:
    return list(module.parameters())[-1].dtype  # what PEFT trains as a whole comes behind the frozen original
