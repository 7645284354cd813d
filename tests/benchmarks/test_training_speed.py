"""The benchmark of training at small sizes, and what it counts."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoProcessor, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from benchmarks import full_size, questions, training_speed, training_ways
from benchmarks.questions import Work, forward_flops, questions_per_image, training_flops, write_model, write_questions
from vlm_recipes.collators import ChatCollator

FEW = (4 * 784, 9 * 784)  # pixels


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Questions on two images, a tiny model's configuration, and its processor."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "PIXELS", FEW)
        rows = write_questions(folder / "pictures", 2)
        write_model(folder / "model", rows)
    return rows, Qwen2VLConfig.from_pretrained(folder / "model"), AutoProcessor.from_pretrained(folder / "model")


@pytest.mark.parametrize("images", [8, 16, 248, 6500])
def test_images_have_as_many_questions_as_in_kvasir_vqa(images):
    numbers = questions_per_image(images)
    assert len(numbers) == images and sum(numbers) / images == pytest.approx(9.05, abs=0.1)
    assert numbers == questions_per_image(images) and set(numbers) <= set(questions.SAMPLE)
    several = [number for number in questions_per_image(6500) if number > 2]
    assert sum(several) / len(several) == pytest.approx(13.9, abs=0.1)  # as the sample's


def test_the_operations_are_those_that_torch_counts(small):
    """All matrix products of a forward, in which attention and the head have each pair and token."""
    rows, config, processor = small
    batch = ChatCollator(processor)([rows[0], rows[1]])
    network = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**batch)
    (size, length), work = batch["input_ids"].shape, Work(2)
    work.add(batch)
    work.tokens = work.trained = size * length
    work.pairs = size * length**2
    assert sum(forward_flops(config, work).values()) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_backward_has_twice_the_operations_of_the_forward(small):
    rows, config, processor = small
    batch = ChatCollator(processor)([rows[0], rows[1]])
    network = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        network(**batch).loss.backward()
    (size, length), work = batch["input_ids"].shape, Work(2)
    work.add(batch)
    work.tokens = work.trained = size * length
    work.pairs = size * length**2
    assert training_flops(config, work, lora=False) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_every_way_sees_the_same_questions_and_sharing_computes_least(small):
    rows, config, processor = small
    stock, chat, shared = (
        training_speed.count(rows, training_speed.collate(name, processor, rows)) for name in training_speed.WAYS
    )
    assert chat.tokens == stock.tokens and chat.pairs == stock.pairs
    assert chat.trained == shared.trained
    assert shared.padded < chat.tokens and len(shared.patches) < len(chat.patches) == len(rows)
    least = [training_flops(config, work, lora) for lora in (False, True) for work in (shared, chat)]
    assert least[0] < least[1] and least[2] < least[3]


def test_the_full_size_configurations_are_those_of_the_checkpoints_named(small):
    counts = {}
    for name in full_size.SIZES:
        network = full_size.random_weights(full_size.full_size(name, small[2].tokenizer), "meta", torch.bfloat16)
        counts[name] = sum(parameter.numel() for parameter in network.parameters())
    assert counts == {"Qwen2-VL-2B": 2_208_985_600, "Qwen2-VL-7B": 8_291_375_616}  # as on the Hub


def test_the_full_size_measurement_leaves_the_network_as_it_was(small, monkeypatch):
    rows, config, processor = small
    network = full_size.random_weights(config, "cpu", torch.float32)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    table = []
    for name in training_speed.WAYS:
        collated = training_speed.collate(name, processor, rows)
        measured = training_speed.measure_lora(name, network, processor, rows, collated)
        assert len(measured) == training_speed.FULL_EPOCHS and all(one.seconds > 0 for one in measured)
        work = training_speed.count(rows, collated)
        table.append(training_speed.row_of(name, work, measured, measured, config, lora=True, peak=1e12))
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    lines = training_speed.table(table).splitlines()
    assert [line[:15].strip() for line in lines] == ["", *training_speed.WAYS]
    assert all("%" in line for line in lines[1:])


@pytest.mark.slow
def test_training_in_a_process_of_its_own_prints_a_table(monkeypatch, capsys):
    """One way alone: each process takes its time to start."""
    monkeypatch.setattr(questions, "PIXELS", FEW)
    monkeypatch.setattr(training_speed, "WAYS", (training_speed.STOCK,))
    monkeypatch.setattr(training_speed, "ROUNDS", 1)
    monkeypatch.setattr(training_speed, "IMAGES", 2)
    training_speed.main([])
    printed = capsys.readouterr().out
    assert " questions on 2 images" in printed
    assert re.search(r"TRL's collator .* \d\.\d\d .* 1\.00   \(1\.00 to 1\.00\)", printed)


def test_the_toy_is_the_full_size_measurement_of_the_demo_s_model(monkeypatch, capsys):
    rows = list(training_speed.measure(True, "Qwen2-VL-7B"))
    assert {row["what"] for row in rows} == set(training_speed.WAYS)
    assert all(row["questions/s"] > 0 and row["times"] > 0 for row in rows) and rows[0]["times"] == 1
    assert "Qwen2-VL-7B, LoRA" in capsys.readouterr().out


def test_an_epoch_is_timed_from_the_end_of_the_step_that_warms_up(small, monkeypatch):
    """In which each question is once, whatever their number."""
    batches, moments = [], iter(range(100))
    rows, config, processor = small
    collate = training_ways.ChatCollator.__call__

    def counted(collator, batch):
        batches.append([row["id"] for row in batch])
        return collate(collator, batch)

    monkeypatch.setattr(training_ways.ChatCollator, "__call__", counted)
    monkeypatch.setattr(training_ways.time, "perf_counter", lambda: next(moments))
    monkeypatch.setattr(training_ways, "PER_STEP", 4)
    network = full_size.random_weights(config, "cpu", torch.float32)
    settings = {"use_cpu": True, "bf16": False, "dataloader_num_workers": 0}
    [seconds] = training_ways.train(training_ways.CHAT, network, processor, rows, **settings)
    warm_up, *timed = batches
    assert len(warm_up) == 4 and seconds == len(timed) == -(-len(rows) // 4)
    assert [name for batch in timed for name in batch] == rows["id"][:]


@pytest.mark.parametrize("name", training_ways.WAYS)
def test_batches_that_were_made_before_are_those_that_the_trainer_makes(small, name, monkeypatch):
    """In each epoch, after one that warms up."""
    rows, config, processor = small
    monkeypatch.setattr(training_ways, "PER_STEP", 8)
    network, seen = full_size.random_weights(config, "cpu", torch.float32), []
    network.register_forward_pre_hook(
        lambda module, _, given: seen.append(given["input_ids"].clone()) if module.training else None, with_kwargs=True
    )
    settings = {"use_cpu": True, "bf16": False}
    training_ways.train(name, network, processor, rows, **settings)
    made = seen[1:]
    seen.clear()
    collated = training_speed.collate(name, processor, rows)
    assert len(training_ways.train(name, network, processor, rows, None, collated, 2, **settings)) == 2
    assert [ids.tolist() for ids in seen] == [ids.tolist() for ids in [*made, *made, *made]] and len(made) > 1


def test_without_a_gpu_it_says_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    training_speed.main(["--full_size"])
    assert "no GPU" in capsys.readouterr().out
