"""LISA against the models that it is made of, the formulas of its losses, and itself after saving."""

from functools import partial

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SamConfig,
    SamImageProcessor,
    TrainingArguments,
)
from trl import ModelConfig, get_peft_config

from recipes import reasonseg
from tests.support import tiny
from tests.support.processes import launch
from vlm_recipes.callbacks import MaskIoUCallback
from vlm_recipes.collators import SegmentationCollator
from vlm_recipes.eval.metrics.baselines import best_constant_mask
from vlm_recipes.eval.metrics.masks import mask_metrics
from vlm_recipes.models.checkpoints import CheckpointError
from vlm_recipes.models.lisa.config import LisaConfig
from vlm_recipes.models.lisa.loading import load_lisa, with_adapter
from vlm_recipes.models.lisa.loss import mask_losses, token_loss
from vlm_recipes.models.lisa.mask_decoding import enlarge
from vlm_recipes.rows.conventions import SEG_TOKEN
from vlm_recipes.training.trainers import LisaTrainer

LAUNCHES = [launch.ddp, *(pytest.param(partial(launch.deepspeed, i), marks=pytest.mark.slow) for i in (2, 3))]

PARTS = (LlavaConfig, SamConfig)
LAYERS = ("CLIPEncoderLayer", "LlamaDecoderLayer", "SamVisionLayer")
LLAVA_INPUTS = ("input_ids", "attention_mask", "labels")


def load(name=None, sam=None, to_train=False, dtype="float32", **model):
    torch.manual_seed(0)
    llava, own_sam = tiny.lisa()
    model = ModelConfig(str(name or llava), dtype=dtype, **model)
    return load_lisa(model, str(sam or own_sam), to_train)


def to_device(network, batch):
    return {key: value.to(network.device) if hasattr(value, "to") else value for key, value in batch.items()}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A LISA that has learnt the rows by heart, saved whole."""
    network, processor = load(to_train=True)
    network.config.ce_weight = 0.05
    folder, collator = tmp_path_factory.mktemp("lisa"), SegmentationCollator(processor)
    return tiny.learn_by_heart(network, processor, collator, tiny.mask_rows(), folder, steps=100, learning_rate=3e-3)


def prompts(processor, rows):
    return SegmentationCollator(processor, prompt_only=True)(rows)


def answers(network, processor, rows, **settings):
    """Texts, and masks, of what the model generates."""
    batch = prompts(processor, rows)
    output = network.generate_masks(**batch, max_new_tokens=20, **settings)
    new = output.sequences[:, batch["input_ids"].shape[1] :]
    texts = [processor.tokenizer.decode(ids[~torch.isin(ids, torch.tensor([0, 1, 2]))]) for ids in new]
    pad = processor.tokenizer.pad_token
    return [text.replace(pad, "").replace("</s>", "").strip() for text in texts], output


# --- The losses -----------------------------------------------------------------------------------------------------


def by_hand(logits: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """LISA's formulas over the pixels that count."""
    x, t = logits[mask != 255].astype(np.float64), mask[mask != 255].astype(np.float64)
    p = 1 / (1 + np.exp(-x))
    bce = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean() if len(x) else 0.0
    overlap, p_area, t_area = (p / 1000 * t).sum(), (p / 1000).sum(), (t / 1000).sum()
    return bce, 1 - (2 * overlap + 1e-6) / (p_area + t_area + 1e-6)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
mask_values = st.sampled_from([[0], [1], [255], [0, 1], [0, 1, 255]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(shapes, mask_values), max_size=4), st.integers(0, 2**16))
def test_mask_losses_are_the_formulas_by_hand(drawn, seed):
    rng = np.random.default_rng(seed)
    logits = [rng.normal(0, 3, shape).astype(np.float32) for shape, _ in drawn]
    masks = [rng.choice(values, shape).astype(np.uint8) for shape, values in drawn]
    bce, dice = mask_losses([torch.tensor(one) for one in logits], [torch.tensor(one) for one in masks])
    expected = np.array([by_hand(*pair) for pair in zip(logits, masks, strict=True)]).reshape(-1, 2).sum(0)
    expected = expected / (len(drawn) + 1e-8)
    np.testing.assert_allclose([bce.item(), dice.item()], expected, rtol=2e-4, atol=1e-5)


def test_bce_is_torchvision_s_focal_loss_without_focus():
    logits, mask = torch.randn(5, 7), torch.randint(0, 2, (5, 7), dtype=torch.uint8)
    expected = sigmoid_focal_loss(logits, mask.float(), alpha=-1, gamma=0, reduction="mean")
    torch.testing.assert_close(mask_losses([logits], [mask])[0], expected)


def test_an_ignored_pixel_changes_neither_a_loss_nor_a_gradient():
    logits, mask = torch.randn(6, 6), torch.randint(0, 2, (6, 6), dtype=torch.uint8)
    mask[2:4] = 255
    first, second = logits.clone().requires_grad_(), logits.clone()
    second[2:4] = 50.0
    losses = mask_losses([first], [mask])
    assert torch.equal(torch.stack(losses), torch.stack(mask_losses([second], [mask])))
    sum(losses).backward()
    assert not first.grad[2:4].any() and first.grad[:2].all()


def test_losses_are_divided_by_the_numbers_they_are_given():
    logits, masks = [torch.randn(4, 4) for _ in range(3)], [torch.ones(4, 4, dtype=torch.uint8)] * 3
    torch.testing.assert_close(
        torch.stack(mask_losses(logits, masks, 12)), torch.stack(mask_losses(logits, masks)) / 4
    )
    logits, targets = torch.randn(5, 9), torch.arange(5)
    torch.testing.assert_close(token_loss(logits, targets), F.cross_entropy(logits, targets))
    torch.testing.assert_close(token_loss(logits, targets, 20), F.cross_entropy(logits, targets) / 4)


# --- The model against its parts ------------------------------------------------------------------------------------


def test_the_loss_of_tokens_is_llava_s():
    network, processor = load()
    batch = SegmentationCollator(processor)(tiny.mask_rows())
    llava = network.llava(**{key: batch[key] for key in LLAVA_INPUTS}, pixel_values=batch["pixel_values"])
    torch.testing.assert_close(network(**batch).ce_loss, llava.loss)


def test_the_loss_is_the_weighted_sum_and_its_parts_are_those_of_the_masks():
    network, processor = load()
    network.config.ce_weight, network.config.bce_weight, network.config.dice_weight = 0.7, 1.3, 2.0
    batch = SegmentationCollator(processor)(tiny.mask_rows())
    output = network(**batch)
    expected = 0.7 * output.ce_loss + 1.3 * output.bce_loss + 2.0 * output.dice_loss
    torch.testing.assert_close(output.loss, expected)
    pairs = [
        (logit.detach().numpy(), mask.numpy())
        for row, masks in zip(output.mask_logits, batch["masks"], strict=True)
        for logit, mask in zip(row, masks, strict=True)
    ]
    assert [logit.shape for logit, _ in pairs] == [(64, 48), (40, 80), (40, 80), (48, 64)]
    expected = np.mean([by_hand(*pair) for pair in pairs], axis=0)
    np.testing.assert_allclose([output.bce_loss.item(), output.dice_loss.item()], expected, rtol=1e-4)


def test_masks_are_those_of_sam_itself_for_the_projected_states(learnt):
    """SAM's own forward, given our sparse prompt in place of a point's, and its own processing after."""
    network, processor = load(learnt)
    row = tiny.mask_rows()[2]
    batch = SegmentationCollator(processor)([row])
    llava = network.llava(
        **{key: batch[key] for key in LLAVA_INPUTS}, pixel_values=batch["pixel_values"], output_hidden_states=True
    )
    said = (batch["input_ids"][0] == network.config.seg_token_id).nonzero().flatten()
    sparse = network.mask_projection(llava.hidden_states[-1][0, said - 1])[None, :, None]
    encoder = network.sam.prompt_encoder
    of_nothing = encoder(None, None, None, None)[1]
    encoder.forward = lambda **prompts: (sparse, of_nothing)
    predicted = network.sam(batch["sam_pixel_values"], input_points=torch.zeros(1, 2, 1, 2), multimask_output=False)
    expected = processor.sam_image_processor.post_process_masks(
        list(predicted.pred_masks.transpose(1, 2)),
        batch["original_sizes"],
        batch["reshaped_input_sizes"],
        binarize=False,
    )
    assert isinstance(processor.sam_image_processor, SamImageProcessor)
    torch.testing.assert_close(torch.stack(network(**batch).mask_logits[0]), expected[0][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (32, 32), (5, 90)], ids=str)
def test_masks_are_enlarged_as_sam_s_own_processor_does_it(size):
    logits = torch.randn(16, 16)
    filled = [round(side * 32 / max(size)) for side in size]
    processor = SamImageProcessor(pad_size={"height": 32, "width": 32})
    expected = processor.post_process_masks([logits[None, None]], [size], [filled], binarize=False)
    assert torch.equal(enlarge(logits, 32, filled, size), expected[0][0, 0])


def test_the_parts_configurations_are_as_they_were_given():
    llava, sam = (config.from_pretrained(folder) for config, folder in zip(PARTS, tiny.lisa(), strict=True))
    llava.text_config.dtype, llava.text_config._attn_implementation = torch.bfloat16, "eager"
    before = llava.to_dict(), sam.to_dict()
    config = LisaConfig(llava, sam, seg_token_id=3)
    assert config.llava is llava and (llava.to_dict(), sam.to_dict()) == before
    assert llava.text_config.dtype == torch.bfloat16


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_llava_s_attention_is_the_one_asked_for(learnt, attention):
    for name in (None, learnt):  # new, whole
        network, _ = load(name, attn_implementation=attention)
        assert network.llava.config.get_text_config()._attn_implementation == attention


def test_an_image_passes_each_tower_once_however_many_queries_ask_about_it():
    network, processor = load()
    row = tiny.mask_rows()[0]
    rows = [{**row, "id": str(i)} for i in range(3)] + [tiny.mask_rows()[1]]
    seen = {}
    for name, tower in (("sam", network.sam.vision_encoder), ("clip", network.llava.model.vision_tower)):
        tower.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: seen.setdefault(name, []).append(
                len(args[0] if args else kwargs["pixel_values"])
            ),
            with_kwargs=True,
        )
    shared = network(**SegmentationCollator(processor)(rows))
    assert seen == {"sam": [2], "clip": [2]}
    apart = network(**SegmentationCollator(processor)([{**row, "image_id": row["id"]} for row in rows]))
    torch.testing.assert_close(shared.loss, apart.loss)


def test_another_number_of_masks_than_of_seg_is_an_error():
    network, processor = load()
    batch = SegmentationCollator(processor)(tiny.mask_rows())
    batch["masks"][0] = batch["masks"][0][:0]
    with pytest.raises(ValueError, match=r"say \[SEG\] \[1, 0, 2, 1\] times and have \[0, 0, 2, 1\] masks"):
        network(**batch)


def test_a_row_without_seg_trains_its_tokens_alone_and_adds_nothing_to_the_masks():
    network, processor = load(to_train=True)
    collator = SegmentationCollator(processor)
    silent = network(**collator(tiny.mask_rows()[1:2]))
    assert silent.bce_loss == silent.dice_loss == 0
    torch.testing.assert_close(silent.loss, silent.ce_loss)
    silent.loss.backward()
    for part in (network.mask_projection, network.sam.mask_decoder, network.sam.vision_encoder):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert gradients and not any(gradient.any() for gradient in gradients)  # there for DDP, and zero
    assert network.llava.lm_head.weight.grad.any()
    row = tiny.mask_rows()[0]
    alone, both = network(**collator([row])), network(**collator([row, tiny.mask_rows()[1]]))
    torch.testing.assert_close(alone.bce_loss, both.bce_loss)
    torch.testing.assert_close(alone.dice_loss, both.dice_loss)


@pytest.mark.parametrize("says_seg", [False, True])
def test_what_of_the_mask_decoder_no_loss_reads_may_overflow_and_leaves_loss_and_gradients_as_they_are(says_seg):
    """The quality of a mask; and where no row says [SEG] the mask itself, which DDP alone needs."""
    network, processor = load(to_train=True)
    decoder, overflown = network.sam.mask_decoder, []
    decoder.iou_prediction_head.proj_out.weight.data.fill_(3e38)
    if not says_seg:
        decoder.output_hypernetworks_mlps[0].proj_out.bias.data.fill_(3e38)
    decoder.register_forward_hook(lambda module, inputs, outputs: overflown.extend(outputs))
    output = network(**SegmentationCollator(processor)(tiny.mask_rows()[: 1 if says_seg else 2][-1:]))
    assert [bool(part.isfinite().all()) for part in overflown[:2]] == [says_seg, False]
    assert output.loss.isfinite() and (says_seg or output.loss == output.ce_loss)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    quality = [gradient for name, gradient in gradients.items() if "iou_prediction_head" in name]
    assert quality and not any(gradient.any() for gradient in quality)


# --- Generating -----------------------------------------------------------------------------------------------------


def test_it_says_seg_itself_and_draws_the_masks_it_was_taught(learnt):
    network, processor = load(learnt)
    rows = tiny.mask_rows()
    texts, output = answers(network, processor, rows)
    assert [text.replace(" ", "") for text in texts] == [row["answer"].replace(" ", "") for row in rows]
    batch = SegmentationCollator(processor)(rows)
    for row, masks, targets in zip(rows, output.masks, batch["masks"], strict=True):
        assert masks.dtype == torch.bool and masks.shape == targets.shape == (
            len(row["masks"]),
            *row["image"].size[::-1],
        )
        for mask, target in zip(masks, targets == 1, strict=True):
            assert (mask & target).sum() / (mask | target).sum() > 0.5


@pytest.mark.parametrize("beams", [1, 3])
def test_generated_masks_are_those_of_feeding_the_whole_answer_again(learnt, beams):
    network, processor = load(learnt)
    rows = tiny.mask_rows()
    prompt = prompts(processor, rows)
    output = network.generate_masks(**prompt, max_new_tokens=20, num_beams=beams)
    labels = output.sequences.clone()
    labels[:, : prompt["input_ids"].shape[1]] = -100
    new = torch.ones_like(labels[:, prompt["input_ids"].shape[1] :])
    again = network(
        **{**prompt, "input_ids": output.sequences, "labels": labels, "masks": [m.byte() for m in output.masks]}
        | {"attention_mask": torch.cat([prompt["attention_mask"], new], 1)}
    )
    for masks, logits in zip(output.masks, again.mask_logits, strict=True):
        assert len(masks) == len(logits)
        for mask, logit in zip(masks, logits, strict=True):
            assert torch.equal(mask | (logit.abs() < 1e-3), (logit > 0) | (logit.abs() < 1e-3))


def test_a_batch_gives_what_its_rows_give_one_by_one(learnt):
    network, processor = load(learnt)
    texts, output = answers(network, processor, tiny.mask_rows())
    for row, text, masks in zip(tiny.mask_rows(), texts, output.masks, strict=True):
        [alone], single = answers(network, processor, [row])
        assert alone == text and single.masks[0].shape == masks.shape
        assert (single.masks[0] ^ masks).sum() <= 1e-3 * masks.numel()


@pytest.mark.parametrize("bits", [None, 4])
def test_sixteen_bits_answer_without_a_trainer_around_them(bits, learnt, tmp_path):
    quantised = {"load_in_4bit": True} if bits else {}
    network, processor = lisa_to_train(**quantised)
    network.save_pretrained(tmp_path)
    network.get_base_model().config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for name in (None, learnt, tmp_path):  # new, whole, adapter
        network, processor = load(name, dtype="bfloat16", **quantised)
        _, output = answers(network, processor, tiny.mask_rows())
        assert [masks.shape[1:] for masks in output.masks] == [(64, 48), (64, 64), (40, 80), (48, 64)]


def test_a_whole_model_in_sixteen_bits_is_so_as_a_whole_but_for_sam_s_positions(learnt):
    network, _ = load(learnt, dtype="bfloat16")
    whole = {name for name, parameter in network.named_parameters() if parameter.dtype != torch.bfloat16}
    assert whole == {"sam.shared_image_embedding.positional_embedding"}


def test_several_answers_to_one_question_have_masks_of_their_own(learnt):
    network, processor = load(learnt)
    _, output = answers(network, processor, tiny.mask_rows()[::2], do_sample=True, num_return_sequences=3)
    assert [masks.shape[1:] for masks in output.masks] == [(64, 48)] * 3 + [(40, 80)] * 3


def test_the_callback_logs_giou_and_ciou_of_masks_in_anybody_s_trainer(learnt, tmp_path):
    network, processor = load(learnt, to_train=True)
    args = TrainingArguments(
        tmp_path,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        max_steps=1,
        learning_rate=0.0,
        eval_strategy="steps",
        eval_steps=1,
        remove_unused_columns=False,
        prediction_loss_only=True,
    )
    rows, collator = tiny.mask_rows(), SegmentationCollator(processor)
    trainer = LisaTrainer(network, args, data_collator=collator, train_dataset=rows[:1], eval_dataset=rows[:1])
    constant = best_constant_mask([row["masks"] for row in rows])
    watch = MaskIoUCallback(
        trainer, rows, SegmentationCollator(processor, prompt_only=True), constant, kinds=("drawn",)
    )
    trainer.add_callback(watch)
    trainer.train()
    [log] = [log for log in trainer.state.log_history if "eval_giou" in log]
    predicted = [row["prediction"]["masks"] for row in watch.predictions]
    expected = mask_metrics(predicted, [row["masks"] for row in rows], [row["ignore"] for row in rows])
    assert log["eval_giou"] == pytest.approx(expected["giou"].value)
    assert log["eval_ciou"] == pytest.approx(expected["ciou"].value)
    assert log["eval_giou"] > log["eval_baseline_giou"] and log["eval_giou_drawn_n"] == 4


# --- What trains, what is saved -------------------------------------------------------------------------------------


def lisa_to_train(**model):
    llava, sam = tiny.lisa()
    model |= {} if model.get("tune") in ("decoder", "all") else {"lora_dropout": 0.0}
    model = reasonseg.Model(model_name_or_path=str(llava), sam_name_or_path=str(sam), dtype="float32", **model)
    torch.manual_seed(0)
    return reasonseg.load(reasonseg.Data(), model, output_dir="out")


def part_of(name: str) -> str:
    parts = ("lora_", "lm_head", "embed_tokens", "mask_decoder", "mask_projection")
    return next((part for part in parts if part in name), "other")


def test_exactly_the_parts_that_the_paper_names_train():
    network, _ = lisa_to_train()
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {part_of(name) for name in trainable} == {
        "lora_",
        "lm_head",
        "embed_tokens",
        "mask_decoder",
        "mask_projection",
    }
    lora = {name.split(".lora_")[0].split("llava.")[1] for name in trainable if "lora_" in name}
    layers = range(network.config.llava.text_config.num_hidden_layers)
    assert lora == {f"model.language_model.layers.{i}.self_attn.{name}_proj" for i in layers for name in "qv"}
    decoder = {name.split("default.")[1] for name in trainable if "mask_decoder" in name}
    assert decoder == {name for name, _ in load()[0].sam.mask_decoder.named_parameters()}


def test_frozen_parts_neither_move_nor_hold_a_graph_and_every_trained_part_moves():
    network, processor = lisa_to_train()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    outputs = {}
    for name, module in (("sam", network.sam.vision_encoder), ("clip", network.llava.model.multi_modal_projector)):
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.__setitem__(name, output))
    network.train()
    batch = SegmentationCollator(processor)(tiny.mask_rows())
    for _ in range(2):  # LoRA's A has no gradient before B has moved
        network(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not outputs["clip"].requires_grad and not outputs["sam"].last_hidden_state.requires_grad
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {part_of(name) for name in moved} == {"lora_", "lm_head", "embed_tokens", "mask_decoder", "mask_projection"}
    still = {
        name for name in before if name not in moved and part_of(name) != "other" and "original_module" not in name
    }
    unreached = (
        "iou_prediction_head",
        "output_hypernetworks_mlps",
        "original",
        "base_layer",
    )  # no loss asks for these
    assert not [name for name in still if before[name].requires_grad and not any(part in name for part in unreached)]


def train(network, processor, folder, rows, **settings):
    defaults = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    defaults |= {"max_steps": 1, "learning_rate": 1e-2, "remove_unused_columns": False, "optim": "sgd"}
    resumed = settings.pop("resume_from_checkpoint", None)
    args = TrainingArguments(folder, **(defaults | settings))
    collator = SegmentationCollator(processor)
    trainer = LisaTrainer(network, args, data_collator=collator, train_dataset=rows, processing_class=processor)
    trainer.train(resume_from_checkpoint=resumed)
    return trainer


class Engine(torch.nn.Module):
    """As DeepSpeed's: evaluating, it still says of itself that it trains."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def eval(self):
        self.module.train(False)

    def forward(self, **inputs):
        return self.module(**inputs)


def test_an_engine_that_always_says_it_trains_is_evaluated_by_the_batch_alone(tmp_path):
    network, processor = load(to_train=True)
    trainer = train(network, processor, tmp_path, tiny.mask_rows()[:2], max_steps=1)
    batch, engine = SegmentationCollator(processor)(tiny.mask_rows()), Engine(network)
    engine.eval()
    assert engine.training and not network.training
    with torch.no_grad():
        alone = network(**batch).loss.item()
        assert trainer.compute_loss(engine, dict(batch)).item() == pytest.approx(alone)
        assert trainer.compute_loss(engine, dict(batch), num_items_in_batch=7).item() == pytest.approx(alone)


def logged(trainer_log):
    names = ("loss", "loss_ce", "loss_bce", "loss_dice", "grad_norm")
    return torch.tensor([next(log[name] for log in trainer_log if name in log) for name in names])


def test_loss_and_gradient_do_not_depend_on_how_a_batch_is_split(tmp_path):
    seen = []
    for size, accumulation in [(4, 1), (2, 2), (1, 4)]:
        network, processor = load(to_train=True)
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        trainer = train(network, processor, tmp_path, tiny.mask_rows(), **settings)
        seen.append(logged(trainer.state.log_history))
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen[0], seen[2], rtol=1e-4, atol=1e-6)
    network, processor = load()
    whole = network(**SegmentationCollator(processor)(tiny.mask_rows()))
    expected = torch.stack([whole.loss, whole.ce_loss, whole.bce_loss, whole.dice_loss])
    torch.testing.assert_close(seen[0][:4], expected.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("launched", LAUNCHES, ids=["ddp", "zero2", "zero3"])
def test_two_processes_of_which_one_sees_no_mask_train_as_one(launched, tmp_path):
    first, second = (logged(result["log"]) for result in launched("mask_losses"))
    network, processor = load(to_train=True)
    rows = [tiny.mask_rows()[i] for i in (1, 1, 2, 3)]
    trainer = train(network, processor, tmp_path, rows, per_device_train_batch_size=4, max_grad_norm=1e-3)
    torch.testing.assert_close(first, logged(trainer.state.log_history), rtol=1e-4, atol=1e-6)
    assert torch.equal(first, second)


def test_the_parts_are_logged_as_the_mean_over_the_steps_since_the_last_log(tmp_path):
    settings = {"per_device_train_batch_size": 1, "max_steps": 4, "learning_rate": 0.0}
    network, processor = load(to_train=True)
    each = train(network, processor, tmp_path, tiny.mask_rows(), **settings).state.log_history
    network, processor = load(to_train=True)
    twice = train(network, processor, tmp_path, tiny.mask_rows(), logging_steps=2, **settings).state.log_history
    for name in ("loss", "loss_ce", "loss_bce", "loss_dice"):
        single = [log[name] for log in each if name in log]
        expected = [(single[0] + single[1]) / 2, (single[2] + single[3]) / 2]
        assert [log[name] for log in twice if name in log] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    seen = []
    for checkpointing in (False, True):
        network, processor = lisa_to_train()
        settings = {"per_device_train_batch_size": 4, "gradient_checkpointing": checkpointing}
        seen.append(logged(train(network, processor, tmp_path, tiny.mask_rows(), **settings).state.log_history))
        switched = [module.gradient_checkpointing for module in network.modules() if type(module).__name__ in LAYERS]
        assert len(switched) == 2 + 1 + 1 and set(switched) == {checkpointing}  # of CLIP, Llama and SAM
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-5, atol=1e-6)


def same_answers(first, second):
    (texts, output), (again, reloaded) = first, second
    assert texts == again
    assert all(torch.equal(*masks) for masks in zip(output.masks, reloaded.masks, strict=True))


def test_a_whole_model_reloads_to_identical_masks(learnt, tmp_path):
    network, processor = load(learnt, sam="not read")
    assert {file.name for file in learnt.iterdir() if file.suffix in (".bin", ".pt", ".pkl")} == set()
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    rows = tiny.mask_rows()
    same_answers(answers(network, processor, rows), answers(*load(tmp_path, sam="not read"), rows))
    assert sum(len(masks) for masks in answers(network, processor, rows)[1].masks) == 4


@pytest.mark.parametrize("bits", [None, 4])
def test_an_adapter_reloads_with_its_llava_and_sam_to_identical_masks(bits, tmp_path):
    quantised = {"load_in_4bit": True, "use_bnb_nested_quant": True} if bits else {}
    network, processor = lisa_to_train(**quantised)
    rows = tiny.mask_rows()
    settings = {"per_device_train_batch_size": 4, "max_steps": 20, "optim": "adamw_torch_fused"}
    trainer = train(network, processor, tmp_path, rows, **settings)
    trainer.save_model()
    files = {file.name for file in tmp_path.iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "config.json",
    } <= files and "model.safetensors" not in files
    network.eval()
    expected = answers(network, processor, rows)
    again, processor = load(tmp_path, sam="not read", **quantised)
    assert isinstance(again, PeftModel) and not any(parameter.requires_grad for parameter in again.parameters())
    assert not again.training  # or its dropout would answer, too
    same_answers(expected, answers(again, processor, rows))
    assert sum(len(masks) for masks in expected[1].masks) > 0
    more, processor = load(tmp_path, to_train=True, **quantised)
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, parameter in more.named_parameters() if parameter.requires_grad}


def test_four_bits_hold_both_towers_and_none_of_the_trained_parts():
    network, processor = lisa_to_train(load_in_4bit=True)
    quantised = {name for name, module in network.named_modules() if isinstance(module, Linear4bit)}
    for tower in ("llava.model.language_model", "llava.model.vision_tower", "sam.vision_encoder"):
        assert [name for name in quantised if tower in name], tower
    whole = ("lm_head", "mask_decoder", "prompt_encoder", "mask_projection")
    assert not [name for name in quantised if any(part in name for part in whole)]
    output = network(**to_device(network, SegmentationCollator(processor)(tiny.mask_rows())))
    output.loss.backward()
    assert torch.isfinite(output.loss)


def test_a_whole_model_loads_in_four_bits_as_an_adapter_s_base_does(learnt):
    network, _ = load(learnt, sam="not read", load_in_4bit=True)
    quantised = {name for name, module in network.named_modules() if isinstance(module, Linear4bit)}
    base, _ = load(load_in_4bit=True)
    assert quantised == {name for name, module in base.named_modules() if isinstance(module, Linear4bit)}


@pytest.mark.parametrize("tune", ["lisa", "all"])
def test_training_resumes_from_a_checkpoint_and_the_best_one_comes_back(tune, tmp_path):
    settings = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    network, processor = lisa_to_train(tune=tune)
    straight = train(network, processor, tmp_path, tiny.mask_rows(), max_steps=4, **settings).state.log_history
    network, processor = lisa_to_train(tune=tune)
    resumed = {"resume_from_checkpoint": str(tmp_path / "checkpoint-2")}
    trainer = train(network, processor, tmp_path, tiny.mask_rows(), max_steps=4, **settings, **resumed)
    losses = [
        [log["loss"] for log in history if "loss" in log][-2:] for history in (straight, trainer.state.log_history)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    last = network(**SegmentationCollator(processor)(tiny.mask_rows())).loss.item()
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-2")
    trainer._load_best_model()
    best = network(**SegmentationCollator(processor)(tiny.mask_rows())).loss.item()
    assert best == pytest.approx(losses[0][0], rel=1e-4) and abs(best - last) > 1e-3  # the loss at step 3 is before it


def test_an_adapter_to_a_whole_lisa_comes_back_on_it_and_not_on_the_first_llava(learnt, tmp_path):
    model = reasonseg.Model(model_name_or_path=str(learnt), dtype="float32", lora_dropout=0.0)
    network, processor = reasonseg.load(reasonseg.Data(), model, output_dir="out")
    trainer = train(network, processor, tmp_path, tiny.mask_rows(), per_device_train_batch_size=4)
    trainer.save_model()
    batch = SegmentationCollator(processor)(tiny.mask_rows())
    again, _ = load(tmp_path, sam="not read")
    torch.testing.assert_close(network.eval()(**batch).loss, again.eval()(**batch).loss)


def test_another_sam_than_that_of_a_run_s_model_is_refused(learnt):
    model = reasonseg.Model(model_name_or_path=str(learnt), sam_name_or_path="another", dtype="float32")
    with pytest.raises(CheckpointError, match=f"^--sam_name_or_path another has no effect: {learnt} was made with "):
        reasonseg.load(reasonseg.Data(), model)


@pytest.mark.parametrize("tune", ["lisa", "seg"])
def test_lora_cannot_be_left_out_where_it_trains(tune):
    with pytest.raises(CheckpointError, match="^--use_peft False has no effect: what trains here is LoRA$"):
        lisa_to_train(tune=tune, use_peft=False)
    lisa_to_train(tune="decoder", use_peft=False)


def test_everything_trains_whole_and_is_reached_or_refused():
    network, processor = lisa_to_train(tune="all")
    network(**SegmentationCollator(processor)(tiny.mask_rows())).loss.backward()
    trainable = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert not [name for name, parameter in trainable.items() if parameter.grad is None]
    frozen = {name.split(".layers")[0] for name in dict(network.named_parameters()).keys() - trainable.keys()}
    assert all(any(part in name for part in ("vision_tower", "prompt_encoder", "shared_image")) for name in frozen)
    with pytest.raises(CheckpointError, match="not quantised"):
        lisa_to_train(tune="all", load_in_4bit=True)


def test_what_is_no_llava_or_lacks_weights_is_refused_in_one_line(learnt, tmp_path):
    for name, sam, says in [
        (tiny.qwen2_vl(), None, "LISA is made of a LLaVA-1.5, and this is qwen2_vl"),
        (tmp_path / "nowhere", None, "there is no such folder"),
        (None, tmp_path / "no_sam", "no_sam"),
    ]:
        with pytest.raises(CheckpointError, match=says) as refused:
            load(name, sam)
        assert "\n" not in str(refused.value)
    network = get_peft_model(load()[0], get_peft_config(reasonseg.Model(use_peft=True)))
    network.save_pretrained(tmp_path)
    network.config.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no adapter_model.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("spare", [0, 10])
def test_the_new_token_starts_as_the_mean_of_the_others_in_both_embeddings(spare, tmp_path):
    """LLaVA-1.5 has rows to spare."""
    original = LlavaForConditionalGeneration.from_pretrained(tiny.lisa()[0])
    rows = original.get_input_embeddings().num_embeddings
    original.resize_token_embeddings(rows + spare, mean_resizing=False)
    original.save_pretrained(tmp_path)
    LlavaProcessor.from_pretrained(tiny.lisa()[0]).save_pretrained(tmp_path)
    network, processor = load(tmp_path)
    assert network.get_input_embeddings().num_embeddings == rows + (spare or 1)
    place = network.config.seg_token_id
    assert (
        processor.tokenizer.convert_tokens_to_ids(SEG_TOKEN) == place
        and SEG_TOKEN not in processor.tokenizer.all_special_tokens
    )
    for ours, theirs in (
        (network.get_input_embeddings(), original.get_input_embeddings()),
        (network.get_output_embeddings(), original.get_output_embeddings()),
    ):
        torch.testing.assert_close(ours.weight[place], theirs.weight[:place].mean(0))
        assert torch.equal(ours.weight[:place], theirs.weight[:place])


def test_a_llava_that_knows_seg_keeps_what_it_has_learnt_of_it_and_of_all_other_tokens(tmp_path):
    """Only a token that is added starts as the mean; `[SEG]` was once taken for the last one."""
    llava, sam = tiny.lisa()
    network, processor = LlavaForConditionalGeneration.from_pretrained(llava), LlavaProcessor.from_pretrained(llava)
    processor.tokenizer.add_tokens([SEG_TOKEN, "<p>"])
    network.resize_token_embeddings(len(processor.tokenizer))
    for part in (network, processor):
        part.save_pretrained(tmp_path)
    made, own = load(tmp_path, sam)
    assert made.config.seg_token_id == processor.tokenizer.convert_tokens_to_ids(SEG_TOKEN)
    for was, now in zip(
        *((one.get_input_embeddings(), one.get_output_embeddings()) for one in (network, made.llava)), strict=True
    ):
        assert torch.equal(was.weight, now.weight)
    new, processor = load()
    weight, seg = new.get_input_embeddings().weight, new.config.seg_token_id
    assert torch.allclose(weight[seg], weight[:seg].mean(0)) and seg == len(processor.tokenizer) - 1


def test_a_part_to_train_whole_that_lisa_has_not_is_refused_by_its_name():
    network, _ = load(to_train=True)
    model = reasonseg.Model(lora_modules_to_save=["embed_tokens", "lm_head", "mask_decoders"])
    with pytest.raises(CheckpointError, match="^--lora_modules_to_save mask_decoders would train nothing"):
        with_adapter(network, model)
    with pytest.raises(CheckpointError, match="^--lora_alpha 7 has no effect: no layer of the language model trains"):
        with_adapter(network, reasonseg.Model(lora_alpha=7), lora=False)
