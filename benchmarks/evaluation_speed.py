"""Answering all questions about an image, and scoring closed sets of answers: `python -m benchmarks.evaluation_speed`.

Questions of `benchmarks.questions` for the demo's Qwen2-VL, random, in float32, through
`vlm_recipes.eval.generation.generate`, greedily and to the last of `NEW_TOKENS`: one question at a time, padded
batches of questions (`ChatCollator`), and batches in which those about an image share it (`SharedImageCollator`), all
in the same order, collating included. Then the labels of each closed question:
`vlm_recipes.eval.generation.shared_prefix.score_labels` for all questions about an image, against batches of image,
question and label, one batch for each question, forwards alone. All run in turns in this process; the ratio of one run
counts, not the seconds. The texts have to be the same, and not all alike; the scores are compared.

`--full_size`, on a GPU: Qwen2-VL-2B with random weights in bfloat16. There rounding may change a text from batch to
batch: how many agree is told, and none has to.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from benchmarks.full_size import full_size, random_weights
from benchmarks.questions import FEW_PIXELS, write_model, write_questions
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.generation.label_tree import LabelTree
from vlm_recipes.eval.generation.shared_prefix import score_labels

IMAGES, BATCH, NEW_TOKENS, ROUNDS = 8, 16, 8, 3
# A question by itself is nine forwards, a third of a second where launching kernels takes the time (reckoned).
FULL_IMAGES, FULL_ROUNDS, FULL_SIZE, TOY_IMAGES, TOY_ROUNDS = 3, 2, "Qwen2-VL-2B", 2, 1
SCORED = 2  # images whose closed questions' labels are scored
LOUDER = 4  # random weights are multiplied by it: as small as they are, every answer would be the same
ALONE, PADDED, SHARED = "one by one", "padded batch", "shared images"


Seconds = dict[str, list[float]]  # of each way's rounds


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[Seconds, dict[str, Any]]:
    """Seconds of each round, and what came out."""
    seconds, results = {name: [] for name in ways}, {}
    for _ in range(rounds):
        for name, run in ways.items():
            start = now()
            results[name] = run()
            seconds[name].append(now() - start)
    return seconds, results


def answering(network: Any, processor: Any, questions: Dataset, rounds: int) -> tuple[Seconds, dict[str, list[str]]]:
    """Seconds and answers of each way."""
    apart, together = (kind(processor, prompt_only=True) for kind in (ChatCollator, SharedImageCollator))

    def ask(collator: Any, batch: int) -> Callable[[], list[str]]:
        settings = {"batch_size": batch, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
        generate(network, questions.select(range(2)), collator, **settings)  # warms up
        return lambda: generate(network, questions, collator, **settings)

    ways = {ALONE: ask(apart, 1), PADDED: ask(apart, BATCH), SHARED: ask(together, BATCH)}
    return in_turns(ways, rounds)


@torch.no_grad()
def one_by_one(network: Any, batches: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """Mean log-probability per token of each label, a batch for each question."""
    scores = []
    for batch in batches:
        inputs = send_to_device(dict(batch), network.device)
        targets = inputs.pop("labels")[:, 1:]
        logits = network(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        said = targets != -100
        of_targets = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        scores.append((of_targets * said).sum(1) / said.sum(1))
    return scores


def scoring(network: Any, processor: Any, questions: Dataset, rounds: int) -> tuple[Seconds, list[int], float]:
    """Seconds of either way, each question's number of labels, and how far the scores are apart at most."""
    apart, together = ChatCollator(processor), SharedImageCollator(processor, prompt_only=True)
    batches, shared, trees = [], [], []
    for image_id in list(dict.fromkeys(questions["image_id"]))[:SCORED]:
        asked = [row for row in questions if row["image_id"] == image_id and len(row["choices"]) > 1]
        shared.append(together(asked))
        trees.append([])
        for row in asked:
            ids = [apart.answer_ids(choice) for choice in row["choices"]]
            trees[-1].append(LabelTree([label[:-1] for label in ids], ids[0][-1]))
            said = [{"role": "assistant", "content": [{"type": "text", "text": choice}]} for choice in row["choices"]]
            batches.append(apart([row | {"messages": [*row["messages"][:-1], answer]} for answer in said]))

    def as_trees() -> list[torch.Tensor]:
        moved = (send_to_device(dict(batch), network.device) for batch in shared)
        return [one for batch, own in zip(moved, trees, strict=True) for one in score_labels(network, batch, own)]

    as_trees(), one_by_one(network, batches[:1])  # warms up
    seconds, scores = in_turns({ALONE: lambda: one_by_one(network, batches), SHARED: as_trees}, rounds)
    apart_most = max(float((a - b).abs().max()) for a, b in zip(scores[ALONE], scores[SHARED], strict=True))
    return seconds, [len(tree.labels) for own in trees for tree in own], apart_most


def rows_of(what: str, seconds: Seconds, questions: int) -> list[dict[str, Any]]:
    """A row for each way: it is "times" as fast as one by one, and "times padded batch" as that, if that is one."""
    rows = []
    for name, own in seconds.items():
        row = {"what": f"{what}, {name}", "questions/s": round(questions / statistics.median(own), 3)}
        for other in list(seconds)[:-1]:
            ratios = [theirs / mine for theirs, mine in zip(seconds[other], own, strict=True)]
            of = "" if other == ALONE else f" {other}"
            row[f"times{of}"] = round(statistics.median(ratios), 2)
            row[f"range{of}"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':24}" + "".join(f"{key:>20}" for key in list(rows[0])[1:])]
    lines += [f"{row['what']:24}" + "".join(f"{cell:>20}" for cell in list(row.values())[1:]) for row in rows]
    return "\n".join(lines)


def compare(network: Any, processor: Any, questions: Dataset, rounds: int, exact: bool) -> list[dict[str, Any]]:
    """Print both tables and return them as rows; `exact`: the answers have to be the same, and not all alike.

    "as one by one" is the share of answers that are so, "different" how many different ones there are.
    """
    answered, answers = answering(network, processor, questions, rounds)
    agree = {name: sum(map(str.__eq__, own, answers[ALONE])) / len(questions) for name, own in answers.items()}
    different = {name: len(set(own)) for name, own in answers.items()}
    if exact:
        assert set(agree.values()) == {1}, "the answers depend on how the questions are batched"
        assert different[SHARED] > len(questions) / 4, "the answers are too alike to tell anything"
    scored, labels, difference = scoring(network, processor, questions, rounds)
    print(f"{len(questions)} questions, {NEW_TOKENS} new tokens each, in batches of {BATCH}")
    print(f"medians of {rounds} rounds, {torch.get_num_threads()} threads")
    print(f"{len(labels)} questions with {sum(labels)} labels, whose scores differ by at most {difference:.1e}")
    rows = rows_of("answers", answered, len(questions))
    for name, row in zip(agree, rows, strict=True):
        row |= {"as one by one": round(agree[name], 3), "different": different[name]}
    labelled = rows_of("labels", scored, len(labels))
    print(f"{table(rows)}\n{table(labelled)}", flush=True)
    return rows + [row | {"scores differ by": float(f"{difference:.1e}")} for row in labelled]


def run(images: int, rounds: int, pixels: tuple[int, int] | None = None, at_full_size: bool = False) -> list[dict]:
    """`compare` on the demo's model in float32 on the CPU, or on `FULL_SIZE` in bfloat16 on the GPU."""
    disable_progress_bars()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        questions = write_questions(Path(folder, "pictures"), images)
        write_model(Path(folder, "model"), questions, pixels)
        processor = AutoProcessor.from_pretrained(Path(folder, "model"))
        if at_full_size:
            network = random_weights(full_size(FULL_SIZE, processor.tokenizer), "cuda", torch.bfloat16).eval()
        else:
            network = AutoModelForImageTextToText.from_pretrained(Path(folder, "model")).eval()
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter *= LOUDER
        return compare(network, processor, questions, rounds, exact=not at_full_size)


def measure(toy: bool) -> list[dict[str, Any]]:
    """A row for each way to answer and to score, of `FULL_SIZE` on a GPU; `toy`: of the demo's model."""
    rows = run(TOY_IMAGES, TOY_ROUNDS, FEW_PIXELS) if toy else run(FULL_IMAGES, FULL_ROUNDS, at_full_size=True)
    gc.collect()
    torch.cuda.empty_cache()
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full_size", action="store_true", help="Qwen2-VL-2B with random weights, on a GPU")
    if not parser.parse_args(arguments).full_size:
        run(IMAGES, ROUNDS)
    elif torch.cuda.is_available():
        measure(toy=False)
    else:
        print("no GPU here: nothing measured at full size")


if __name__ == "__main__":
    main()
