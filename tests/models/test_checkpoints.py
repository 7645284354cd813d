import json
import shutil
from functools import cache

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Seq2SeqTrainer, Seq2SeqTrainingArguments
from trl import ModelConfig

from tests.support import tiny
from tests.support.processes import launch
from vlm_recipes.collators import ChatCollator, Seq2SeqCollator
from vlm_recipes.models.checkpoints import CheckpointError, left_by_a_run, load_checkpoint
from vlm_recipes.models.precision import launched_dtype, launched_precision, trainable_in_float32
from vlm_recipes.training.trainers import TokenMeanTrainer

LORA = {
    "qwen": LoraConfig(task_type="CAUSAL_LM", target_modules=r".*language_model.*\.[qv]_proj", r=4),
    "blip": LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"], r=4),
}


def load(folder, dtype="float32", to_train=False, skip_quantising=(), **settings):
    return load_checkpoint(ModelConfig(str(folder), dtype=dtype, **settings), to_train, skip_quantising)


def batch_of(kind, processor):
    if kind == "qwen":
        return ChatCollator(processor)(tiny.chat_rows())
    return Seq2SeqCollator(processor)(tiny.eight_questions())


def source(kind, trained=False):
    if trained:
        return tiny.trained_qwen2_vl() if kind == "qwen" else tiny.trained_blip2()
    return tiny.qwen2_vl() if kind == "qwen" else tiny.blip2()


@torch.no_grad()
def logits(network, batch):
    network.eval()
    return network(**{key: value.to(network.device) for key, value in batch.items()}).logits.float().cpu()


def some_steps(network, batch, steps=10, learning_rate=1e-2):
    """Train by hand; returns the losses, the last one after the last step."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    network.train()
    losses = []
    for _ in range(steps + 1):
        loss = network(**batch.to(network.device)).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.fixture(scope="module", params=["qwen", "blip"])
def adapter(request, tmp_path_factory):
    """kind, the folder of a trained adapter with its processor, a batch, and the logits it had in training."""
    kind, folder = request.param, tmp_path_factory.mktemp(f"{request.param}_adapter")
    base, processor = load(source(kind), to_train=True)
    network = get_peft_model(base, LORA[kind])
    batch = batch_of(kind, processor)
    some_steps(network, batch, learning_rate=3e-2)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return kind, folder, batch, logits(network, batch)


def test_an_adapters_folder_gives_the_logits_of_training(adapter):
    kind, folder, batch, expected = adapter
    network, processor = load(folder)
    assert isinstance(network, PeftModel)
    assert torch.allclose(logits(network, batch), expected, atol=1e-6)
    base = AutoModelForImageTextToText.from_pretrained(source(kind))
    assert (logits(base, batch) - expected).abs().max() > 0.05  # it does something
    assert torch.equal(batch_of(kind, processor)["input_ids"], batch["input_ids"])


def test_a_merged_adapter_gives_the_same_logits_and_can_be_trained_on(adapter):
    kind, folder, batch, expected = adapter
    network, _ = load(folder, to_train=True)
    assert not isinstance(network, PeftModel) and not [
        name for name, _ in network.named_parameters() if "lora" in name
    ]
    assert (logits(network, batch) - expected).abs().max() < 1e-4
    second = get_peft_model(network, LORA[kind])
    losses = some_steps(second, batch)
    assert losses[-1] < losses[0]


def other_lora(kind):
    return LoraConfig(task_type=LORA[kind].task_type, target_modules=LORA[kind].target_modules, r=2)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_an_adapter_on_top_of_another_one_belongs_to_a_base_that_holds_the_other(adapter, bits, tmp_path):
    kind, folder, batch, first = adapter
    out, settings = tmp_path / "out", {f"load_in_{bits}bit": True} if bits else {}
    asked = ModelConfig(str(folder), dtype="float32", **settings)
    network, processor = load_checkpoint(asked, True, adapter=other_lora(kind), output_dir=str(out))
    assert not isinstance(network, PeftModel)
    merged = AutoModelForImageTextToText.from_pretrained(out / "merged_base", dtype="float32")
    assert (logits(merged, batch) - first).abs().max() < 1e-4  # in full precision, also where it is then quantised
    if bits:
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    network = get_peft_model(network, other_lora(kind))
    some_steps(network, batch, learning_rate=3e-2)
    network.save_pretrained(out)
    processor.save_pretrained(out)
    expected, rounding = logits(network, batch), 1e-3 if bits else 1e-6
    assert (expected - first).abs().max() > 0.05
    assert (logits(load(out, **settings)[0], batch) - expected).abs().max() < rounding
    if not bits:
        named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
        plain = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(named), out)
        assert (logits(plain, batch) - expected).abs().max() < rounding
    moved = shutil.move(out, tmp_path / "moved")  # with what lies beside the adapter
    assert (logits(load(moved, **settings)[0], batch) - expected).abs().max() < rounding
    # A checkpoint of the run finds the same base.
    (moved / "checkpoint-1").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", *(f.name for f in moved.glob("*token*"))):
        shutil.copy(moved / name, moved / "checkpoint-1")
    for file in moved.glob("*process*"):
        shutil.copy(file, moved / "checkpoint-1")
    assert (logits(load(moved / "checkpoint-1", **settings)[0], batch) - expected).abs().max() < rounding


def test_an_adapter_of_the_same_kind_trains_on_with_the_dropout_that_is_asked(adapter, tmp_path):
    kind, folder, batch, expected = adapter
    asked = ModelConfig(str(folder), dtype="float32", lora_dropout=0.3)
    network, _ = load_checkpoint(asked, True, adapter=LORA[kind], output_dir=str(tmp_path / "out"))
    assert isinstance(network, PeftModel) and not (tmp_path / "out").exists()
    assert network.active_peft_config.lora_dropout == 0.3
    assert {name.split(".")[-3] for name, w in network.named_parameters() if w.requires_grad} == {"lora_A", "lora_B"}
    assert (logits(network, batch) - expected).abs().max() < 1e-6


def test_merging_into_few_bits_and_into_what_is_merged_is_refused(adapter, tmp_path):
    kind, folder, _, _ = adapter
    with pytest.raises(CheckpointError, match=r"into 4 or 8 bits would round .*: vlm-export .* --to FOLDER") as error:
        load(folder, to_train=True, load_in_4bit=True)
    assert "\n" not in str(error.value)
    asked = ModelConfig(str(folder), dtype="float32")
    with pytest.raises(CheckpointError, match=r"\(r 4 and not 2\) needs another --output_dir than that"):
        load_checkpoint(asked, True, adapter=other_lora(kind), output_dir=str(folder))


def test_a_base_is_merged_again_only_where_the_adapter_has_changed(adapter, tmp_path):
    kind, folder, batch, _ = adapter
    first, out = shutil.copytree(folder, tmp_path / "first"), tmp_path / "out"

    def merge():
        asked = ModelConfig(str(first), dtype="float32")
        network, _ = load_checkpoint(asked, True, adapter=other_lora(kind), output_dir=str(out))
        return logits(network, batch), (out / "merged_base" / "model.safetensors").stat().st_ino

    one, written = merge()
    same, kept = merge()
    assert torch.equal(one, same) and written == kept
    weights = {name: 2 * weight for name, weight in load_file(first / "adapter_model.safetensors").items()}
    save_file(weights, first / "adapter_model.safetensors")
    other, _ = merge()
    assert (one - other).abs().max() > 0.05


def test_a_merged_adapter_can_be_saved_and_loaded_as_a_whole_model(adapter, tmp_path):
    kind, folder, batch, expected = adapter
    network, processor = load(folder, to_train=True)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (logits(load(tmp_path)[0], batch) - expected).abs().max() < 1e-4
    assert (logits(AutoModelForImageTextToText.from_pretrained(tmp_path), batch) - expected).abs().max() < 1e-4


def test_a_whole_model_keeps_its_weights_and_dtype(tmp_path):
    expected = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    for dtype in ("float32", "bfloat16", "auto", None):
        network, _ = load(tiny.qwen2_vl(), dtype)
        assert network.dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)
        for name, weight in expected.state_dict().items():
            assert torch.equal(network.state_dict()[name].cpu(), weight.to(network.dtype)), name


# What is wrong with a folder, and what the message says about it.


def gone(folder):
    shutil.rmtree(folder)


def empty(folder):
    gone(folder)
    folder.mkdir()


def truncated(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


def no_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def pickled(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def one_weight_less(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "gate_proj" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def other_shape(folder):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_config(folder, text_config=text | {"intermediate_size": 64})


def other_kind(folder):
    edit_config(folder, model_type="gpt2")


def broken_config(folder):
    (folder / "config.json").write_text("{")


def no_processor(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "processor_config.json").unlink()


def own_code(folder):
    code = {
        "AutoConfig": "code.Config",
        "AutoModelForImageTextToText": "code.Model",
        "AutoProcessor": "code.Processor",
    }
    edit_config(folder, model_type="mine", auto_map=code)
    (folder / "code.py").write_text(
        f"open({str(folder / 'executed')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )


BROKEN = {
    gone: "there is no such folder",
    empty: "",
    truncated: "header",
    no_weights: "header",
    pickled: "model.safetensors",
    one_weight_less: "gate_proj",
    other_shape: "mismatched",
    other_kind: "AutoModelForImageTextToText",
    broken_config: "",
    no_processor: "",
    own_code: "custom code",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda breaking: breaking.__name__)
def test_a_broken_folder_is_refused_in_one_line(tmp_path, breaking, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    folder = tmp_path / "broken"
    shutil.copytree(tiny.qwen2_vl(), folder)
    breaking(folder)
    with pytest.raises(CheckpointError) as error:
        load(folder)
    message = str(error.value)
    assert message.startswith(f"cannot load the model '{folder}': ") and "\n" not in message
    assert BROKEN[breaking] in message
    assert not asked and not (folder / "executed").exists()


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "./no/such/folder", "outputs/no/such"])
def test_an_unknown_name_is_refused_in_one_line(name):
    with pytest.raises(CheckpointError, match="^cannot load the model") as error:
        load(name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_an_adapter_that_cannot_be_used_is_refused_with_the_name_of_its_base(adapter, tmp_path):
    _, folder, _, _ = adapter
    shutil.copytree(folder, tmp_path / "pickled")
    weights = load_file(folder / "adapter_model.safetensors")
    (tmp_path / "pickled" / "adapter_model.safetensors").unlink()
    torch.save(weights, tmp_path / "pickled" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="no adapter_model.safetensors"):
        load(tmp_path / "pickled")

    shutil.copytree(folder, tmp_path / "orphan")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "moved away")
    (tmp_path / "orphan" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="orphan', an adapter to '.*moved away': there is no such folder"):
        load(tmp_path / "orphan")

    shutil.copytree(folder, tmp_path / "other")
    other = {name: weight[..., :3].contiguous() for name, weight in weights.items()}
    save_file(other, tmp_path / "other" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="an adapter to .*: Error.* size mismatch for .*lora_A") as error:
        load(tmp_path / "other")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["qwen", "blip"])
def test_a_quantised_model_learns_through_its_adapter_alone(kind, bits):
    base, processor = load(source(kind), to_train=True, **{f"load_in_{bits}bit": True})
    module = Linear4bit if bits == 4 else Linear8bitLt
    quantised = {name for name, part in base.named_modules() if isinstance(part, module)}
    assert any("language_model" in name for name in quantised) and any(
        "vision" in n or "visual" in n for n in quantised
    )
    assert not [name for name in quantised if "lm_head" in name]
    network = get_peft_model(prepare_model_for_kbit_training(base, use_gradient_checkpointing=False), LORA[kind])
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    losses = some_steps(network, batch_of(kind, processor), steps=12, learning_rate=3e-2)
    assert losses[-1] < 0.95 * losses[0]
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "lora_" in name}


def test_parts_named_to_stay_whole_are_not_quantised():
    network, _ = load(tiny.qwen2_vl(), load_in_4bit=True, skip_quantising=("model.visual",))
    quantised = {name for name, module in network.named_modules() if isinstance(module, Linear4bit)}
    assert quantised and all("language_model" in name for name in quantised)


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_trained_on_a_quantised_model_gives_the_same_logits_there(tmp_path, bits):
    settings = {f"load_in_{bits}bit": True}
    base, processor = load(tiny.qwen2_vl(), to_train=True, **settings)
    network = get_peft_model(prepare_model_for_kbit_training(base, use_gradient_checkpointing=False), LORA["qwen"])
    batch = batch_of("qwen", processor)
    some_steps(network, batch)
    expected = logits(network, batch)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load(tmp_path, **settings)
    assert (logits(again, batch) - expected).abs().max() < 1e-3


def test_a_runs_folder_and_its_checkpoints_are_known_by_run_json(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    assert not left_by_a_run(str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    assert left_by_a_run(str(tmp_path)) and left_by_a_run(str(tmp_path / "checkpoint-3"))
    assert not left_by_a_run("Qwen/Qwen2-VL-7B-Instruct")


@pytest.mark.parametrize(
    ("launched", "precision", "dtype"),
    [("no", "no", "float32"), ("bf16", "bf16", "bfloat16"), ("fp16", "fp16", "float16"), ("fp8", "no", "float32")],
)
def test_the_accelerate_config_says_in_which_format_a_run_computes(monkeypatch, launched, precision, dtype):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert (launched_precision(), launched_dtype()) == (precision, dtype)


def test_without_a_launcher_the_device_says_it(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert launched_precision() == ("bf16" if torch.cuda.is_available() else "no")


@pytest.mark.parametrize(("kind", "dtype"), [("qwen", "float16"), ("qwen", "bfloat16"), ("blip", "float16")])
def test_qwen2_vl_in_float16_says_that_it_may_overflow(kind, dtype, capsys):
    load(source(kind), dtype)
    expected = "float16: Qwen2-VL was seen to overflow in it" if (kind, dtype) == ("qwen", "float16") else ""
    assert [line.startswith(expected) for line in capsys.readouterr().out.splitlines()] == [True] * bool(expected)


def test_trained_weights_are_kept_in_float32_and_frozen_ones_as_they_are():
    network, _ = load(tiny.qwen2_vl(), "bfloat16")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("visual" in name)
    trainable_in_float32(network)
    for name, parameter in network.named_parameters():
        assert parameter.dtype == (torch.float32 if "visual" in name else torch.bfloat16)


# The loss of BLIP-2 under gradient accumulation


def one_step(tmp_path, trainer_class, size, accumulation, lora=False):
    """Loss and gradient norm that the Trainer logs for one optimizer step over the same eight rows."""
    network, processor = load(tiny.trained_blip2(), to_train=True)
    if lora:
        torch.manual_seed(0)
        network = get_peft_model(network, LORA["blip"])
    args = Seq2SeqTrainingArguments(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        logging_steps=1,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = trainer_class(
        network, args, data_collator=Seq2SeqCollator(processor), train_dataset=tiny.eight_questions()
    )
    trainer.train()
    log = trainer.state.log_history[0]
    return log["loss"], log["grad_norm"]


@cache
def by_hand(lora=False):
    """The mean over all target tokens of all rows, from single rows without any padding."""
    network, processor = load(tiny.trained_blip2(), to_train=True)
    network.cpu()
    if lora:
        torch.manual_seed(0)
        network = get_peft_model(network, LORA["blip"])
    batches = [Seq2SeqCollator(processor)([row]) for row in tiny.eight_questions()]
    n_tokens = sum(batch["labels"].numel() for batch in batches)
    assert len({batch["labels"].numel() for batch in batches}) >= 5  # answers of different length
    loss = 0.0
    for batch in batches:
        scores = network(**batch).logits[0]
        part = torch.nn.functional.cross_entropy(scores, batch["labels"][0], reduction="sum") / n_tokens
        part.backward()
        loss += part.item()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return loss, torch.stack([gradient.pow(2).sum() for gradient in gradients]).sum().sqrt().item()


SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize(("size", "accumulation"), SPLITS)
def test_loss_and_gradient_do_not_depend_on_how_a_batch_is_split(tmp_path, size, accumulation, lora):
    assert one_step(tmp_path, TokenMeanTrainer, size, accumulation, lora) == pytest.approx(by_hand(lora), rel=1e-5)


def test_the_stock_trainer_multiplies_them_by_the_number_of_steps(tmp_path):
    loss, norm = by_hand()
    whole, split = (one_step(tmp_path, Seq2SeqTrainer, *split) for split in (SPLITS[0], SPLITS[3]))
    assert whole == pytest.approx((loss, norm), rel=1e-5)
    assert split[0] > 4 * loss and split[1] > 4 * norm, "transformers divides it itself: delete TokenMeanTrainer"


def test_two_processes_train_on_the_mean_over_the_tokens_of_both():
    for result in launch.ddp("token_mean"):
        assert (result["log"][0]["loss"], result["log"][0]["grad_norm"]) == pytest.approx(by_hand(), rel=1e-5)


def test_two_processes_log_the_metric_of_all_rows():
    for result in launch.ddp("token_mean"):
        (logged,) = [log for log in result["log"] if "eval_exact" in log]
        assert (logged["eval_n"], logged["eval_exact"]) == (7, 1.0)


def _merge(folder, out):
    asked = ModelConfig(str(folder), dtype="float32")
    network, processor = load_checkpoint(asked, True, adapter=other_lora("qwen"), output_dir=str(out))
    return logits(network, batch_of("qwen", processor))


def test_two_processes_train_on_the_same_merged_base_or_are_both_refused(adapter, tmp_path):
    kind, folder, batch, expected = adapter
    if kind == "qwen":
        for merged in launch.in_two_processes(_merge, folder, tmp_path / "out"):
            assert (merged - expected).abs().max() < 1e-4
        (tmp_path / "file").write_text("")
        with pytest.raises(Exception, match="cannot merge .* into .*/file/merged_base: "):
            launch.in_two_processes(_merge, folder, tmp_path / "file")


def test_an_export_and_a_model_of_the_hub_are_known_by_their_record(tmp_path, monkeypatch):
    (tmp_path / "trained.json").write_text("{}")
    assert left_by_a_run(str(tmp_path))
    asked = []
    monkeypatch.setattr(
        "vlm_recipes.models.checkpoints.has_file", lambda place, file, revision: asked.append((place, file, revision))
    )
    left_by_a_run("somebody/tuned", "v2")
    assert asked == [("somebody/tuned", "run.json", "v2"), ("somebody/tuned", "trained.json", "v2")]
