"""SurgViVQA against the models that it is made of, the reference's leak, and itself after saving."""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipTextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    TrainingArguments,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEModel,
)
from trl import ModelConfig

from demo.checkpoints.surgvivqa import write_surgvivqa
from recipes import ssg_vqa
from recipes.ssg_vqa import LABELS
from tests.support import tiny
from tests.support.running import QUIET
from vlm_recipes.collators import VideoCollator
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.generation.label_tree import LabelTree, choose_label
from vlm_recipes.models.checkpoints import CheckpointError
from vlm_recipes.models.surgvivqa.config import SurgViVqaConfig
from vlm_recipes.models.surgvivqa.loading import ATTENTION_AND_MLP, PARTS, load_surgvivqa, train_parts
from vlm_recipes.models.surgvivqa.model import SurgViVqaForConditionalGeneration
from vlm_recipes.training.trainers import ComposedTrainer

QUESTIONS = ("input_ids", "attention_mask", "video_index", "pixel_values")
FEW = ["grasp", "grasper", "10", "1", "specimen_bag", "abdominal_wall_cavity"]


def load(name=None, to_train=False, dtype="float32", **model):
    """The towers of what is loaded whole are not asked for by name."""
    torch.manual_seed(0)
    model = ModelConfig(str(name or tiny.surgvivqa()), dtype=dtype, **model)
    network, processor = load_surgvivqa(model, "not read", "not read", num_frames=6, to_train=to_train)
    return (network if to_train else network.eval()), processor


def lora(**more) -> LoraConfig:
    settings = {"r": 8, "lora_alpha": 32, "target_modules": ATTENTION_AND_MLP}
    return LoraConfig(**settings | more)


def collate(processor, rows=None, num_frames=2):
    return VideoCollator(processor, num_frames)(rows or tiny.video_rows())


def repeated(pixel_values: torch.Tensor, num_frames: int = 2) -> torch.Tensor:
    """A frame that stands still as VideoMAE itself reads it."""
    return pixel_values.repeat(1, num_frames, 1, 1, 1)


def questions(batch) -> dict[str, torch.Tensor]:
    return {key: batch[key] for key in QUESTIONS}


def labels_of(processor, labels) -> LabelTree:
    collator = VideoCollator(processor)
    return LabelTree([collator.answer_ids(label) for label in labels], processor.tokenizer.eos_token_id)


@torch.no_grad()
def one_by_one(network, batch, tree: LabelTree) -> tuple[torch.Tensor, torch.Tensor]:
    """Each label's score, as a mean and in sum, by a forward of its own that encodes video and question again."""
    means, sums = [], []
    for label in tree.labels:
        said = torch.tensor([*label, tree.end]).expand(len(batch["input_ids"]), -1)
        logits = network(**questions(batch), labels=said).logits
        of_tokens = logits.log_softmax(-1).gather(2, said[..., None])[..., 0]
        means.append(of_tokens.mean(1))
        sums.append(of_tokens.sum(1))
    return torch.stack(means, dim=1), torch.stack(sums, dim=1)


def few_scores(network, processor) -> torch.Tensor:
    return network.eval().score_labels(labels_of(processor, FEW), **questions(collate(processor)))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A SurgViVQA that has learnt the rows by heart, saved whole."""
    network, processor = load(to_train=True)
    network = train_parts(network, PARTS, None)
    folder, collator = tmp_path_factory.mktemp("surgvivqa"), VideoCollator(processor, num_frames=2)
    return tiny.learn_by_heart(network, processor, collator, tiny.video_rows(), folder, steps=80, learning_rate=3e-3)


# --- Nothing of the answer before its turn --------------------------------------------------------------------------


def changed_after(labels: torch.Tensor, place: int, token: int) -> torch.Tensor:
    """The labels with another `token` in each place behind `place` that has one."""
    changed = labels.clone()
    changed[:, place + 1 :][changed[:, place + 1 :] != -100] = token
    return changed


@pytest.mark.parametrize("instead", [7, -100], ids=["another", "none"])
def test_a_logit_does_not_change_by_one_bit_with_what_is_said_later(learnt, instead):
    network, processor = load(learnt)
    batch = collate(processor)
    logits = network(**batch).logits
    for place in range(batch["labels"].shape[1] - 1):  # the t-th logit has read the labels before t
        other = network(**questions(batch), labels=changed_after(batch["labels"], place - 1, instead)).logits
        assert torch.equal(other[:, : place + 1], logits[:, : place + 1])
    if instead != -100:
        assert not torch.equal(other[:, place + 1], logits[:, place + 1])  # what is said is read afterwards


def test_a_logit_is_the_same_when_the_answer_ends_there(learnt):
    network, processor = load(learnt)
    batch = collate(processor)
    logits = network(**batch).logits
    for length in range(1, logits.shape[1]):
        cut = network(**questions(batch), labels=batch["labels"][:, :length]).logits
        torch.testing.assert_close(cut, logits[:, :length], rtol=1e-5, atol=1e-5)


def test_the_states_of_a_question_are_bit_for_bit_the_same_whatever_the_answer(learnt):
    network, processor = load(learnt)
    batch = collate(processor)
    read = []
    network.decoder.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    for answer in (batch["labels"], changed_after(batch["labels"], -1, 7), batch["labels"].roll(1, dims=0)):
        network(**questions(batch), labels=answer)
    length = batch["input_ids"].shape[1]
    states = [embeddings[:, :length] for embeddings in read]
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
    assert torch.equal(states[0], network.encode(**questions(batch)))


@pytest.mark.parametrize("taught", [False, True])
def test_the_reference_s_way_lets_the_answer_into_the_logits_before_it(learnt, taught):
    """Question and answer through the text encoder, which reads both ways unless it is told otherwise."""
    network, processor = load(learnt if taught else None)
    row = tiny.video_rows()[0]
    video = network.video(repeated(collate(processor, [row])["pixel_values"])).last_hidden_state
    length = len(processor.question_tokenizer(row["prompt"], add_special_tokens=False).input_ids)

    def before_the_answer(answer: str, **reading) -> torch.Tensor:
        text = processor.question_tokenizer(f"{row['prompt']} {answer}", add_special_tokens=False, return_tensors="pt")
        states = network.text_encoder(
            input_ids=text.input_ids, attention_mask=text.attention_mask, encoder_hidden_states=video, **reading
        ).last_hidden_state
        logits = network.decoder(inputs_embeds=states, attention_mask=text.attention_mask).logits
        return logits[0, :length]  # the last of them predicts the answer's first token

    one, other = (before_the_answer(answer) for answer in ("doing", "liver"))
    assert one.shape == other.shape and ((one - other).abs().amax(1) > 1e-4).all()
    one, other = (before_the_answer(answer, is_decoder=True) for answer in ("doing", "liver"))
    assert torch.equal(one, other)


# --- The model against its parts ------------------------------------------------------------------------------------


def alone(network, processor, row):
    """GPT-2's own loss of one row, in sum, and its logits of the answer; nothing padded."""
    batch = collate(processor, [row])
    states = network.text_encoder(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        encoder_hidden_states=network.video(repeated(batch["pixel_values"])).last_hidden_state,
    ).last_hidden_state
    said = batch["labels"]
    embeddings = torch.cat([states, network.decoder.transformer.wte(said)], dim=1)
    labels = torch.cat([torch.full(states.shape[:2], -100), said], dim=1)
    output = network.decoder(inputs_embeds=embeddings, labels=labels)
    length = states.shape[1]
    return output.loss * said.numel(), output.logits[0, length - 1 : length - 1 + said.numel()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_frame_that_the_model_repeats_is_to_the_bit_as_many_copies_of_it(dtype):
    network, processor = load(to_train=True)
    network = train_parts(network, PARTS, None).to(getattr(torch, dtype)).eval()
    batch = collate(processor)
    copies = batch | {"pixel_values": repeated(batch["pixel_values"])}
    assert batch["pixel_values"].nbytes * 2 == copies["pixel_values"].nbytes
    losses, gradients = [], []
    for inputs in (batch, copies):
        network.zero_grad()
        losses.append(network(**inputs).loss)
        losses[-1].backward()
        gradients.append([weight.grad for weight in network.video.parameters() if weight.grad is not None])
    assert torch.equal(*losses) and gradients[0] and any(one.any() for one in gradients[0])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    answers = [network.generate(**questions(inputs), max_new_tokens=3) for inputs in (batch, copies)]
    scores = [network.score_labels(labels_of(processor, FEW), **questions(inputs)) for inputs in (batch, copies)]
    assert torch.equal(*answers) and torch.equal(*scores)


def test_the_loss_and_the_logits_are_gpt_2_s_own_of_each_row_by_itself(learnt):
    for name in (None, learnt):
        network, processor = load(name)
        rows = tiny.video_rows()
        batch = collate(processor)
        assert (batch["attention_mask"] == 0).any() and (batch["labels"] == -100).any()
        output = network(**batch)
        expected = [alone(network, processor, row) for row in rows]
        for logits, (_, of_row) in zip(output.logits, expected, strict=True):
            torch.testing.assert_close(logits[: len(of_row)], of_row, rtol=1e-5, atol=1e-5)
        tokens = (batch["labels"] != -100).sum()
        torch.testing.assert_close(output.loss, sum(loss for loss, _ in expected) / tokens)


def test_the_loss_is_cross_entropy_over_the_answers_and_their_ends_divided_by_what_it_is_given():
    network, processor = load()
    batch = collate(processor)
    end, output = processor.tokenizer.eos_token_id, network(**batch)
    total, tokens, ends = 0.0, 0, 0
    for logits, labels in zip(output.logits.double(), batch["labels"].tolist(), strict=True):
        for at, label in zip(logits, labels, strict=True):
            if label != -100:
                total = total - at[label] + at.exp().sum().log()
                tokens, ends = tokens + 1, ends + (label == end)
    assert ends == 4
    torch.testing.assert_close(output.loss.double(), total / tokens)
    for items in (100, torch.tensor(100)):
        torch.testing.assert_close(network(**batch, num_items_in_batch=items).loss.double(), total / 100)


def test_a_question_s_logits_depend_on_neither_longer_questions_nor_other_videos(learnt):
    network, processor = load(learnt)
    rows = tiny.video_rows()
    longer = rows[1] | {"id": "long", "prompt": rows[1]["prompt"] * 4, "image_id": "other"}
    together = network(**collate(processor, [*rows, longer])).logits
    for i, row in enumerate(rows):
        apart = network(**collate(processor, [row])).logits[0]
        torch.testing.assert_close(together[i, : len(apart)], apart, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)  # the same question about another picture


def test_a_video_is_encoded_once_however_many_questions_ask_about_it():
    network, processor = load()
    seen = []
    network.video.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    rows = tiny.video_rows()
    shared = network(**collate(processor, rows))
    assert seen == [3]
    apart = network(**collate(processor, [row | {"image_id": row["id"]} for row in rows]))
    assert seen == [3, 4]
    torch.testing.assert_close(shared.logits, apart.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared.loss, apart.loss)


# --- Answering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [None, "sdpa", "eager"])
def test_greedy_answers_are_the_likeliest_token_step_by_step_up_to_the_end(learnt, attention):
    network, processor = load(learnt, attn_implementation=attention)
    batch = questions(collate(processor))
    end = processor.tokenizer.eos_token_id
    said = torch.zeros(4, 0, dtype=torch.long)
    done = torch.zeros(4, dtype=torch.bool)
    while not done.all():
        following = torch.full((4, 1), -100)  # what is asked for, and not read
        logits = network(**batch, labels=torch.cat([said, following], dim=1)).logits[:, -1]
        token = logits.argmax(-1).masked_fill(done, end)
        said, done = torch.cat([said, token[:, None]], dim=1), done | (token == end)
    new = network.generate(**batch, max_new_tokens=20, do_sample=False)
    assert new[:, 0].tolist() == [end] * 4 and torch.equal(new[:, 1:], said)
    answers = [text.strip() for text in processor.tokenizer.batch_decode(new, skip_special_tokens=True)]
    assert answers == [row["answer"] for row in tiny.video_rows()]


def test_generate_answers_rows_freely_and_by_labels(learnt):
    network, processor = load(learnt)
    ask, rows = VideoCollator(processor, num_frames=2, prompt_only=True), tiny.video_rows()
    answers = [row["answer"] for row in rows]
    assert generate(network, rows, ask, max_new_tokens=20, batch_size=3) == answers
    tree = labels_of(processor, FEW)
    chosen = generate(
        network,
        rows,
        ask,
        max_new_tokens=20,
        batch_size=3,
        ask=lambda model, batch, **settings: choose_label(model, batch, tree, **settings),
    )
    assert chosen == answers


@pytest.mark.parametrize("attention", [None, "sdpa", "eager"])
def test_the_51_labels_score_as_in_51_forwards(learnt, attention):
    assert len(set(LABELS)) == 51
    for name in (None, learnt):
        network, processor = load(name, attn_implementation=attention)
        assert network.decoder.config._attn_implementation == (attention or "sdpa")
        batch, tree = collate(processor), labels_of(processor, LABELS)
        assert (batch["attention_mask"].sum(1).diff() != 0).any()
        for mean, expected in zip((True, False), one_by_one(network, batch, tree), strict=True):
            scores = network.score_labels(tree, **questions(batch), mean=mean)
            torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_scoring_51_labels_at_once_takes_a_twentieth_of_51_forwards(tmp_path):
    asked = "Question: What color is the anatomy that is both left of the liver and above {} hooks?\nAnswer:"
    rows = [
        {"id": str(i), "image": row["image"], "prompt": asked.format(i), "answer": "1"}
        for i, row in enumerate(tiny.video_rows() * 4)
    ]
    write_surgvivqa(tmp_path, [row["prompt"] for row in rows], LABELS)
    network, processor = load(tmp_path)
    batch, tree = collate(processor, rows), labels_of(processor, LABELS)
    assert batch["pixel_values"].shape[0] == 16
    best = {}
    for _ in range(2):
        for way in ("apart", *["at once"] * 3):  # which is so short that another process may be in its way
            start = time.perf_counter()
            if way == "apart":
                one_by_one(network, batch, tree)
            else:
                network.score_labels(tree, **questions(batch))
            best[way] = min(best.get(way, float("inf")), time.perf_counter() - start)
    print(f"{best['apart']:.3f} s against {best['at once']:.4f} s: {best['apart'] / best['at once']:.1f} times")
    assert best["apart"] / best["at once"] >= 20


# --- What trains ----------------------------------------------------------------------------------------------------


def arguments(folder, **settings) -> TrainingArguments:
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 1,
        "learning_rate": 1e-2,
        "remove_unused_columns": False,
    }
    return TrainingArguments(str(folder), **{**QUIET, **defaults, **settings})


def train(network, processor, folder, **settings) -> ComposedTrainer:
    trainer = ComposedTrainer(
        network,
        arguments(folder, **settings),
        data_collator=VideoCollator(processor, num_frames=2),
        train_dataset=tiny.video_rows(),
        processing_class=processor,
    )
    trainer.train()
    return trainer


def values(network) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def changed_by_a_step(network, processor, folder, **settings) -> set[str]:
    before = values(network)
    train(network, processor, folder, **settings)
    return {name for name, value in values(network).items() if not torch.equal(value, before[name])}


def test_a_step_with_lora_changes_lora_of_gpt_2_s_attention_and_mlp_and_nothing_else(tmp_path):
    network, processor = load(to_train=True)
    network = train_parts(network, [], lora())
    with torch.no_grad():  # or half of it would have no gradient in the first step
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    block = "base_model.model.decoder.transformer.h.0"
    modules = ("attn.c_attn", "attn.c_proj", "mlp.c_proj")
    expected = {f"{block}.{module}.lora_{half}.default.weight" for module in modules for half in "AB"}
    assert changed_by_a_step(network, processor, tmp_path) == expected


def test_the_adapter_s_settings_that_are_given_stay_as_they_are():
    given, untouched = lora(), lora()
    network = train_parts(load(to_train=True)[0], ["text_encoder"], given)
    assert given == untouched
    used = network.peft_config["default"]
    assert used.modules_to_save == ["text_encoder"] and used.fan_in_fan_out


def test_frozen_towers_keep_no_graph():
    network, processor = load(to_train=True)
    network = train_parts(network, [], lora())
    seen = []
    for name in ("video", "text_encoder"):
        network.get_submodule(f"base_model.model.{name}").register_forward_hook(
            lambda module, args, output: seen.append(output.last_hidden_state.requires_grad)
        )
    assert network(**collate(processor)).loss.requires_grad
    assert seen == [False, False]


@pytest.mark.parametrize("part", ["video", "text_encoder"])
def test_a_part_trains_whole_beside_lora_when_it_is_named(part, tmp_path):
    network, processor = load(to_train=True)
    network = train_parts(network, [part], lora())
    changed = changed_by_a_step(network, processor, tmp_path)
    whole = {name for name in changed if "lora_" not in name}
    of_part = {name for name, _ in network.named_parameters() if f"{part}.modules_to_save" in name}
    unread = {name for name in of_part - whole if not network.get_parameter(name).requires_grad}
    assert len(whole) > 10 and whole <= of_part and not unread
    assert len(changed - whole) > 2 and all("decoder." in name for name in changed - whole)


@pytest.mark.parametrize("parts", [["decoder"], ["text_encoder", "decoder"], list(PARTS)])
def test_parts_train_whole_without_an_adapter(parts, tmp_path):
    network, processor = load(to_train=True)
    network = train_parts(network, parts, None)
    assert isinstance(network, SurgViVqaForConditionalGeneration)
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trainable} == set(parts)
    changed = changed_by_a_step(network, processor, tmp_path)
    assert changed <= trainable and {name.split(".")[0] for name in changed} == set(parts)


@pytest.mark.parametrize(("target", "named"), [("query", "video"), ("crossattention.self.value", "text_encoder")])
def test_lora_that_reaches_a_tower_is_refused_by_name(target, named):
    network, _ = load(to_train=True)
    with pytest.raises(CheckpointError, match=rf"{named}\..*lora_A.* and {named} was to stay as it is"):
        train_parts(network, [], lora(target_modules=["c_attn", target]))


def test_training_nothing_of_gpt_2_is_refused():
    network, _ = load(to_train=True)
    with pytest.raises(CheckpointError, match="nothing of decoder would be trained"):
        train_parts(network, ["video"], None)


@pytest.mark.parametrize("part", ["video", "text_encoder", "decoder"])
def test_a_part_trains_in_32_bits_beside_others_in_16(part):
    network, processor = load(to_train=True, dtype="bfloat16")
    assert network.dtype == torch.float32  # a whole model may have been trained
    network.to(torch.bfloat16)  # as what is composed anew
    network = train_parts(network, [part], None if part == "decoder" else lora())
    trained = {parameter.dtype for parameter in network.parameters() if parameter.requires_grad}
    assert trained == {torch.float32}
    loss = network(**collate(processor)).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert any(parameter.dtype == torch.bfloat16 for parameter in network.parameters())


@pytest.mark.parametrize("part", [None, "text_encoder"])
def test_gradient_checkpointing_changes_nothing(part, tmp_path):
    seen = []
    for checkpointing in (False, True):
        network, processor = load(to_train=True)
        network = train_parts(network, [part] if part else [], lora())
        train(network, processor, tmp_path, gradient_checkpointing=checkpointing, max_steps=2)
        seen.append(values(network))
        assert network.get_submodule("base_model.model.decoder.transformer").gradient_checkpointing is checkpointing
    for name in seen[0]:
        torch.testing.assert_close(seen[0][name], seen[1][name], rtol=1e-5, atol=1e-6)


def test_the_trainer_s_loss_is_that_of_all_tokens_of_a_step(tmp_path):
    """Two micro-batches with different numbers of tokens make the loss of one batch."""
    losses = []
    for settings in ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}):
        network, processor = load(to_train=True)
        network = train_parts(network, PARTS, None)
        log = train(network, processor, tmp_path, **settings).state.log_history
        losses += [[entry[key] for entry in log if key in entry][0] for key in ("loss", "grad_norm")]
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-4)
    network, processor = load()
    assert losses[0] == pytest.approx(network(**collate(processor)).loss.item(), rel=1e-3)


# --- Full size ------------------------------------------------------------------------------------------------------


def of_full_size(**text) -> SurgViVqaForConditionalGeneration:
    """As the three checkpoints of the Hub are configured, without weights."""
    config = SurgViVqaConfig(
        VideoMAEConfig(num_frames=8, use_mean_pooling=False),
        BlipTextConfig(encoder_hidden_size=768, **text),
        GPT2Config(),
    )
    with torch.device("meta"):
        return SurgViVqaForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("targets", "text", "trainable", "share"),
    [
        (ATTENTION_AND_MLP, {}, 811_008, "0.23%"),
        (ATTENTION_AND_MLP, {"vocab_size": 50_257}, 811_008, "0.22%"),  # the reference gives it GPT-2's vocabulary
        (r"decoder\..*\.attn\.(c_attn|c_proj)", {}, 442_368, "0.13%"),
    ],
)
def test_as_many_parameters_train_as_the_reference_counts(targets, text, trainable, share):
    network = of_full_size(**text)
    whole = sum(parameter.numel() for parameter in network.parameters())
    network = train_parts(network, [], lora(target_modules=targets, lora_dropout=0.1))
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable
    assert f"{trainable / (whole + trainable):.2%}" == share


# --- Saved and loaded again -----------------------------------------------------------------------------------------


def test_a_whole_model_reloads_to_identical_scores(learnt, tmp_path):
    network, processor = load(learnt)
    trainer = train(train_parts(network, ["decoder"], None), processor, tmp_path, learning_rate=1e-3)
    trainer.save_model()
    files = {file.name for file in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json"} <= files
    assert not {name for name in files if name.endswith((".pt", ".pkl")) or name == "pytorch_model.bin"}
    again, processor = load(tmp_path)
    assert torch.equal(few_scores(network, processor), few_scores(again, processor))
    assert again.decoder.lm_head.weight is again.decoder.transformer.wte.weight
    assert again.config.video.num_frames == 2


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A GPT-2, a VideoMAE and a BLIP on disk, each with what belongs to it, as the Hub has them."""
    whole, processor = load()
    folder = tmp_path_factory.mktemp("three")
    torch.manual_seed(1)
    video = VideoMAEConfig(**whole.config.video.to_dict() | {"num_frames": 16, "decoder_num_hidden_layers": 1})
    VideoMAEForPreTraining(video).save_pretrained(folder / "videomae_to_pretrain")
    VideoMAEModel(video).save_pretrained(folder / "videomae")
    vision = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = whole.config.text.to_dict()
    blip = BlipConfig(text_config=text, vision_config=vision | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    BlipForQuestionAnswering(blip).save_pretrained(folder / "blip")
    processor.question_tokenizer.save_pretrained(folder / "blip")
    GPT2LMHeadModel(whole.config.decoder).save_pretrained(folder / "gpt2")
    processor.tokenizer.save_pretrained(folder / "gpt2")
    return folder


def compose(three, video="videomae", num_frames=2, to_train=False, dtype="float32", **model):
    torch.manual_seed(0)
    model = ModelConfig(str(three / "gpt2"), dtype=dtype, **model)
    return load_surgvivqa(model, str(three / video), str(three / "blip"), num_frames, to_train)


@pytest.mark.parametrize("video", ["videomae", "videomae_to_pretrain"])
def test_three_checkpoints_are_joined_with_the_weights_and_the_words_that_they_have(three, video):
    network, processor = compose(three, video, num_frames=4)
    encoder = VideoMAEModel.from_pretrained(three / video, num_frames=4)
    parts = {
        "video": encoder,
        "text_encoder": BlipForQuestionAnswering.from_pretrained(three / "blip").text_encoder,
        "decoder": GPT2LMHeadModel.from_pretrained(three / "gpt2"),
    }
    for name, part in parts.items():
        ours = network.get_submodule(name).state_dict()
        assert set(ours) == set(part.state_dict())
        assert all(torch.equal(ours[key], value) for key, value in part.state_dict().items()), name
    assert network.config.video.num_frames == 4
    assert (network.config.video_name_or_path, network.config.text_name_or_path) == (
        str(three / video),
        str(three / "blip"),
    )
    batch = collate(processor, num_frames=4)
    asked = AutoTokenizer.from_pretrained(three / "blip")(tiny.video_rows()[1]["prompt"]).input_ids
    assert batch["input_ids"][1].tolist() == asked
    network.eval()
    frames = repeated(batch["pixel_values"], num_frames=4)
    torch.testing.assert_close(network.video(frames), encoder.eval()(frames))
    assert torch.isfinite(network(**batch).loss)


@pytest.mark.parametrize("parts", [[], ["text_encoder"]], ids=["lora", "and the text encoder"])
def test_an_adapter_knows_its_towers_and_reloads_to_identical_scores(three, parts, tmp_path):
    network, processor = compose(three, to_train=True)
    network = train_parts(network, parts, lora(lora_dropout=0.1))
    trainer = train(network, processor, tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.save_model()
    expected = few_scores(network, processor)
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    for folder in (tmp_path, tmp_path / "checkpoint-1"):
        files = {file.name for file in folder.iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json"} <= files and "model.safetensors" not in files
        again, processor = load(folder)
        assert isinstance(again, PeftModel) and not any(parameter.requires_grad for parameter in again.parameters())
        assert again.config.video.num_frames == 2  # and not the six that it was asked for
        assert torch.equal(few_scores(again, processor), expected) == (folder == tmp_path)  # one step more
        more, _ = load(folder, to_train=True)
        more = train_parts(more, parts, lora())
        assert trainable == {name for name, parameter in more.named_parameters() if parameter.requires_grad}


def test_other_frames_and_towers_than_those_of_a_run_s_model_are_refused(three, tmp_path):
    """A study of the number of frames would read the same number from each of its evaluations."""
    network, processor = compose(three, num_frames=4)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    asked = partial(ssg_vqa.Model, model_name_or_path=str(tmp_path), dtype="float32")
    for name, value in {"num_frames": 16, "video_name_or_path": "another", "text_name_or_path": "one"}.items():
        with pytest.raises(CheckpointError, match=f"^--{name} {value} has no effect: {tmp_path} was made with "):
            ssg_vqa.load(ssg_vqa.Data(), asked(**{name: value}))
    same = {"num_frames": 4, "video_name_or_path": str(three / "videomae")}
    assert ssg_vqa.load(ssg_vqa.Data(), asked(**same))[0].config.video.num_frames == 4


def test_lora_cannot_be_left_out_where_it_trains(three, tmp_path):
    towers = {"video_name_or_path": str(three / "videomae"), "text_name_or_path": str(three / "blip")}
    model = ssg_vqa.Model(str(three / "gpt2"), dtype="float32", use_peft=False, **towers)
    with pytest.raises(CheckpointError, match="^--use_peft False has no effect: --train_gpt2 true is what trains"):
        ssg_vqa.load(ssg_vqa.Data(), model, str(tmp_path))
    ssg_vqa.load(ssg_vqa.Data(), replace(model, train_gpt2=True), str(tmp_path))


def test_each_part_keeps_the_attention_that_it_was_loaded_with(three):
    network, _ = compose(three, attn_implementation="eager")
    assert network.decoder.config._attn_implementation == "eager"
    assert network.video.config._attn_implementation == "sdpa"


def test_an_adapter_to_a_whole_model_comes_back_on_it(learnt, tmp_path):
    network, processor = load(learnt, to_train=True)
    network = train_parts(network, [], lora())
    trainer = train(network, processor, tmp_path)
    trainer.save_model()
    again, processor = load(tmp_path)
    assert torch.equal(few_scores(again, processor), few_scores(network, processor))


def test_an_adapter_trained_in_16_bits_answers_in_16_bits(three, tmp_path):
    network, processor = compose(three, to_train=True, dtype="bfloat16")
    network = train_parts(network, ["text_encoder"], lora())
    trainer = train(network, processor, tmp_path, bf16=True)
    trainer.save_model()
    again, processor = load(tmp_path, dtype="bfloat16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, scores = few_scores(network, processor), few_scores(again, processor)
    assert torch.equal(scores, expected) and torch.isfinite(scores).all()
    assert torch.isfinite(few_scores(again, processor)).all()  # as one who loads it to ask a question


def test_without_an_adapter_one_that_is_there_becomes_part_of_the_weights(three, tmp_path):
    network, processor = compose(three, to_train=True)
    network = train_parts(network, ["text_encoder"], lora())
    train(network, processor, tmp_path, max_steps=3).save_model()
    expected = few_scores(network, processor)
    whole, _ = load(tmp_path, to_train=True)
    whole = train_parts(whole, ["decoder"], None)
    assert isinstance(whole, SurgViVqaForConditionalGeneration)
    torch.testing.assert_close(few_scores(whole, processor), expected, rtol=1e-4, atol=1e-4)
    assert {name.split(".")[0] for name, p in whole.named_parameters() if p.requires_grad} == {"decoder"}
    train(whole, processor, tmp_path / "whole").save_model()
    again, processor = load(tmp_path / "whole")
    assert torch.equal(few_scores(again, processor), few_scores(whole, processor))


def test_training_resumes_from_a_checkpoint(tmp_path):
    def losses(**more):
        network, processor = load(to_train=True)
        network = train_parts(network, [], lora())
        trainer = ComposedTrainer(
            network,
            arguments(tmp_path, max_steps=4, save_strategy="steps", save_steps=2, per_device_train_batch_size=2),
            data_collator=VideoCollator(processor, num_frames=2),
            train_dataset=tiny.video_rows(),
            processing_class=processor,
        )
        trainer.train(**more)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    straight = losses()
    assert losses(resume_from_checkpoint=str(tmp_path / "checkpoint-2")) == pytest.approx(straight, rel=1e-5)


# --- What is refused ------------------------------------------------------------------------------------------------


def test_models_whose_widths_do_not_fit_are_refused():
    video, text = VideoMAEConfig(hidden_size=64, num_attention_heads=2), BlipTextConfig(encoder_hidden_size=64)
    with pytest.raises(ValueError, match="the text encoder is 768 wide, the decoder 64"):
        SurgViVqaConfig(video, text, GPT2Config(n_embd=64, n_head=2))
    with pytest.raises(ValueError, match="no cross-attention to a video of width 768"):
        SurgViVqaConfig(VideoMAEConfig(), text, GPT2Config())
    with pytest.raises(ValueError, match="no cross-attention to a video of width 64"):
        SurgViVqaConfig(video, BlipTextConfig(encoder_hidden_size=64, is_decoder=False), GPT2Config())


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_fewer_bits_are_refused(bits):
    with pytest.raises(CheckpointError, match="SurgViVQA is not quantised"):
        load(**{bits: True})


def test_fsdp_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(CheckpointError, match="SurgViVQA does not run under FSDP: use ddp.yaml, zero2.yaml or zero3"):
        load()


def test_what_is_no_gpt_2_or_lacks_weights_is_refused_in_one_line(three, tmp_path):
    gpt2, videomae, blip = (str(three / name) for name in ("gpt2", "videomae", "blip"))
    for (name, video, text, frames), says in [
        ((str(tiny.qwen2_vl()), videomae, blip, 2), "SurgViVQA is made of a GPT-2, and this is qwen2_vl"),
        ((str(tmp_path / "nowhere"), videomae, blip, 2), "there is no such folder"),
        ((gpt2, str(tmp_path / "no_video"), blip, 2), "no_video"),
        ((gpt2, videomae, str(tmp_path / "no_text"), 2), "no_text"),
        ((gpt2, videomae, blip, 3), "VideoMAE reads 2 frames at a time, so there cannot be 3"),
    ]:
        with pytest.raises(CheckpointError, match=says) as refused:
            load_surgvivqa(ModelConfig(name, dtype="float32"), video, text, frames)
        assert "\n" not in str(refused.value)


def test_an_adapter_without_its_weights_is_refused(three, tmp_path):
    network, processor = compose(three, to_train=True)
    network = train_parts(network, [], lora())
    network.save_pretrained(tmp_path)
    network.base_model.model.config.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no adapter_model.safetensors"):
        load(tmp_path)
