"""Each workaround's reason is still there: a test that fails says what can be deleted."""

import ast

import pytest
import torch
import trl
from bitsandbytes.autograd import _functions as products
from datasets import Dataset, Features, Image, List, concatenate_datasets
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.bnb import Linear4bit
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, Trainer, TrainingArguments
from transformers.integrations import deepspeed
from trl import ModelConfig
from trl.trainer import utils

from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.running import QUIET
from vlm_recipes.callbacks.preflight.shapes import tensors_of, to_shapes
from vlm_recipes.models.blip2 import Blip2ForConditionalGeneration
from vlm_recipes.models.checkpoints import load_checkpoint
from vlm_recipes.models.lisa.config import LisaConfig
from vlm_recipes.models.lisa.loading import ATTENTION, load_lisa
from vlm_recipes.models.lisa.model import LisaForConditionalGeneration
from vlm_recipes.models.upstream import (
    as_on_a_gpu,
    attention_of,
    cast_pictures,
    clear_nested_dtypes,
    fingerprint,
    hub_weight_names,
    keep_weight_names,
    mark_quantised,
    quantised_bits,
    selected_from,
    without_zero3,
)
from vlm_recipes.models.weights import without_weights


def comes_back(network, folder) -> bool:
    """Whether the Trainer loads from its checkpoint what it saved there."""
    trainer = Trainer(network, TrainingArguments(folder, **QUIET))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    trainer.save_model()
    with torch.no_grad():
        for weight in network.parameters():
            weight += 1
    trainer._load_from_checkpoint(str(folder))
    return all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_the_trainer_still_loads_nothing_under_the_hub_s_weight_names(tmp_path):
    network = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    assert not comes_back(network, tmp_path / "hub"), "transformers issue 43701 is mended: delete keep_weight_names"
    network = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    keep_weight_names(network)
    assert comes_back(network, tmp_path / "own")
    hub_weight_names(network)
    network.save_pretrained(tmp_path / "again")
    assert weight_names(tmp_path / "again") == weight_names(tiny.qwen2_vl()) != weight_names(tmp_path / "own")


def weight_names(folder) -> set[str]:
    return set(load_file(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def whole_lisa(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lisa")
    llava, sam = tiny.lisa()
    network, processor = load_lisa(ModelConfig(str(llava), dtype="float32"), str(sam), to_train=True)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_dtype_asked_for_still_does_not_reach_the_parts_of_a_part(whole_lisa):
    def loaded_in(config):
        network = LisaForConditionalGeneration.from_pretrained(whole_lisa, config=config, dtype="bfloat16")
        return network.llava.model.language_model.dtype

    config = LisaConfig.from_pretrained(whole_lisa)
    config.llava.text_config.dtype = torch.float32  # as it stands in the folder
    message = "from_pretrained(dtype=…) reaches parts of parts: delete clear_nested_dtypes"
    assert loaded_in(config) == torch.float32, message
    clear_nested_dtypes(config.llava)
    assert loaded_in(config) == torch.bfloat16


def test_peft_still_asks_the_model_and_not_the_layer_whether_it_holds_four_bits():
    def lora_layers(marked: bool) -> set[bool]:
        llava, sam = tiny.lisa()
        network, _ = load_lisa(ModelConfig(str(llava), dtype="float32", load_in_4bit=True), str(sam), to_train=True)
        mark_quantised(network, BitsAndBytesConfig(load_in_4bit=marked))
        network = get_peft_model(network, LoraConfig(target_modules=ATTENTION))
        return {isinstance(layer, Linear4bit) for layer in network.modules() if isinstance(layer, LoraLayer)}

    assert lora_layers(marked=False) == {False}, "PEFT looks at the layers: delete mark_quantised"
    assert lora_layers(marked=True) == {True}


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_the_bits_that_a_model_was_loaded_in_are_known_also_under_an_adapter(bits):
    settings = {"quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}bit": True})} if bits else {}
    network = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl(), **settings)
    assert quantised_bits(network) == bits
    assert quantised_bits(get_peft_model(network, LoraConfig(target_modules=r".*language_model.*q_proj"))) == bits


def test_datasets_still_has_no_public_name_for_a_fingerprint():
    rows = Dataset.from_dict({"id": ["a", "b"]})
    public = [name for name in dir(rows) if "fingerprint" in name and not name.startswith("_")]
    assert not public, f"datasets has {public}: delete fingerprint"
    assert fingerprint(rows) == fingerprint(Dataset.from_dict({"id": ["a", "b"]}))
    assert fingerprint(rows) != fingerprint(rows.map(lambda row: {"id": row["id"] + "c"}))


def memory_of(rows: Dataset) -> set[int]:
    """Where the bytes of the pictures in the column `images` are."""
    pictures = [chunk.values.field("bytes") for chunk in rows.data.column("images").chunks]
    return {picture.buffers()[-1].address for picture in pictures}


def test_datasets_still_copies_lists_of_pictures_to_decode_them():
    pictures = [{"bytes": bytes(99), "path": None}]
    features = Features({"images": List(Image(decode=False))})
    rows = Dataset.from_dict({"images": [pictures, pictures * 2, []]}, features).select([2, 0, 1])
    copied = rows.cast_column("images", List(Image()))
    assert not memory_of(copied) & memory_of(rows), "datasets casts lists in place: delete cast_pictures"
    cast = cast_pictures(rows, "images", decode=True)
    assert memory_of(cast) == memory_of(rows) and cast.features == copied.features
    assert rows.features == features and fingerprint(cast) != fingerprint(rows)
    back = cast_pictures(cast, "images", decode=False)
    assert back[:] == rows[:] and back.features == features


def test_transformers_still_has_no_public_name_for_the_attention_that_was_loaded():
    config = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl(), attn_implementation="eager").config
    public = [name for name in dir(config) if "attn_impl" in name and not name.startswith("_")]
    assert not public, f"transformers has {public}: delete attention_of"
    assert attention_of(config) == "eager"


def test_trl_still_exports_no_template_of_qwen2_vl():
    """demo/checkpoints/qwen2_vl.py reads it from a module that TRL does not document."""
    assert {name for name in dir(trl) if "template" in name} == {
        "apply_chat_template",
        "chat_template_utils",
        "clone_chat_template",
        "get_training_chat_template",
        "maybe_apply_chat_template",
    }, "TRL exports templates: write the demo's checkpoints with them"


def private_names(tree: ast.AST) -> set[str]:
    """Attributes that begin with one underscore, of anything but `self` and `cls`; `os._exit` is documented."""
    return {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    } - {"os._exit"}


def test_datasets_still_copies_pictures_to_put_a_column_beside_selected_rows():
    rows = Dataset.from_dict({"bytes": [b"a" * 999, b"b" * 999, b"c" * 999]})
    picked = rows.select([2, 0])

    def place(one: Dataset) -> int:
        return one.data.column("bytes").chunk(0).buffers()[2].address

    beside = concatenate_datasets([Dataset.from_dict({"number": [0, 1]}), picked], axis=1)
    assert place(beside) != place(rows), "datasets keeps selections side by side: delete selected_from and beside"
    whole, numbers = selected_from(picked)
    assert place(whole) == place(rows) and numbers.tolist() == [2, 0]
    assert selected_from(rows) == (rows, None)


def test_private_names_of_libraries_are_used_in_one_file_only():
    folders = ("models", "training", "recipes", "eval", "rows", "callbacks", "collators", "demo", "benchmarks")
    found = {
        str(file.relative_to(ROOT)): names
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        if (names := private_names(ast.parse(file.read_text(encoding="utf-8"))))
    }
    names = {"network._weight_conversions", "dataset._fingerprint", "config.get_text_config()._attn_implementation"}
    names |= {"cast._info", "cast._data", "cast._fingerprint", "deepspeed._hf_deepspeed_config_weak_ref"}
    names |= {"dataset._indices", "network._keep_in_fp32_modules", "network._keep_in_fp32_modules_strict"}
    assert found == {"models/upstream.py": names}


def test_transformers_can_forget_zero3_and_has_no_way_to_recall_it():
    public = {name for name in vars(deepspeed) if name.endswith("hf_deepspeed_config")}
    assert public == {"set_hf_deepspeed_config", "unset_hf_deepspeed_config"}  # none that gives what is set
    config = deepspeed.HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    with without_zero3():
        assert not deepspeed.is_deepspeed_zero3_enabled()
    assert deepspeed.is_deepspeed_zero3_enabled() and deepspeed.deepspeed_config() is config.config
    deepspeed.unset_hf_deepspeed_config()


@pytest.mark.parametrize(
    "checkpoint, model_class, bits, dtype",
    [
        (tiny.qwen2_vl, AutoModelForImageTextToText, {"load_in_4bit": True, "use_bnb_nested_quant": True}, "bfloat16"),
        (tiny.blip2, Blip2ForConditionalGeneration, {"load_in_8bit": True}, "float16"),
        (tiny.blip2, Blip2ForConditionalGeneration, {}, "float16"),
    ],
    ids=["4 bits", "8 bits", "float16"],
)
def test_an_outline_has_the_formats_and_packed_layers_of_what_is_loaded(checkpoint, model_class, bits, dtype):
    model = ModelConfig(model_name_or_path=str(checkpoint()), dtype=dtype, **bits)
    loaded = load_checkpoint(model, to_train=True, model_class=model_class)[0]
    with without_weights(as_trained=True):
        outline = load_checkpoint(model, to_train=True, model_class=model_class)[0]
    kinds = [{name: type(module) for name, module in network.named_modules()} for network in (outline, loaded)]
    assert kinds[0] == kinds[1] and quantised_bits(outline) == quantised_bits(loaded)
    if not bits:
        formats = [
            {name: weight.dtype for name, weight in network.named_parameters()} for network in (outline, loaded)
        ]
        assert formats[0] == formats[1] and torch.float32 in formats[0].values()
    to_shapes(outline)
    sizes = [
        sum({one.untyped_storage(): one.untyped_storage().nbytes() for one in tensors_of(network)}.values())
        for network in (outline, loaded)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_libraries_still_do_something_else_on_a_gpu():
    assert not utils._use_triton(torch.device("cpu")), "TRL projects what has a label everywhere: shorten as_on_a_gpu"
    own = products.MatMul8bitFp
    with as_on_a_gpu():
        assert utils._use_triton(torch.device("cpu")) and products.MatMul8bitFp is products.MatMul8bitLt
    assert products.MatMul8bitFp is own is not products.MatMul8bitLt
