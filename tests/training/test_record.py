import json
import re
import subprocess
from dataclasses import dataclass, replace

import datasets
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments
from trl import ModelConfig, ScriptArguments

from tests.support import tiny
from vlm_recipes.callbacks import GenerationEvalCallback
from vlm_recipes.collators import ChatCollator
from vlm_recipes.eval.boxes import box_evaluation
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.metrics.box_codecs import Qwen2VLBoxes
from vlm_recipes.eval.metrics.number import Number
from vlm_recipes.eval.metrics.statistics import summarize
from vlm_recipes.training.description import describe_run, git_commit
from vlm_recipes.training.record import RunRecord, peak_memory
from vlm_recipes.training.run import ReportCallback


@dataclass
class Data(ScriptArguments):
    dataset_name: str = "somebody/something"


def exact_match(answers, rows):
    return summarize({"exact": tiny.exact_scores(answers, rows)})


@pytest.fixture(scope="module")
def trained():
    folder = tiny.trained_qwen2_vl()
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def evaluation(processor, **changes):
    settings = {"metric": exact_match, "score": tiny.exact_scores, "headline": "exact"}
    settings |= {"max_new_tokens": 30, "keep": ("answer",)}
    settings |= {"reference": lambda row: row["answer"], "question": lambda row: f"what is {row['id']}?"}
    return Evaluation(ChatCollator(processor, prompt_only=True), **(settings | changes))


def record_of(processor, folder, run=None, **changes):
    return RunRecord(str(folder), "A title", evaluation(processor, **changes), run or {"recipe": "some_recipe"})


def read(folder):
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
    return (
        json.loads((folder / "run.json").read_text()),
        json.loads((folder / "results.json").read_text()),
        [json.loads(line) for line in lines if line],
    )


def test_a_finished_run_leaves_its_numbers_answers_arguments_and_report(tmp_path, trained, capsys):
    model, processor = trained
    rows = tiny.chat_rows()
    rows[6]["answer"] = "something else"
    history = [{"loss": 2.0, "step": 1}, {"train_samples_per_second": 12.5, "step": 2}]
    record = record_of(processor, tmp_path / "out")
    record.rejected = [{"split": "train", "id": "7", "reason": "no box"}]
    record.conclude(model, {"validation": rows[:4], "test": rows[4:]}, history)

    run, results, predictions = read(tmp_path / "out")
    assert results["validation"] == {"n": 4, "exact": 1.0, "exact_low": 1.0, "exact_high": 1.0}
    assert results["test"]["exact"] == 0.75 and results["test"]["n"] == 4
    assert [(row["split"], row["id"]) for row in predictions] == [
        ("validation" if i < 4 else "test", row["id"]) for i, row in enumerate(rows)
    ]
    assert predictions[6] == {
        "split": "test",
        "id": "white",
        "prediction": "white",
        "reference": "something else",
        "score": 0.0,
        "answer": "something else",
    }
    assert run["recipe"] == "some_recipe" and run["finished"] is True
    assert run["samples_per_second"] == 12.5 and run["peak_memory_gib"] > 0.1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "A title" in page and "what is white?" in page and "no box" in page
    printed = capsys.readouterr().out
    assert re.search(r"^\| part +\| +n \| exact \| +95% interval \|$", printed, re.MULTILINE)
    assert re.search(r"^\| test +\| +4 \| 0\.750 \| 0\.\d+ to 1\.000 \|$", printed, re.MULTILINE)
    assert re.search(r"^\| validation +\| +4 \| 1\.000 \| 1\.000 to 1\.000 \|$", printed, re.MULTILINE)
    assert (
        f"report: {tmp_path / 'out' / 'report.html'}\nbeside it: results.json, predictions.jsonl, run.json" in printed
    )


def test_groups_reach_the_report_with_their_confusions_and_failures(tmp_path, trained):
    model, processor = trained
    rows = [row | {"image_id": row["id"][0], "kind": "color"} for row in tiny.chat_rows()]
    rows[0]["answer"], rows[3]["kind"], rows[5]["kind"] = "white", "open", "unlisted"

    def score(answers, rows):
        metrics = exact_match(answers, rows)
        return metrics | {"exact": replace(metrics["exact"], groups={"color": Number(0.8, 6), "open": Number(1.0, 0)})}

    def class_pairs(row, answer):
        return [] if row["kind"] == "open" or "nothing" in row["answer"] else [(row["answer"], answer)]

    changes = {
        "metric": score,
        "groups": ("open", "color"),
        "group": lambda row: row["kind"] if "images" not in row else None,
        "class_pairs": class_pairs,
    }
    record = record_of(processor, tmp_path, **changes)
    record.conclude(model, {"test": datasets.Dataset.from_list(rows)}, [])
    page = (tmp_path / "report.html").read_text()
    assert "By group" in page and (tmp_path / "figures" / "groups.png").is_file()
    section = page[page.index("Confusions") : page.index("Failures")]
    captions = re.findall(r"<bdi>(\w+)</bdi></b> (\d+) of (\d+) on the diagonal", section)
    assert captions == [("color", "3", "4"), ("unlisted", "1", "1")]  # two true answers have no class
    assert "Right answers" in page and re.search("Failures.*?1 of 1<", page)
    assert page[page.index("Failures") :].count('<bdi class="tag">color</bdi>') == 1


def test_a_group_that_is_not_clear_of_its_baseline_is_named_at_the_end_and_first_in_the_report(
    tmp_path, trained, capsys
):
    model, processor = trained
    rows = [row | {"image_id": row["id"], "kind": "color"} for row in tiny.chat_rows()]
    clear, unclear = Number(0.9, 8, 0.8, 1.0, baseline=0.5), Number(0.4, 8, 0.3, 0.5, baseline=0.35)

    def score(answers, rows):
        metrics = exact_match(answers, rows)
        return metrics | {"exact": replace(metrics["exact"], groups={"clear": clear, "<i>place": unclear})}

    changes = {"metric": score, "groups": ("clear", "<i>place"), "baseline": "the constant mask's"}
    record = record_of(processor, tmp_path, **changes, group=lambda row: "clear")
    record.conclude(model, {"validation": rows[:4], "test": rows}, [])
    found = "0.400 (0.300 to 0.500, n = 8), not clear of the constant mask&#39;s 0.350"
    printed = capsys.readouterr().out
    assert printed.count("not clear of") == 1 and f"! <i>place: {found}".replace("&#39;", "'") in printed.splitlines()
    page = (tmp_path / "report.html").read_text()
    assert page.index(found) < page.index('class="card headline"') and "! &lt;i&gt;place" in page
    checks = {check["name"]: check["status"] for check in json.loads((tmp_path / "preflight.json").read_text())}
    assert set(checks) == {"blank images", "<i>place"} and checks["<i>place"] == "warn"


def test_an_answer_of_no_class_counts_as_a_wrong_one(tmp_path, trained):
    rows = [{"id": str(i), "answer": answer} for i, answer in enumerate(["yes", "no", "describe"])]
    changes = {"group": lambda row: "all"}
    changes["class_pairs"] = lambda row, answer: [(row["answer"], answer)] if row["answer"] in ("yes", "no") else []
    record = record_of(trained[1], tmp_path, **changes)
    predictions = [
        {"id": row["id"], "reference": row["answer"], "prediction": said, "score": 0.0}
        for row, said in zip(rows, ["yes", "hm", "no"], strict=True)
    ]
    [table] = record._confusions(predictions, rows).values()
    assert table.labels == ("no", "yes") and table.counts.tolist() == [[0, 0, 1], [0, 1, 0]]
    record.write([], {"validation": {}}, {"validation": []}, {"validation": rows})  # nothing evaluated yet
    assert "Confusions" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("kind", ["text", "boxes"])
def test_a_split_of_hardly_any_rows_ends_in_results_too(tmp_path, trained, capsys, kind, count):
    model, processor = trained
    rows = tiny.chat_rows()[4:]  # the first answer is a box
    changes = {}
    if kind == "boxes":
        codec = Qwen2VLBoxes()
        for row in rows:
            row |= {"boxes": codec.decode(tiny.ANSWERS["yellow"], [1000, 1000]), "image_size": [1000, 1000]}
        boxes = box_evaluation(None, codec, 1, baseline=[0.1, 0.1, 0.9, 0.9])
        changes = {"metric": boxes.metric, "score": boxes.score, "headline": "iou_mean"}
    record_of(processor, tmp_path, **changes).conclude(model, {"test": rows[:count]}, [])
    _, results, predictions = read(tmp_path)
    assert results["test"]["n"] == count == len(predictions)
    assert re.search(rf"^\| test +\| +{count} \|", capsys.readouterr().out, re.MULTILINE)
    if count:
        assert results["test"]["iou_mean" if kind == "boxes" else "exact"] > 0
    assert (tmp_path / "report.html").is_file()


def test_the_report_says_answers_as_people_read_them_and_the_predictions_as_the_model_wrote_them(tmp_path, trained):
    model, processor = trained
    [row] = [row for row in tiny.chat_rows() if row["id"] == "yellow"]
    record = record_of(processor, tmp_path, shown=lambda row, answer: f"{row['id']} of {len(answer)} characters")
    record.conclude(model, {"test": [row]}, [])
    page, [line] = (tmp_path / "report.html").read_text(), read(tmp_path)[2]
    assert line["prediction"] == line["reference"] == tiny.ANSWERS["yellow"]
    said = f'<bdi class="text">yellow of {len(tiny.ANSWERS["yellow"])} characters</bdi>'
    assert page.count(said) == 2 and "box_start" not in page[page.index("Best rows") :]


def test_a_run_that_only_trains_leaves_its_files_too(tmp_path, trained):
    record_of(trained[1], tmp_path).conclude(trained[0], {}, [{"loss": 1.0, "step": 1}])
    run, results, predictions = read(tmp_path)
    assert run["finished"] is True and results == {} and predictions == []
    assert (tmp_path / "report.html").is_file()


def test_the_drawing_gets_the_picture_the_row_and_the_answer(tmp_path, trained):
    model, processor = trained
    drawn = {}

    def draw(image, row, answer):
        drawn[row["id"]] = (image.size, answer)
        return image

    rows = tiny.chat_rows()  # `images`, and one row without any
    rows[1]["image"] = rows[1]["images"][0]  # as in the recipes
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    rows[2]["images"][0].save(path, exif=exif)
    rows[2]["images"] = [str(path)]
    record_of(processor, tmp_path, draw=draw).conclude(model, {"test": rows}, [])
    expected = {row["id"]: tuple(row["image_size"]) for row in rows if row["id"] != "text only"}
    expected["blue"] = expected["blue"][::-1]
    assert {name: size for name, (size, _) in drawn.items()} == expected
    assert drawn["lime"][1] == "it is green"


@pytest.mark.parametrize("background", ["white", "black"])
def test_the_report_shows_a_transparent_picture_as_the_model_sees_it(background, tmp_path, trained):
    model, processor = trained
    drawn, rows = {}, tiny.chat_rows()[:2]
    rows[1]["images"] = [Image.new("RGBA", (56, 56), (255, 0, 0, 0))]

    def draw(image, row, answer):
        drawn[row["id"]] = (image.mode, image.getpixel((0, 0)))
        return image

    record = record_of(processor, tmp_path, draw=draw)
    record.evaluation.collator.background = background
    record.conclude(model, {"test": rows}, [])
    assert drawn["lime"] == ("RGB", (255, 255, 255) if background == "white" else (0, 0, 0))


def test_texts_from_anywhere_are_written_as_utf8_json(tmp_path, trained):
    model, processor = trained
    rows = tiny.chat_rows()[:2]
    rows[0]["answer"] = "grün\u2028\ud83d"  # a lone surrogate, as broken JSON can hold
    rows[1]["id"] = "a\nb"
    record_of(processor, tmp_path).conclude(model, {"test": rows}, [])
    predictions = read(tmp_path)[2]
    assert [row["answer"] for row in predictions] == ["grün\u2028\ud83d", "it is green"]
    assert "grün" in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    assert predictions[1]["id"] == "a\nb"


def test_run_json_says_what_one_needs_to_repeat_a_run_and_no_secret(tmp_path, trained, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_environment_secret")
    data, model = Data(), ModelConfig("some/model", load_in_4bit=True)
    training = TrainingArguments(
        tmp_path, hub_token="hf_secret_token", push_to_hub=False, learning_rate=3e-4, use_cpu=True, report_to="none"
    )
    rows = [datasets.Dataset.from_dict({"id": ["a", "b"], "answer": answers}) for answers in (["x", "y"], ["x", "z"])]
    parts = {"train": rows[0], "again": datasets.Dataset.from_dict(rows[0].to_dict()), "test": rows[1]}
    parts["turned"] = rows[0].select([1, 0])
    run = describe_run(str(tmp_path / "nutrition_tables.py"), data, training, model, parts)
    record_of(trained[1], tmp_path, run).write([], {}, {}, {})
    text = (tmp_path / "run.json").read_text()
    written = json.loads(text)
    assert "secret" not in text
    assert written["recipe"] == "nutrition_tables"
    assert written["arguments"]["data"]["dataset_name"] == "somebody/something"
    assert written["arguments"]["training"]["learning_rate"] == 3e-4
    assert written["arguments"]["model"]["load_in_4bit"] is True
    assert torch.__version__.startswith(written["versions"]["torch"].split("+")[0])
    assert set(written["versions"]) == {"python", "torch", "transformers", "trl", "accelerate", "peft", "datasets"}
    found = written["dataset_fingerprint"]
    assert found["train"] == found["again"] and len({*found.values()}) == 3  # of the rows and their order
    assert written["git_commit"] is None  # tmp_path is in no repository
    assert written["processes"] == 1 and written["device"] and written["finished"] is False


def test_the_git_commit_is_that_of_the_folder_and_says_when_files_differ(tmp_path):
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "missing") is None

    def git(*arguments):
        person = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *person, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    git("init")
    assert git_commit(tmp_path) is None  # nothing committed yet
    (tmp_path / "recipe.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag is no commit")
    commit = git("rev-parse", "HEAD").stdout.strip()
    assert git_commit(tmp_path) == commit and len(commit) == 40
    (tmp_path / "recipe.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_peak_memory_is_in_gib():
    before = peak_memory()
    block = torch.ones(2**27)  # half a GiB
    assert 0.05 < before < 64
    if not torch.cuda.is_available():
        assert before <= peak_memory() < before + 0.6
    del block


def test_the_report_of_a_run_in_progress_is_written_at_each_evaluation_and_at_the_end(tmp_path, trained):
    model, processor = AutoModelForImageTextToText.from_pretrained(tiny.trained_qwen2_vl()), trained[1]
    args = TrainingArguments(
        tmp_path,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=2,
        logging_steps=1,
        learning_rate=0.0,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = tiny.chat_rows()
    trainer = Trainer(model, args, data_collator=ChatCollator(processor), train_dataset=rows, eval_dataset=rows)
    record = record_of(processor, tmp_path)
    watch = GenerationEvalCallback(trainer, rows[:5], record.evaluation)
    written = []
    write = record.write
    record.write = lambda history, *rest: written.append([log["step"] for log in history][-1]) or write(history, *rest)
    trainer.add_callback(watch)
    trainer.add_callback(ReportCallback(record, watch))
    trainer.train()
    assert written == [2, 3, 3]  # the Trainer evaluates after its last step, too
    run, results, predictions = read(tmp_path)
    assert run["finished"] is False and run["samples_per_second"] > 0
    assert results["validation"]["n"] == 5 and results["validation"]["exact"] == 1.0
    assert [row["id"] for row in predictions] == [row["id"] for row in watch.rows]
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_a_run_that_never_evaluated_has_a_report_at_its_end(tmp_path, trained):
    processor = trained[1]
    args = TrainingArguments(tmp_path, max_steps=1, report_to="none", save_strategy="no", use_cpu=True)
    args.remove_unused_columns, args.disable_tqdm = False, True
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    trainer = Trainer(model, args, data_collator=ChatCollator(processor), train_dataset=tiny.chat_rows())
    record = record_of(processor, tmp_path)
    watch = GenerationEvalCallback(trainer, tiny.chat_rows(), record.evaluation)
    trainer.add_callback(ReportCallback(record, watch))
    trainer.train()
    assert read(tmp_path)[1] == {"validation": {}}
    assert (tmp_path / "report.html").is_file()
