"""The SurgViVQA recipe as a whole, on a small checkpoint: it learns, adds up, agrees across processes, goes on."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import Image as Feature
from PIL import Image

from demo.checkpoints.surgvivqa import write_surgvivqa
from recipes import ssg_vqa
from tests.support.paths import written_and_real
from tests.support.processes.launch import in_two_processes
from tests.support.running import QUIET, fails, read
from tests.support.session import once
from vlm_recipes.callbacks.preflight.callback import PreflightDone

pytestmark = pytest.mark.usefixtures("figures_are_blank")
COLOURS = {"red": "liver", "yellow": "omentum", "blue": "hook", "white": "cystic_plate"}
VIDEOS = {"train": ["VID04"], "validation": ["VID01"], "test": ["VID02"]}
HEADERS = ["Which anatomical structures are present?|liver", "Which tools are present?|hook", ""]


def questions(i: int, colour: str) -> list[str]:
    other = list(COLOURS)[(i + 1) % 4]
    return [
        f"What color is the thing?|{colour}|zero_hop.json|query_color|NA",
        f"There is a thing; what name is it?|{COLOURS[colour]}|zero_hop.json|query_component|NA",
        f"Is there a {other} thing?|False|one_hop.json|exist|relate_spatial",
        f"What anatomy is at the mid of the frame ?|{COLOURS[colour]}|[4.0, 8.5]",
    ]


def write_frames(folder: Path) -> None:
    """Four one-colour frames with four questions each, in SSG-VQA's layout, as each of three videos."""
    for [video] in VIDEOS.values():
        for kind in ("ssg-qa", "data"):
            (folder / kind / video).mkdir(parents=True)
        for i, colour in enumerate(COLOURS):
            Image.new("RGB", (64, 48), colour).save(folder / "data" / video / f"{i:06}.png")
            (folder / "ssg-qa" / video / f"{i}.txt").write_text("\n".join([*HEADERS, *questions(i, colour)]))
    (folder / "videos.yaml").write_text(json.dumps(VIDEOS))
    texts = [ssg_vqa.prompt(line.split("|")[0], True) for i, c in enumerate(COLOURS) for line in questions(i, c)]
    write_surgvivqa(folder / "model", texts, [f" {label}" for label in ssg_vqa.LABELS] * 9, hidden_size=64, layers=1)


@pytest.fixture(scope="session")
def frames() -> Path:
    return once("frames", write_frames)


TRAINED = {"train_videomae": True, "train_blip": True, "train_gpt2": True}


def start(dataset: Path, output: Path, data: dict | None = None, model: dict = TRAINED, **training) -> None:
    """Run the recipe in this process."""
    ssg_vqa.main(
        ssg_vqa.Data(**{"dataset_name": str(dataset), "videos": str(dataset / "videos.yaml"), **(data or {})}),
        ssg_vqa.Training(**{**QUIET, "output_dir": str(output), **training}),
        ssg_vqa.Model(
            **{
                "model_name_or_path": str(dataset / "model"),
                "dtype": "float32",
                **(TRAINED if model is None else model),
            }
        ),
    )


def run(dataset: Path, output: Path, *parts: dict, **settings) -> dict:
    start(dataset, output, *parts, **settings)
    return read(output)


LEARNING = dict(per_device_train_batch_size=8, learning_rate=3e-3, warmup_steps=10)


@pytest.fixture
def learnt(frames) -> dict:
    """The recipe after it has learnt its sixteen questions by heart."""
    settings = {"max_steps": 100, "eval_strategy": "steps", "eval_steps": 50}
    data = {"questions_per_row": 2}
    return read(once("frames_learnt", lambda output: start(frames, output, data, **LEARNING, **settings)))


def test_sixteen_questions_are_learnt_by_heart(learnt):
    assert [log["loss"] for log in learnt["log"] if "loss" in log][-1] < 0.05
    test = learnt["results"]["test"]
    assert test["n"] == 16 and test["accuracy"] == test["macro_f1"] == test["free_accuracy"] == 1
    assert test["constrained_gain"] == test["accuracy_unmapped"] == 0
    assert test["accuracy_zero_hop_n"] == 8 and test["accuracy_untyped_n"] == 4 and test["accuracy_exist_n"] == 4
    assert test["baseline_accuracy"] == 0.25  # "False", and no name or colour is said as often
    answers = {row["prediction"] for row in learnt["predictions"] if row["split"] == "test"}
    assert answers == {*COLOURS, *COLOURS.values(), "False"}


def test_blank_frames_are_answered_worse(learnt):
    lines = json.loads((learnt["output"] / "preflight.json").read_text())
    looking = next(line for line in lines if line["name"] == "blank images")
    assert looking["status"] == "pass"
    assert looking["numbers"]["with_images"] == 1 and looking["numbers"]["blank"] < 0.6


def test_the_report_shows_kinds_hops_and_ssg_vqa_net_beside_them(learnt):
    report = (learnt["output"] / "report.html").read_text()
    for text in ("By group", "query_color", "zero_hop", "SSG-VQA-Net", "mAP", "macro_precision", "What color is the"):
        assert text in report


@pytest.mark.usefixtures("preflight_is_left_out")
@pytest.mark.parametrize("questions_per_row", [1, 4])
def test_loss_and_gradient_do_not_depend_on_how_a_batch_is_split(questions_per_row, frames, tmp_path):
    seen = []
    questions = 16 if questions_per_row == 4 else 8
    for size in [questions // parts for parts in (1, 2, 4, 8) if questions // parts >= questions_per_row]:
        log = run(
            frames,
            tmp_path / f"{size}",
            {"questions_per_row": questions_per_row},
            do_predict=False,
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=questions // size,
        )["log"]
        seen.append([log[0]["loss"], log[0]["grad_norm"]])
    torch.testing.assert_close(torch.tensor(seen), torch.tensor(seen[:1] * len(seen)), rtol=1e-4, atol=0)


def test_a_saved_model_gives_the_same_numbers_in_one_process_and_in_two(frames, learnt, tmp_path):
    model = {"model_name_or_path": str(learnt["output"])}
    settings = {"do_train": False, "per_device_eval_batch_size": 3}
    in_two_processes(partial(start, frames, tmp_path, model=model, **settings))
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2
    ended = read(tmp_path)
    assert ended["results"] == learnt["results"] and ended["predictions"] == learnt["predictions"]


def test_lora_alone_trains_by_default_and_its_folder_is_a_model_again(frames, tmp_path, capsys):
    trained = run(frames, tmp_path / "lora", model={}, max_steps=4, learning_rate=0.05, warmup_steps=0)
    assert "✓ what trains: " in capsys.readouterr().out
    assert (tmp_path / "lora" / "adapter_model.safetensors").is_file()
    again = run(frames, tmp_path / "again", model={"model_name_or_path": str(tmp_path / "lora")}, do_train=False)
    assert again["predictions"] == trained["predictions"]
    untrained = run(frames, tmp_path / "untrained", model={}, do_train=False)
    assert untrained["results"] != trained["results"] or untrained["predictions"] != trained["predictions"]
    more = run(frames, tmp_path / "more", model={"model_name_or_path": str(tmp_path / "lora")}, max_steps=1)
    assert len(more["log"]) > 0


@pytest.mark.usefixtures("preflight_is_left_out")
def test_training_goes_on_from_a_checkpoint_to_the_same_losses(frames, tmp_path):
    settings = {**LEARNING, "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 5}
    whole = run(frames, tmp_path, do_predict=False, **settings)
    first = [log["loss"] for log in whole["log"] if "loss" in log]
    checkpoint = str(tmp_path / "checkpoint-3")
    again = run(frames, tmp_path, do_predict=False, resume_from_checkpoint=checkpoint, **settings)
    assert [log["loss"] for log in again["log"] if "loss" in log] == pytest.approx(first, rel=1e-6)


@pytest.mark.usefixtures("preflight_is_left_out")
def test_candidates_in_the_prompt_and_the_summed_score(frames, tmp_path):
    ended = run(frames, tmp_path, {"candidates": True, "score": "sum"}, max_steps=1)
    assert ended["results"]["test"]["n"] == 16
    asked = ssg_vqa.prompt("Why?", candidates=True)
    assert asked.startswith("Question: Why?\nCandidates: 0, 1, 10, 2,") and asked.endswith(", white, yellow\nAnswer:")
    assert len(ssg_vqa.LABELS) == 51 and ssg_vqa.LABELS == sorted(ssg_vqa.LABELS)


def test_preflight_looks_at_everything_and_trains_nothing(frames, tmp_path, capsys):
    with pytest.raises(PreflightDone):
        ssg_vqa.main(
            ssg_vqa.Data(dataset_name=str(frames), videos=str(frames / "videos.yaml")),
            ssg_vqa.Training(**QUIET, output_dir=str(tmp_path), max_steps=0),
            ssg_vqa.Model(model_name_or_path=str(frames / "model"), dtype="float32"),
        )
    assert "train 16 on 4 images" in capsys.readouterr().out
    lines = {line["name"]: line for line in json.loads((tmp_path / "preflight.json").read_text())}
    assert {line["status"] for name, line in lines.items() if name != "images kept apart"} == {"pass"}
    assert "30,000 steps take at most" in lines["longest batch"]["found"]
    assert abs(lines["first loss"]["numbers"]["loss"] - lines["first loss"]["numbers"]["bound"]) < 0.3
    assert lines["baselines on test"]["numbers"]["constant"] == 0.25
    assert not list(tmp_path.glob("checkpoint*")) and not (tmp_path / "results.json").exists()


@pytest.mark.usefixtures("preflight_is_left_out")
def test_clips_of_neighbours_reach_the_model_and_a_missing_neighbour_does_not(frames, tmp_path):
    dataset = shutil.copytree(frames, tmp_path / "clips")
    (dataset / "data" / "VID04" / "000001.png").unlink()
    settings = {"clip_stride": 1, "max_rejected": 0.5}
    ended = run(dataset, tmp_path / "out", settings, max_steps=1, do_predict=False)
    assert ended["log"]
    refused = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert {(row["id"].split("#")[0], row["reason"]) for row in refused} == {
        ("VID04/1", "image file is missing: 000001.png"),
        ("VID04/2", "frame 000001.png: image file is missing"),
    }


FAULTS = {
    "a frame is missing": ("VID04/2", "image file is missing: 000002.png"),
    "a frame of another size": ("VID04/2", "frame 000001.png is 64×48, and 000002.png is 32×48"),
    "a label outside": ("VID04/3#8", "the answer 'spleen' is none of the 51 labels"),
    "too many bars": (
        "VID04/3#8",
        "a line with 6 fields: 'What color is it?|red|zero_hop.json|query_color|NA|'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_frame_or_line_is_refused_by_name(fault, frames, tmp_path):
    dataset = shutil.copytree(frames, tmp_path / "faulty")
    picture, text = dataset / "data" / "VID04" / "000002.png", dataset / "ssg-qa" / "VID04" / "3.txt"
    if fault == "a frame is missing":
        picture.unlink()
    elif fault == "a frame of another size":
        Image.new("RGB", (32, 48)).save(picture)
    elif fault == "a label outside":
        text.write_text(text.read_text() + "\nWhat organ is it?|spleen|zero_hop.json|query_component|NA")
    else:
        text.write_text(text.read_text() + "\nWhat color is it?|red|zero_hop.json|query_color|NA|")
    data = {"max_rejected": 0.5, "clip_stride": int("size" in fault)}
    run(dataset, tmp_path / "out", data, max_steps=1, do_predict=False)
    refused = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    place, reason = FAULTS[fault]
    assert any(row["id"].startswith(place) and row["reason"] == reason for row in refused), refused
    assert all(row["id"].startswith("VID04/") for row in refused)


def test_runs_that_cannot_be_end_in_one_line(frames, tmp_path, monkeypatch):
    arguments = ["--dataset_name", str(frames), "--use_cpu", "true", "--output_dir", str(tmp_path / "out")]
    model = ["--model_name_or_path", str(frames / "model")]
    twice = tmp_path / "twice.yaml"
    twice.write_text(json.dumps(VIDEOS | {"test": ["VID02", "VID04"]}))
    line = fails("ssg_vqa", *arguments, *model, "--videos", str(twice), monkeypatch=monkeypatch)
    assert "VID04" in line and "'train'" in line and "'test'" in line
    twice.write_text(json.dumps(VIDEOS | {"train": ["VID04", "VID22"]}))
    line = fails("ssg_vqa", *arguments, *model, "--videos", str(twice), monkeypatch=monkeypatch)
    assert "VID22" in line and "test videos" in line
    videos = ["--videos", str(frames / "videos.yaml")]
    line = fails("ssg_vqa", *arguments, *videos, "--model_name_or_path", "/no/such", monkeypatch=monkeypatch)
    assert line == "error: cannot load the model '/no/such': there is no such folder"
    line = fails(
        "ssg_vqa", *arguments, *videos, *model, "--lora_target_modules", "c_attn", "query", monkeypatch=monkeypatch
    )
    assert "was to stay as it is" in line
    line = fails("ssg_vqa", "--dataset_name", str(tmp_path / "none"), *videos, *model, monkeypatch=monkeypatch)
    assert "there is no folder" in line


def test_no_picture_is_decoded_but_those_trained_on(frames, tmp_path, monkeypatch):
    decoded, decode = [], Feature.decode_example
    monkeypatch.setattr(
        Feature, "decode_example", lambda *args, **kwargs: decoded.append(1) or decode(*args, **kwargs)
    )
    run(frames, tmp_path, max_steps=1, do_predict=False, per_device_train_batch_size=2)
    # The rows of the label audit, the preflight's four and its longest batch, one batch, and a look at the first one.
    assert 2 <= len(decoded) <= 3 + (4 + 2) + 2 + 2


def test_sixteen_bits_score_labels_as_thirty_two_do(frames):
    """GPT-2's logits lie far from 0, all by about as much, which changes no probability."""
    from vlm_recipes.eval.generation.label_tree import LabelTree

    network, processor = ssg_vqa.load(
        ssg_vqa.Data(), ssg_vqa.Model(model_name_or_path=str(frames / "model"), dtype="float32")
    )
    with torch.no_grad():
        network.decoder.transformer.ln_f.bias[0] = -80.0
        network.decoder.transformer.wte.weight[:, 0] = 1.0
    collator = ssg_vqa.VideoCollator(processor, 2, prompt_only=True)
    tree = LabelTree([collator.answer_ids(label) for label in ssg_vqa.LABELS], processor.tokenizer.eos_token_id)
    batch = collator([{"image": Image.new("RGB", (64, 48), "red"), "prompt": ssg_vqa.prompt("What color is it?")}])
    scores = network.score_labels(tree, **batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network.score_labels(tree, **batch)
    assert (scores - rounded).abs().max() < 0.05


def test_a_video_that_a_split_names_has_to_be_there(frames, tmp_path, monkeypatch):
    (tmp_path / "more.yaml").write_text(json.dumps(VIDEOS | {"test": ["VID02", "VID74"]}))
    arguments = ["--dataset_name", str(frames), "--videos", str(tmp_path / "more.yaml"), "--use_cpu", "true"]
    line = fails("ssg_vqa", *arguments, "--output_dir", str(tmp_path / "out"), monkeypatch=monkeypatch)
    assert line.startswith("error: no questions on VID74 of 'test'")


def test_ask_answers_with_a_label(frames, learnt, capsys):
    from vlm_recipes.training.ask import main as ask

    picture = str(frames / "data" / "VID02" / "000000.png")
    ask([str(learnt["output"]), picture, "What color is the thing?"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("000000.png: red")
    with pytest.raises(SystemExit, match="^error: nothing was answered$"):
        ask([str(learnt["output"]), picture, "What color is the thing? " * 200])
    assert "tokens, where the text encoder reads " in capsys.readouterr().out


@pytest.mark.usefixtures("preflight_is_left_out")
@pytest.mark.parametrize("source", written_and_real("real_colon_vqa/in_template.jsonl", slow=True))
def test_real_colon_rows_train_and_are_scored_by_their_keyword(frames, tmp_path, source):
    folder = tmp_path / "colon"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows = [row for row in rows if row["question_type"] in ("scope_motion", "lighting_mode")]
    folder.mkdir()
    for row in rows:
        row["frames"] = row["frames"][:2]
        for frame in row["frames"]:
            path = folder / "data" / f"{row['video_id']}_frames" / f"{frame}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), "pink").save(path)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    videos = {"train": ["002-002", "002-003"], "validation": ["002-004"], "test": ["002-005"]}
    (folder / "videos.yaml").write_text(json.dumps(videos))
    data = {"dataset_name": str(folder / "rows.jsonl"), "videos": str(folder / "videos.yaml")}
    data |= {"dataset_format": "real_colon", "max_new_tokens": 30}
    watch = {"eval_strategy": "steps", "eval_steps": 15, "save_strategy": "steps", "save_steps": 15}
    ended = run(frames, tmp_path / "out", data, max_steps=30, load_best_model_at_end=True, **watch, **LEARNING)
    test = ended["results"]["test"]
    assert test["n"] == sum(row["video_id"] == "002-005" for row in rows)
    assert {"keyword_accuracy", "baseline_keyword_accuracy", "token_f1", "bleu1"} <= set(test)
    assert all(isinstance(row["prediction"], str) for row in ended["predictions"])


@pytest.mark.parametrize(("folder", "n"), written_and_real("ssg_vqa", (13,), (19,)))
def test_a_frame_s_file_has_questions_of_the_51_labels_alone(folder, n):
    rows = ssg_vqa.load_question_folder(folder, folder, ["VID01"])
    queries = [ssg_vqa.read_line(line) for line in rows["line"]]
    assert len(queries) == n
    assert [query["answer"] for query in queries if query["answer"] not in ssg_vqa.LABELS] == []
