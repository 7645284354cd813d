"""LISA: LLaVA answers with `[SEG]` tokens, and SAM's mask decoder draws a mask for each (arXiv 2308.00692).

Composed of transformers' own classes. The last hidden state at the position that predicts a `[SEG]` is projected to
one sparse prompt of SAM.
"""

import copy

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedModel, SamModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ...rows.conventions import IGNORE_INDEX
from ..frozen import no_grad_if_frozen
from ..upstream import keep_weight_names
from .config import LisaAnswers, LisaConfig, LisaOutput
from .loss import mask_losses, token_loss
from .mask_decoding import decode_masks

FOR_SAM = ("sam_pixel_values", "original_sizes", "reshaped_input_sizes")


class LisaForConditionalGeneration(PreTrainedModel):
    """LLaVA and SAM, joined by the projection from a hidden state to a prompt.

    Inputs are those of `SegmentationCollator`, which says what shapes they have. An image passes through each of the
    two vision towers once, however many sequences are about it. `llava` and `sam` are models that are already loaded;
    by default new ones as the configuration says.
    """

    config_class = LisaConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # the loss can be divided by what a whole optimizer step holds
    _supports_sdpa = True
    _no_split_modules = ["LlamaDecoderLayer", "SamVisionLayer", "CLIPEncoderLayer"]

    def __init__(
        self, config: LisaConfig, llava: LlavaForConditionalGeneration | None = None, sam: SamModel | None = None
    ):
        super().__init__(config)
        hidden, prompt = config.get_text_config().hidden_size, config.sam.prompt_encoder_config.hidden_size
        self.llava = llava or LlavaForConditionalGeneration(config.llava)
        self.sam = sam or SamModel(config.sam)
        self.mask_projection = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, prompt))
        self.generation_config = self.llava.generation_config
        keep_weight_names(self)
        if llava is None:
            self.post_init()

    @classmethod
    def can_generate(cls) -> bool:
        return True

    def get_input_embeddings(self) -> nn.Module:
        return self.llava.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.llava.get_output_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        image_index: torch.Tensor,
        pixel_values: torch.Tensor,
        labels: torch.Tensor,
        masks: list[torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
        num_masks_in_batch: torch.Tensor | int | None = None,
        **for_sam: torch.Tensor,
    ) -> LisaOutput:
        """The loss: `ce_weight · CE + bce_weight · BCE + dice_weight · Dice`.

        Args:
            labels: `[B, S]`, -100 where nothing is trained; each `[SEG]` among them has a mask.
            masks: per sequence `[n, H, W]` at the image's own size: 1 target, 0 none, 255 leaves the pixel out.
            num_items_in_batch, num_masks_in_batch: trained tokens and masks of the whole optimizer step, by which the
                sums are divided; None: those of this batch.
            for_sam: `FOR_SAM`, as `decode_masks` takes them.

        Raises `ValueError` where a sequence has another number of masks than of `[SEG]` tokens.
        """
        next_token = labels[:, 1:]
        is_seg = next_token == self.config.seg_token_id
        counts = [len(part) for part in masks]
        if (said := is_seg.sum(1).tolist()) != counts:
            raise ValueError(f"the sequences of this batch say [SEG] {said} times and have {counts} masks")
        hidden = self.llava.model.language_model(
            inputs_embeds=self._embeddings(input_ids, image_index, pixel_values),
            attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state
        trained = next_token != IGNORE_INDEX
        logits = self.llava.lm_head(hidden[:, :-1][trained])
        ce_loss = token_loss(logits, next_token[trained], num_items_in_batch)

        rows, positions = is_seg.nonzero(as_tuple=True)
        states = hidden[rows, positions]
        if not len(rows):  # one mask for nothing: under DDP every process has to have every gradient
            rows, states = rows.new_zeros(1), hidden.new_zeros(1, hidden.shape[-1])  # of no token: its could overflow
        mask_logits, zero = decode_masks(self.sam, self.mask_projection, states, image_index[rows], **for_sam)
        targets = [mask for part in masks for mask in part]
        bce_loss, dice_loss = mask_losses(mask_logits, targets, num_masks_in_batch)
        config = self.config
        weighted = config.ce_weight * ce_loss + config.bce_weight * bce_loss + config.dice_weight * dice_loss
        return LisaOutput(
            loss=weighted + zero,
            ce_loss=ce_loss,
            bce_loss=bce_loss,
            dice_loss=dice_loss,
            mask_logits=_by_row(mask_logits, counts),
        )

    @torch.no_grad()
    def generate_masks(
        self, input_ids: torch.Tensor, image_index: torch.Tensor, pixel_values: torch.Tensor, **settings
    ) -> LisaAnswers:
        """Answer prompts padded on the left; where the model says `[SEG]`, draw the mask at the image's own size.

        `settings` are the other inputs, and those of `generate`, beams and sampling included. Runs in the number
        format that LLaVA was loaded in, also where what was trained is in float32.
        """
        for_sam = {name: settings.pop(name) for name in FOR_SAM}
        settings |= {"input_ids": input_ids, "return_dict_in_generate": True}
        generation_config = copy.deepcopy(self.generation_config)
        others = generation_config.update(**settings)
        dtype = self.llava.config.dtype or torch.float32
        states: list[torch.Tensor] = []  # the t-th predicts the t-th new token
        watch = self.llava.model.language_model.register_forward_hook(
            lambda module, inputs, output: states.append(output.last_hidden_state[:, -1])
        )
        with torch.autocast(input_ids.device.type, dtype=dtype, enabled=dtype != torch.float32):
            try:
                embeddings = self._embeddings(input_ids, image_index, pixel_values)
                output = self.llava.generate(inputs_embeds=embeddings, generation_config=generation_config, **others)
            finally:
                watch.remove()
            new = output.sequences[:, input_ids.shape[1] :]
            image_index = image_index.repeat_interleave(len(new) // len(input_ids))  # num_return_sequences
            rows, steps = (new == self.config.seg_token_id).nonzero(as_tuple=True)
            counts = torch.bincount(rows, minlength=len(new)).tolist()
            beams, mask_logits = output.get("beam_indices"), []
            if not len(rows) and is_deepspeed_zero3_enabled():  # all processes gather SAM's weights, or none does
                rows = steps = rows.new_zeros(1)
            if len(rows):
                sources = (rows if beams is None else beams[rows, steps]).tolist()
                said = torch.stack([states[step][row] for row, step in zip(sources, steps.tolist(), strict=True)])
                mask_logits, _ = decode_masks(self.sam, self.mask_projection, said, image_index[rows], **for_sam)
        sizes = for_sam["original_sizes"][image_index].tolist()
        masks = [
            torch.cat([new.new_zeros(0, *size), *(logits[None] for logits in part)]) > 0
            for part, size in zip(_by_row(mask_logits, counts), sizes, strict=True)
        ]
        return LisaAnswers(sequences=output.sequences, masks=masks)

    def _embeddings(
        self, input_ids: torch.Tensor, image_index: torch.Tensor, pixel_values: torch.Tensor
    ) -> torch.Tensor:
        """Token embeddings `[B, S, hidden]` with each sequence's image in its place."""
        llava = self.llava.model
        embeddings = self.get_input_embeddings()(input_ids)
        with no_grad_if_frozen(llava.vision_tower, llava.multi_modal_projector):
            features = torch.stack(list(llava.get_image_features(pixel_values, return_dict=True).pooler_output))
        features = features[image_index].to(embeddings.dtype)
        return embeddings.masked_scatter(llava.get_placeholder_mask(input_ids, embeddings, features), features)


def _by_row(masks: list[torch.Tensor], counts: list[int]) -> list[list[torch.Tensor]]:
    remaining = iter(masks)
    return [[next(remaining) for _ in range(count)] for count in counts]
