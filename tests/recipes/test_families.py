"""The recipes for chat models with tiny checkpoints of every family: trained, saved, reloaded equal, or refused."""

import json
import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from recipes import kvasir_vqa, nutrition_tables
from tests.support.families import FAMILIES, STRANGERS, checkpoint
from tests.support.families.runs import PIXELS, WAYS, answer, name_of, start
from tests.support.families.table import documented
from tests.support.families.worlds import world
from tests.support.running import fails, read
from vlm_recipes.collators import sharing
from vlm_recipes.models.upstream import without_router_loss

pytestmark = pytest.mark.usefixtures("figures_are_blank")

BOTH = ("language", "vision")
REACHED = {"nutrition_tables, vision": ("vision",), "nutrition_tables, LoRA on both": BOTH}
REACHED |= {"nutrition_tables, all": BOTH}
SHARES_NO_IMAGE = {
    "qwen3_5": "qwen3_5 has layers of linear_attention",
    "gemma3": "gemma3 has layers of sliding_attention",
    "mllama": "mllama reads images by cross attention",
    "gemma4": "gemma4 has layers of sliding_attention",
    "lfm2_vl": "lfm2_vl has layers of conv",
}


def refusal(way: str, family: str) -> str:
    """What the one line says that a run ends with; "" for one that trains."""
    if family == "paligemma":
        return "has no chat template, and this recipe is for chat models: name another model"
    asks_with_a_system_message = WAYS[way][0] in (nutrition_tables, kvasir_vqa)
    if family == "mllama" and asks_with_a_system_message:
        return "the chat template refuses the conversation: Prompting with images is incompatible with system messages"
    return ""


EVERY = [(family, way) for family in (*FAMILIES, *STRANGERS) for way in WAYS]
TRAIN = [pair for pair in EVERY if not refusal(*reversed(pair))]
REFUSED = sorted({(f, name_of(WAYS[way][0]), refusal(way, f)) for f, way in EVERY if (f, way) not in TRAIN})
# Of each kind one in one way; `make test-slow` has all in all ways.
QUICK = [
    ("qwen3_vl", "nutrition_tables, LoRA on both"),
    ("qwen3_vl_moe", "kvasir_vqa"),
    ("llava_next", "nutrition_tables, vision"),
    ("internvl", "nutrition_tables, all"),
    ("smolvlm", "kvasir_vqa"),
    ("gemma3", "visual_chat"),
    ("mllama", "visual_chat"),
    ("lfm2_vl", "nutrition_tables, LoRA on language"),
]


def changed(family: str, folder) -> tuple[str, ...]:
    """The parts of a model, as transformers names them, of which a run left other weights than it began with."""
    base = AutoModelForImageTextToText.from_pretrained(checkpoint(family))
    before = dict(base.named_parameters())
    if (folder / "adapter_config.json").exists():
        loaded = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(checkpoint(family)), folder)
        trained = dict(loaded.merge_and_unload().named_parameters())
    else:
        trained = dict(AutoModelForImageTextToText.from_pretrained(folder).named_parameters())
    assert trained.keys() == before.keys()
    parts = {"language": base.get_decoder(), "vision": base.get_encoder(modality="image")}
    own = {part: {id(weight) for weight in module.parameters()} for part, module in parts.items()}
    differ = {id(before[name]) for name in before if not torch.equal(before[name], trained[name])}
    return tuple(part for part in parts if differ & own[part])


def trains(family: str, way: str, tmp_path, said) -> None:
    assert documented()[family, way] == "works"
    sharing._say.cache_clear()  # else it says once a process why no image is shared
    start(way, family, tmp_path / "run")
    ended, recipe, out = read(tmp_path / "run"), name_of(WAYS[way][0]), said().out
    losses = [line["loss"] for line in ended["log"] if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    assert changed(family, tmp_path / "run") == REACHED.get(way, ("language",))
    differ = re.findall(r"loaded anew by .*: logits differ by (\S+) of their spread", out)
    assert len(differ) == 2 and max(map(float, differ)) < 1e-5
    checks = {line["name"]: line for line in json.loads((tmp_path / "run" / "preflight.json").read_text())}
    for name in ("labels", "what trains", "first loss", "longest batch", "frozen parts", "gradients"):
        assert checks[name]["status"] == "pass", checks[name]
    assert "LoRA's layers" not in checks or checks["LoRA's layers"]["status"] == "pass", checks["LoRA's layers"]
    has_own_way = re.search("resizes pictures in its own way: --min_pixels and --max_pixels do nothing", out)
    assert bool(has_own_way) == (
        family not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v")
    )
    if recipe == "kvasir_vqa":
        assert_kept_to_choices(ended["predictions"], tmp_path / "run")
        why = SHARES_NO_IMAGE.get(family)
        assert re.findall("one question a row, not 3: (.*)", out) == ([why] if why else [])
        assert ("the experts' balancing loss" in out) == (family == "qwen3_vl_moe")
    else:
        assert ended["results"]["test"]["n"] == len(ended["predictions"]) == 2


def assert_kept_to_choices(predictions: list[dict], folder) -> None:
    types = kvasir_vqa.QuestionTypes.load(folder / "question_types.json")
    assert [len(predictions), {types[row["question"]].name for row in predictions}] == [
        6,
        {"yes_no", "count_numeric", "color"},
    ]
    free = 0
    for row in predictions:
        kind = types[row["question"]]
        allowed = {*kind.choices, *(map(str, range(1000)) if kind.units else ())}
        assert {*row["prediction"].split("; ")} <= allowed
        free += not {*row["free_prediction"].split("; ")} <= allowed
    assert free


@pytest.mark.parametrize(("family", "way"), QUICK)
def test_a_recipe_trains_a_family_and_what_it_saves_is_that(family, way, tmp_path, capsys):
    trains(family, way, tmp_path, capsys.readouterr)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "way"), TRAIN)
def test_every_recipe_trains_every_family_and_the_saved_folder_answers_the_same(family, way, tmp_path, capsys):
    trains(family, way, tmp_path, capsys.readouterr)
    answer(way, tmp_path / "run", tmp_path / "answered")
    first, again = read(tmp_path / "run"), read(tmp_path / "answered")
    assert first["predictions"] == again["predictions"]
    assert first["results"]["test"] == again["results"]["test"]


@pytest.mark.parametrize("do_train", ["true", "false"])
@pytest.mark.parametrize(("family", "recipe", "why"), REFUSED)
def test_what_a_recipe_cannot_ask_of_a_family_ends_in_one_line(family, recipe, why, do_train, tmp_path, monkeypatch):
    arguments = {"dataset_name": world(recipe), "model_name_or_path": checkpoint(family), "output_dir": tmp_path}
    arguments |= {**PIXELS, "use_cpu": True, "validation_fraction": 0.25, "do_train": do_train}
    arguments |= {"dataloader_num_workers": 1}
    line = fails(
        recipe, *(str(one) for name in arguments for one in (f"--{name}", arguments[name])), monkeypatch=monkeypatch
    )
    assert line.startswith("error: ") and why in line
    ways = [way for way in WAYS if name_of(WAYS[way][0]) == recipe]
    assert all(why in documented()[family, way] for way in ways)


def test_a_model_of_experts_is_saved_as_one_that_answers(tmp_path):
    """`SFTTrainer` has its configuration ask for the routers' loss, which `generate` cannot take."""
    start("nutrition_tables, all", "qwen3_vl_moe", tmp_path)
    network = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert not network.config.text_config.output_router_logits
    padded = {
        "input_ids": torch.tensor([[0, 6, 7], [7, 6, 5]]),
        "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]),
    }
    padded |= {"max_new_tokens": 3, "min_new_tokens": 3}
    expected = network.generate(**padded)
    network.config.text_config.output_router_logits = True
    with pytest.raises(RuntimeError, match="must match the size"):  # mended upstream: delete without_router_loss
        network.generate(**padded)
    with without_router_loss(network.config):
        assert torch.equal(network.generate(**padded), expected)
    assert network.config.text_config.output_router_logits
