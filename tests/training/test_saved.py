"""The folder that a run leaves holds the model that was in memory, in every recipe, however it was trained."""

import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments
from transformers.utils import ModelOutput
from trl import ModelConfig

from demo.worlds.small import SIZES
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.processes.launch import ddp, deepspeed
from tests.support.running import QUIET
from tests.support.worlds import world
from vlm_recipes.models.checkpoints import CheckpointError, load_checkpoint
from vlm_recipes.training.launch import REFUSALS
from vlm_recipes.training.loaded_anew import logits_of
from vlm_recipes.training.saved import SavedError, prepare_to_save, save

pytestmark = pytest.mark.usefixtures("figures_are_blank", "preflight_is_left_out")
FEW = """--use_cpu true --max_steps 2 --eval_strategy no --save_strategy no --load_best_model_at_end false
    --do_predict false --per_device_train_batch_size 2 --gradient_accumulation_steps 1 --warmup_steps 0
    --dataloader_num_workers 0 --dtype float32 --bf16 false --logging_steps 1 --disable_tqdm true
    --learning_rate 1e-2 --load_saved_anew true""".split()
COMPOSED = ("reasonseg", "ssg_vqa")  # which no other library loads
AT_ONCE = ("nutrition_tables", "reasonseg")  # an SFTTrainer's and a composed one; all in `make test-slow`
RECIPES = [pytest.param(name, marks=[] if name in AT_ONCE else pytest.mark.slow) for name in SIZES]
LORA = {"nutrition_tables": ["--tune", "language"]}
WHOLE = {
    "nutrition_tables": ["--tune", "vision"],
    "reasonseg": ["--tune", "all"],
    "ssg_vqa": ["--train_gpt2", "true"],
}


@pytest.fixture
def start(monkeypatch, capsys):
    """Start a recipe's file in this process; returns what it printed, or the line that it ended with."""

    def start(recipe: str, output: Path, *arguments: object) -> str:
        file = str(ROOT / "recipes" / f"{recipe}.py")
        given = [*world(recipe), *FEW, *map(str, arguments), "--output_dir", str(output)]
        monkeypatch.setattr(sys, "argv", [file, *given])
        try:
            runpy.run_path(file, run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
        return capsys.readouterr().out

    return start


def ways(printed: str) -> list[str]:
    """How the folder was loaded anew, to the same logits."""
    return re.findall(r" loaded anew by (.+): logits differ by (?:0\.0e\+00|\d\.\de-0[5-9]) of their spread", printed)


def base_named_in(folder: Path) -> str:
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_adapter_on_an_adapter_comes_back_with_both(recipe, start, tmp_path):
    loaders = ["the recipe's loader"] + ["transformers and PEFT"] * (recipe not in COMPOSED)
    kind = LORA.get(recipe, [])
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert ways(start(recipe, first, *kind, "--lora_r", 4)) == loaders
    # The same kind of adapter is the same one, and trains on.
    same = ["--model_name_or_path", first, *kind, "--lora_r", 4, "--lora_dropout", 0.3]
    assert ways(start(recipe, second, *same)) == loaders
    assert base_named_in(second) == base_named_in(first) and not (second / "merged_base").exists()
    # Another one is trained on both together, or not at all.
    printed = start(recipe, third, "--model_name_or_path", second, *kind, "--lora_r", 2)
    if recipe in COMPOSED:
        assert printed.startswith("error: this adapter has r 4 and not 2") and "\n" not in printed
    else:
        assert ways(printed) == loaders and f"{second} has r 4 and not 2" in printed
        assert base_named_in(third) == str(third / "merged_base")


@pytest.mark.parametrize(("recipe", "bits"), [("kvasir_vqa", 4), ("vqa_rad", 8), ("reasonseg", 4)])
def test_quantised_models_come_back_too_and_an_adapter_is_never_merged_into_few_bits(recipe, bits, start, tmp_path):
    quantised = [f"--load_in_{bits}bit", "true"]
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert ways(start(recipe, first, *quantised, "--lora_r", 4)) == ["the recipe's loader"]
    on_first = ["--model_name_or_path", first, *quantised]
    assert ways(start(recipe, second, *on_first, "--lora_r", 4)) == ["the recipe's loader"]
    if recipe not in COMPOSED:
        assert ways(start(recipe, third, *on_first, "--lora_r", 2)) == ["the recipe's loader"]
        merged = load_file(third / "merged_base" / "model.safetensors")
        assert {weight.dtype for weight in merged.values()} == {torch.float32}
        printed = start(recipe, tmp_path / "whole", *on_first, "--use_peft", "false")
        assert printed.startswith("error: merging the adapter") and "would round what it has learnt" in printed


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_model_comes_back_also_where_an_adapter_lay_and_an_adapter_where_a_whole_model_lay(
    recipe, start, tmp_path
):
    """The same folder, from which somebody has taken what says whose it is."""

    def left_to_anybody(folder: Path) -> Path:
        for record in ("run.json", "trainer_state.json"):
            (folder / record).unlink()
        return folder

    loaders = ["the recipe's loader"] + ["transformers and PEFT"] * (recipe not in COMPOSED)
    adapter, whole, out = LORA.get(recipe, []), WHOLE.get(recipe, ["--use_peft", "false"]), tmp_path / "out"
    assert ways(start(recipe, out, *adapter)) == loaders
    assert ways(start(recipe, left_to_anybody(out), *whole)) == loaders
    assert not list(out.glob("adapter*")) and (out / "model.safetensors").is_file()
    assert ways(start(recipe, tmp_path / "on it", *adapter, "--model_name_or_path", out)) == loaders
    assert base_named_in(tmp_path / "on it") == str(out)
    assert ways(start(recipe, left_to_anybody(out), *adapter)) == loaders
    assert not list(out.glob("model*")) and (out / "adapter_model.safetensors").is_file()
    assert (out / "config.json").is_file() == (recipe in COMPOSED)


# --- What is proven


@pytest.fixture
def trainer(tmp_path):
    base = shutil.copytree(tiny.qwen2_vl(), tmp_path / "base")
    network, processor = load_checkpoint(ModelConfig(str(base), dtype="float32"), to_train=True)
    network = get_peft_model(network, LoraConfig(target_modules=r".*language_model.*\.[qv]_proj", r=2))
    return trainer_of(network, processor, tmp_path / "out")


def trainer_of(network, processor, folder: Path, trainer_class: type = Trainer) -> Trainer:
    return trainer_class(network, TrainingArguments(str(folder), **QUIET), processing_class=processor)


class Changed(Trainer):
    """Saves, and then something happens to the folder."""

    change: Callable[[Path], None]

    def save_model(self, *arguments, **settings):
        super().save_model(*arguments, **settings)
        type(self).change(Path(self.args.output_dir))


def edit_weights(file: Path, edit: Callable[[dict], dict]) -> None:
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


def of_weights(name: str, edit: Callable[[dict], dict]) -> Callable[[Path], None]:
    return lambda folder: edit_weights(folder / name, edit)


def one_bit(weights: dict) -> dict:
    name = min(name for name in weights if "q_proj" in name)
    weights[name].view(-1)[3] = torch.nextafter(weights[name].view(-1)[3], torch.tensor(9.0))
    return weights


def one_less(weights: dict) -> dict:
    return {name: weight for name, weight in weights.items() if name != min(weights)}


def other_base(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tiny.qwen2_vl())
    (folder / "adapter_config.json").write_text(json.dumps(config))


def base_trained_on(folder: Path) -> None:
    edit_weights(folder.parent / "base" / "model.safetensors", lambda weights: {n: w + 1 for n, w in weights.items()})


OF_ADAPTER = "adapter_model.safetensors"
FAULTS = {
    "another value in the last bit": (of_weights(OF_ADAPTER, one_bit), "'.*q_proj.*' there is not what was trained"),
    "a tensor less": (of_weights(OF_ADAPTER, one_less), "it lacks '.*lora_A.weight'"),
    "no weights": (lambda folder: (folder / OF_ADAPTER).unlink(), "there is no adapter_model.safetensors"),
    "another base": (other_base, "its adapter names the base '.*', and was trained on .*/base"),
    "the base has changed": (base_trained_on, "its base '.*/base' has been changed since it was loaded"),
    "a whole model's weights": (
        lambda folder: (folder / "model.safetensors").touch(),
        "model.safetensors decides, too",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_in_the_folder_as_it_was_trained_ends_the_run_in_one_line(fault, trainer, tmp_path):
    save(trainer)
    Changed.change, message = FAULTS[fault][0], FAULTS[fault][1]
    changed = trainer_of(trainer.model, trainer.processing_class, tmp_path / "out", Changed)
    with pytest.raises(SavedError, match=f"^{tmp_path}/out does not hold the model .* trained: {message}") as error:
        save(changed)
    assert "\n" not in str(error.value) and SavedError in REFUSALS


OF_WHOLE = {
    "another value in the last bit": (of_weights("model.safetensors", one_bit), "'.*' there is not what was trained"),
    "a frozen tensor less": (of_weights("model.safetensors", one_less), "it lacks '.*'"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "adapter_config.json decides, too",
    ),
    "a shard of another model": (lambda f: (f / "model-00001-of-00002.safetensors").touch(), "model-00001-.* decides"),
}


@pytest.mark.parametrize("fault", OF_WHOLE)
def test_so_does_a_whole_model_s_folder(fault, tmp_path):
    network, processor = load_checkpoint(ModelConfig(str(tiny.qwen2_vl()), dtype="float32"), to_train=True)
    network.model.visual.requires_grad_(False)
    save(trainer_of(network, processor, tmp_path))
    Changed.change, message = OF_WHOLE[fault]
    with pytest.raises(SavedError, match=f"^{tmp_path} does not hold the model that was trained: {message}"):
        save(trainer_of(network, processor, tmp_path, Changed))


def test_what_several_kinds_of_run_left_in_a_folder_is_gone_after_a_save(tmp_path):
    network, processor = load_checkpoint(ModelConfig(str(tiny.qwen2_vl()), dtype="float32"), to_train=True)
    trainer = trainer_of(network, processor, tmp_path)
    network.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "merged_base").mkdir()
    (tmp_path / "mine.txt").write_text("kept")
    save(trainer)
    assert [file.name for file in tmp_path.glob("*model*")] == ["model.safetensors"]
    assert not (tmp_path / "adapter_config.json").exists() and not (tmp_path / "merged_base").exists()
    assert (tmp_path / "mine.txt").is_file()


def test_a_sharded_model_is_read_from_all_of_its_files(tmp_path):
    class InShards(Trainer):
        def save_model(self, *arguments, **settings):
            self.model.save_pretrained(self.args.output_dir, max_shard_size="100KB")

    network, processor = load_checkpoint(ModelConfig(str(tiny.qwen2_vl()), dtype="float32"), to_train=True)
    save(trainer_of(network, processor, tmp_path))  # a single file, which would be loaded first
    save(trainer_of(network, processor, tmp_path, InShards))
    assert not (tmp_path / "model.safetensors").exists()
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in network.state_dict().items())


def test_an_adapter_does_not_go_into_the_folder_of_its_base(trainer, tmp_path):
    trainer.args.output_dir = str(tmp_path / "base")
    with pytest.raises(SavedError, match="base would lie on its own base: give it another --output_dir"):
        prepare_to_save(trainer)


def test_an_adapter_on_what_was_merged_in_memory_alone_is_refused_before_training(trainer, tmp_path):
    save(trainer)
    folder = str(tmp_path / "out")
    network, processor = load_checkpoint(ModelConfig(folder, dtype="float32"), to_train=True)
    network = get_peft_model(network, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(SavedError, match="would name a base without what was merged into it"):
        prepare_to_save(trainer_of(network, processor, tmp_path / "second"))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(partial(ddp, "saved_models"), id="ddp"),
        pytest.param(partial(deepspeed, 3, "saved_models"), id="zero3", marks=pytest.mark.slow),
    ],
)
def test_two_processes_both_learn_that_a_folder_does_not_hold_what_was_trained(said):
    for of_process in said():
        for kind in ("whole", "adapter"):
            assert of_process[f"{kind}, changed False"] is None
            assert "q_proj" in of_process[f"{kind}, changed True"]
            assert of_process[f"{kind}, changed True"].endswith("there is not what was trained")


def test_an_adapter_names_the_revision_of_its_base_on_the_hub(tmp_path):
    network, processor = load_checkpoint(ModelConfig(str(tiny.qwen2_vl()), dtype="float32"), to_train=True)
    network.name_or_path, network.loaded_from = "nobody/base", {("nobody/base", "v2"): None}
    network = get_peft_model(network, LoraConfig(target_modules=["q_proj"], r=2))
    trainer = trainer_of(network, processor, tmp_path)
    with pytest.raises(SavedError, match="names the base 'nobody/base' at main, and was trained at v2"):
        save(trainer)
    prepare_to_save(trainer)
    save(trainer)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["revision"] == "v2"


# --- New tokens


def with_new_tokens(folder: Path, **lora):
    """A Trainer of LoRA on a model to which three tokens were added."""
    network, processor = load_checkpoint(ModelConfig(str(tiny.qwen2_vl()), dtype="float32"), to_train=True)
    processor.tokenizer.add_tokens(["<one>", "<two>", "<three>"])
    network.resize_token_embeddings(len(processor.tokenizer))
    network = get_peft_model(network, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", r=2, **lora))
    return trainer_of(network, processor, folder)


def test_new_tokens_with_lora_are_refused_before_training_where_the_folder_would_lack_them(tmp_path):
    for whole in (None, ["embed_tokens"]):  # without a head, which is another layer, it says nothing new
        trainer = with_new_tokens(tmp_path / "out", modules_to_save=whole)
        with pytest.raises(SavedError, match=r"out would lack the 3 tokens .*_to_save embed_tokens lm_head") as error:
            prepare_to_save(trainer)
        assert "\n" not in str(error.value)
    with_new_tokens(tmp_path / "old").save_model()
    with pytest.raises(CheckpointError, match="its tokenizer has .* tokens and the model .*: it was saved without"):
        load_checkpoint(ModelConfig(str(tmp_path / "old"), dtype="float32"))


def test_new_tokens_trained_whole_come_back_with_their_rows(tmp_path):
    trainer = with_new_tokens(tmp_path / "out", modules_to_save=["embed_tokens", "lm_head"])
    prepare_to_save(trainer)
    with torch.no_grad():
        for layer in (trainer.model.get_input_embeddings(), trainer.model.get_output_embeddings()):
            layer.weight[-3:] += 1.0
    save(trainer)
    token_ids = trainer.processing_class.tokenizer("<one><three>", return_tensors="pt")["input_ids"]
    expected = trainer.model.eval()(input_ids=token_ids).logits
    for to_train in (False, True):
        again, processor = load_checkpoint(ModelConfig(str(tmp_path / "out"), dtype="float32"), to_train)
        assert torch.allclose(again.cpu().eval()(input_ids=token_ids).logits, expected, atol=1e-5)
        assert len(processor.tokenizer) == expected.shape[-1]


class Towers(torch.nn.Module):
    """One of two towers is kept in evaluation mode while the rest trains."""

    def __init__(self):
        super().__init__()
        self.frozen, self.trained = (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.9)) for _ in "ab")
        self.frozen.eval()

    def forward(self, values):
        return Logits(logits=self.trained(self.frozen(values)))


@dataclass
class Logits(ModelOutput):
    logits: torch.Tensor | None = None


def test_comparing_logits_leaves_each_module_in_the_mode_it_came_in():
    network, batch = Towers(), {"values": torch.ones(1, 2)}
    modes = [module.training for module in network.modules()]
    assert torch.equal(logits_of(network, batch), logits_of(network, batch))  # nothing is dropped
    assert [module.training for module in network.modules()] == modes and len(set(modes)) == 2


@pytest.mark.parametrize(
    ("recipe", "kind"), [("nutrition_tables", ["--tune", "language"]), ("reasonseg", ["--tune", "decoder"])], ids=str
)
def test_in_16_bits_both_are_computed_alike(recipe, kind, start, tmp_path):
    """The trained model's own forward is under autocast; the one loaded anew was once not, and differed by .06."""
    half = ["--bf16", "true", "--dtype", "bfloat16"]
    printed = start(recipe, tmp_path / "out", *kind, *half)
    differ = [float(found) for found in re.findall(r"logits differ by (\S+) of", printed)]
    assert differ and max(differ) < 1e-3


def test_all_of_lisa_trains_in_16_bits_on_a_cpu(start, tmp_path):
    """CLIP's last layer is frozen, and its norm takes no float32 in another format there."""
    printed = start("reasonseg", tmp_path / "out", "--tune", "all", "--bf16", "true", "--dtype", "bfloat16")
    assert "loaded anew by the recipe's loader" in printed
