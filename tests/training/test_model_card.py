"""The card that a run leaves: its numbers are the run's, its snippet asks as the run did, and nothing else is left."""

import ast
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, RepoUrl, get_token
from huggingface_hub.utils import filter_repo_objects
from PIL import Image

from demo.worlds.small import SIZES
from recipes import nutrition_tables, vqa_rad
from tests.support import tiny
from tests.support.left import STEPS, WHOLE, left_by
from tests.support.paths import ROOT
from tests.support.worlds import world
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.report.check import Check
from vlm_recipes.training import export, model_card
from vlm_recipes.training.model_card import card_of_export, licence_of, plain
from vlm_recipes.training.runs import load_recipe, read_run, restore
from vlm_recipes.training.snippet import asked, example_of

HEADLINES = {"nutrition_tables": "iou_mean", "kvasir_vqa": "accuracy", "vqa_rad": "token_f1"}
HEADLINES |= {"reasonseg": "giou", "ssg_vqa": "accuracy", "visual_chat": "token_f1"}
LIBRARIES_OWN = ("None", "time machine", "fine-tuned version", "Model Card for", "More information needed")
pytestmark = pytest.mark.usefixtures("figures_are_blank")


@pytest.mark.parametrize("recipe", SIZES)
def test_the_card_has_the_run_s_numbers_its_data_and_its_warnings_and_nothing_of_another_s(recipe):
    output = left_by(recipe)
    text, card = (output / "README.md").read_text(), ModelCard.load(output / "README.md")
    assert not [words for words in LIBRARIES_OWN if words in text]
    assert card.data.library_name == "peft" and card.data.base_model_relation == "adapter"
    assert card.data.tags == ["vlm-recipes", recipe]
    results, headline = json.loads((output / "results.json").read_text()), HEADLINES[recipe]
    indexed = {(one.dataset_split, one.metric_name): one for one in card.data.eval_results}
    for split, numbers in results.items():
        one = indexed[split, headline]
        assert one.metric_value == numbers[headline] and one.metric_args["n"] == numbers["n"]
        assert one.metric_args["baseline"] == numbers[f"baseline_{headline}"]
        assert one.metric_args.get("low") == numbers.get(f"{headline}_low")
        [row] = re.findall(rf"### {split} \(n = {numbers['n']}\)\n\n.*\n.*\n\| {headline} .*", text)
        assert f" {numbers[headline]:.3f} " in row and f" {numbers[f'baseline_{headline}']:.3f} " in row
    groups = json.loads((output / "run.json").read_text())["groups"]
    known = [group for group in groups if f"{headline}_{group}" in results["test"]]
    for group in known:
        assert indexed["test", f"{headline}, {group}"].metric_value == results["test"][f"{headline}_{group}"]
        assert f"| {headline}_{group} " in text
    assert bool(known) == (recipe in ("kvasir_vqa", "reasonseg", "ssg_vqa", "visual_chat"))
    checks = json.loads((output / "preflight.json").read_text())
    section = text[text.index("## Warnings of the run") :].split("\n## ")[0]
    warned = [f"- {plain(check['name'] + ': ' + check['found'])}" for check in checks if check["status"] == "warn"]
    assert section.splitlines()[2:] == warned != []
    [trained] = [check["numbers"] for check in checks if check["name"] == "what trains"]
    assert f"| trained | {trained['trainable']:,} of {trained['parameters']:,} parameters" in text
    assert "LoRA, r = " in text and "3 steps, learning rate 0.01, seed 42 |" in text
    assert ("some servers drop" in text) == (recipe == "nutrition_tables")  # whose vision tower has LoRA, too
    assert ("answers freely" in text) == (recipe in ("kvasir_vqa", "ssg_vqa"))


def printed_by(card: Path, folder: Path, monkeypatch, capsys) -> tuple[str, dict]:
    """What the card's snippet says of `folder`/picture.png, and its names."""
    [code] = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    names: dict = {}
    exec(compile(code, str(card), "exec"), names)
    return capsys.readouterr().out, names


@pytest.mark.parametrize(
    "whole", [pytest.param(False, id="adapter"), pytest.param(True, id="whole", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("recipe", SIZES)
def test_the_snippet_says_what_the_run_s_own_evaluation_says(recipe, whole, tmp_path, monkeypatch, capsys):
    output = left_by(recipe, *(WHOLE[recipe].split() if whole else ()))
    picture = Image.linear_gradient("L").resize((120, 90)).convert("RGB")
    picture.paste("red", (20, 10, 70, 50))
    picture.save(tmp_path / "picture.png")
    monkeypatch.chdir(ROOT)
    said, names = printed_by(output / "README.md", tmp_path, monkeypatch, capsys)

    run, module = read_run(output), load_recipe(ROOT / "recipes" / f"{recipe}.py")
    data, model = (restore(getattr(module, part.title()), run["arguments"][part]) for part in ("data", "model"))
    network, processor = module.load(data, replace(model, model_name_or_path=str(output)))
    asked_as = "prompt" if isinstance(names["prompt"], str) else "messages"
    row = {"id": "", "image_id": "", "image": picture, "image_size": [120, 90], asked_as: names["prompt"]}
    [answer] = module.evaluation(data, network, processor).answer(network, [row], constrained=False)
    padding = processor.tokenizer.pad_token or ""
    if recipe == "reasonseg":  # a hardly trained LLaVA says padding, too, which the evaluation leaves out
        said = said.replace(padding, "")
    assert said.strip() == (answer["text"] if isinstance(answer, dict) else answer)

    export.main([str(output), "--to", str(tmp_path / "for others")])
    again, names = printed_by(tmp_path / "for others" / "README.md", tmp_path, monkeypatch, capsys)
    assert again.replace(padding, "") == said.replace(padding, "")
    assert names["folder"] == str(tmp_path / "for others")
    card = ModelCard.load(tmp_path / "for others" / "README.md")
    assert (card.data.library_name, card.data.base_model_relation) == ("transformers", "finetune")
    assert "This folder holds the whole model." in card.text and "an adapter:" not in card.text
    assert card.data.eval_results == ModelCard.load(output / "README.md").data.eval_results


def test_a_prompt_in_turns_and_with_fences_stays_what_it_is():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Two?\n```"}]},
    ]
    found = asked(tiny_network(), evaluation(), {"messages": messages})
    assert found["kind"] == "chat" and found["prompt"] == ["system: Be brief.", "user: <image> Two?", "```"]
    assert ast.literal_eval(found["question"]) == messages
    assert asked(tiny_network(), evaluation(), {"id": "of another shape"})["kind"] == ""


def test_the_prompt_is_the_running_recipe_s_own_and_no_text_of_the_dataset(tmp_path):
    found = example_of(nutrition_tables.__file__, nutrition_tables.Data(), tmp_path)
    assert found == {"messages": nutrition_tables.prompt()}
    assert example_of(vqa_rad.__file__, vqa_rad.Data(), tmp_path) == {"prompt": vqa_rad.prompt("What is shown?")}
    assert example_of(str(tmp_path / "no module"), None, tmp_path) == {} == example_of(ast.__file__, None, tmp_path)


def tiny_network():
    from transformers import AutoConfig, PreTrainedModel

    class Network(PreTrainedModel):
        def __init__(self, config):
            super().__init__(config)

    return Network(AutoConfig.from_pretrained(tiny.qwen2_vl()))


def evaluation() -> Evaluation:
    return Evaluation(None, tiny.exact_match, tiny.exact_scores, "exact", 5)


def test_the_card_of_a_run_that_saved_checkpoints_is_ours_not_trl_s_and_of_one_that_evaluated_there_is_none():
    saving = ("--save_strategy", "steps", "--save_steps", "1")
    output = left_by("visual_chat", *saving)
    text = (output / "README.md").read_text()
    assert "library_name: peft" in text and not [words for words in LIBRARIES_OWN if words in text]
    assert (output / "checkpoint-3" / "trainer_state.json").is_file()
    evaluated = left_by("visual_chat", "--do_train", "false")
    assert (evaluated / "report.html").is_file() and not (evaluated / "README.md").exists()


def test_where_the_best_model_is_kept_card_record_and_line_say_after_which_step_it_was(tmp_path, monkeypatch, capsys):
    """Without a step that changes anything the first evaluation stays the best."""
    arguments = [*world("vqa_rad"), *STEPS.split(), "--output_dir", str(tmp_path), "--learning_rate", "0"]
    arguments += "--eval_strategy steps --eval_steps 1 --save_strategy steps --save_steps 1".split()
    arguments += "--load_best_model_at_end true --do_predict false --max_validation_rows 1 --eval_rows 1".split()
    monkeypatch.setattr("sys.argv", ["vqa_rad", *arguments])
    runpy.run_path(str(ROOT / "recipes" / "vqa_rad.py"), run_name="__main__")
    kept = "kept is the model after step 1, the best by eval_token_f1"
    assert f"{kept}, of 3" in capsys.readouterr().out.splitlines()
    assert read_run(tmp_path)["best_global_step"] == 1
    assert f"| 3 steps, learning rate 0, seed 42; {kept} |" in (tmp_path / "README.md").read_text()
    assert read_run(left_by("vqa_rad"))["best_global_step"] is None


def test_a_run_that_answers_nothing_has_a_card_too():
    output = left_by("vqa_rad", "--do_predict", "false")
    text = (output / "README.md").read_text()
    assert "No rows have been answered." in text and "model-index" not in text and "```python" in text


# --- licences


def card_in(folder: Path, metadata: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# A card\n")
    return str(folder)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ("license: mit", {"license": "mit"}),
        ("license: other\nlicense_name: qwen", {"license": "other", "license_name": "qwen"}),
        ("language: en", {}),
        ("license: [broken", {}),
        ("- no\n- mapping", {}),
    ],
)
def test_a_licence_is_what_the_card_of_the_data_or_the_base_says(metadata, found, tmp_path):
    assert licence_of(card_in(tmp_path / "data", metadata), "dataset") == found


def test_where_no_card_is_to_be_had_no_licence_is_stated(tmp_path):
    assert licence_of(str(tmp_path), "dataset") == {}  # a folder without
    assert licence_of("somebody/offline", "model") == {}


def test_licences_of_base_and_data_stand_in_the_card_and_the_base_s_in_its_metadata(tmp_path, monkeypatch):
    known = {"model": {"license": "other", "license_name": "qwen"}, "dataset": {"license": "cc-by-4.0"}}
    monkeypatch.setattr(model_card, "licence_of", lambda name, kind: known[kind])
    record, network, example = a_record(tmp_path)
    model_card.write_model_card(record, network, example, steps=7)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "other" and card.data.license_name == "qwen"
    assert card.data.base_model == "Qwen/Qwen2-VL-2B-Instruct" and card.data.datasets == ["somebody/pictures"]
    assert "| base model | Qwen/Qwen2-VL-2B-Instruct, licence: qwen |" in card.text
    assert "| data | somebody/pictures, licence: cc-by-4.0 |" in card.text
    assert "This folder holds the whole model." in card.text and card.data.base_model_relation == "finetune"
    assert "7 steps, learning rate 0.0003, seed 5" in card.text  # as trained, not as asked


def a_record(folder: Path):
    from vlm_recipes.eval.metrics.number import Number, Scores
    from vlm_recipes.training.record import RunRecord

    run = {
        "recipe": "mine",
        "git_commit": None,
        "arguments": {
            "model": {"model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct", "dtype": "bfloat16"},
            "data": {"dataset_name": "somebody/pictures"},
            "training": {"learning_rate": 1.0, "seed": 5},
        },
        "trained_with": {"learning_rate": 3e-4},
        "versions": {"python": "3.12"},
        "processes": 2,
        "device": "a card",
    }
    record = RunRecord(str(folder), "A <b>title</b>", evaluation(), run)
    record.results = {"test": Scores(3, {"exact": Number(0.5, 3, 0.25, 0.75, baseline=0.125)})}
    return record, tiny_network(), tiny.chat_rows()[0]


def test_texts_from_anywhere_mean_nothing_in_the_card(tmp_path):
    record, network, example = a_record(tmp_path)
    record.checks = [Check("<script>|\n# head", "warn", "[x](http://a) \u202e \ud83d")]
    example["messages"][0]["content"][1]["text"] = "```\n# a heading\n<script>"
    model_card.write_model_card(record, network, example, steps=1)
    text = (tmp_path / "README.md").read_text()
    assert "# A <b>" not in text and "A &lt;b&gt;title&lt;/b&gt;" in text
    assert "- &lt;script&gt;| # head: \\[x](http://a) \\u202e \\ud83d" in text.splitlines()
    assert "\n    # a heading\n    <script>\n" in text and "\n# a heading" not in text
    assert "| exact  | 0.500 | 0.250 to 0.750 |  3 |    0.125 |" in text
    [code] = re.findall(r"```python\n(.*?)\n```\n", text, re.DOTALL)
    compile(code, "README.md", "exec")


def test_a_card_that_is_not_ours_is_not_exported(tmp_path):
    folder, into = tmp_path / "run", tmp_path / "to"
    into.mkdir()
    card_of_export(folder, into, into)
    card_in(folder, "tags: [lora]")
    card_of_export(folder, into, into)
    assert not (into / "README.md").exists()


# --- the Hub


def test_the_hub_gets_the_card_and_the_finished_report_with_the_model(monkeypatch):
    """A stand-in for the Hub keeps what it is sent."""
    hub: dict[str, bytes] = {}
    commits = []

    def upload(self, *, repo_id, folder_path, allow_patterns=None, ignore_patterns=None, **settings):
        files = [file.relative_to(folder_path).as_posix() for file in Path(folder_path).rglob("*") if file.is_file()]
        sent = list(filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        hub.update({name: Path(folder_path, name).read_bytes() for name in sent})
        commits.append((repo_id, settings["commit_message"], settings.get("token") or get_token(), sent))

    monkeypatch.setenv("HF_TOKEN", "hf_another")
    monkeypatch.setattr(HfApi, "whoami", lambda self, token=None: {"name": "somebody"})
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: RepoUrl(f"somebody/{name}"))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    output = left_by("vqa_rad", "--push_to_hub", "true", "--hub_model_id", "scans", "--hub_token", "hf_a_token")
    assert {(repository, token) for repository, _, token, _ in commits} == {("somebody/scans", "hf_a_token")}
    assert commits[-1][1] == "Model card and report"
    assert "adapter_model.safetensors" not in commits[-1][3] and "adapter_model.safetensors" in hub
    for name in ("README.md", "report.html", "data.html", "results.json", "run.json", "predictions.jsonl"):
        assert hub[name] == (output / name).read_bytes(), name
    assert json.loads(hub["run.json"])["finished"] is True
    assert [name for name, content in hub.items() if b"hf_a_token" in content] == []
    text = hub["README.md"].decode()
    assert "folder = 'somebody/scans'" in text and text.split("---\n")[2].startswith("\n# scans\n")
    assert str(output) not in text
    links = re.findall(r'(?:href|src)="([^"#:]+)"', hub["report.html"].decode()) + re.findall(r"\]\(([^):]+)\)", text)
    assert links and set(links) <= hub.keys()


@pytest.mark.parametrize(("metadata", "said"), [("license: 4.0", "4.0"), ("license: [mit, 2.0]", "mit, 2.0")])
def test_a_licence_that_yaml_takes_for_a_number_is_a_text_in_the_card(metadata, said, tmp_path):
    found = licence_of(card_in(tmp_path / "data", metadata), "dataset")
    assert model_card._in_words(found) == said
