"""Answering all questions about an image, and scoring closed sets of answers: `python -m benchmarks.evaluation_speed`.

Questions of `benchmarks.questions` for the demo's Qwen2-VL, random, in float32, through
`vlm_recipes.eval.generation.generate`, greedily and to the last of `NEW_TOKENS`: one question at a time, padded
batches of questions (`ChatCollator`), and batches in which those about an image share it (`SharedImageCollator`), all
in the same order, collating included. Then the labels of each closed question:
`vlm_recipes.eval.generation.shared_prefix.score_labels` for all questions about an image, against batches of image,
question and label, one batch for each question, forwards alone. All run in turns in this process; the ratio of one run
counts, not the seconds. The texts have to be the same, and not all alike; the scores are compared.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from benchmarks.questions import write_model, write_questions
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.generation.label_tree import LabelTree
from vlm_recipes.eval.generation.shared_prefix import score_labels

IMAGES, BATCH, NEW_TOKENS, ROUNDS = 8, 16, 8, 3
SCORED = 2  # images whose closed questions' labels are scored
LOUDER = 4  # random weights are multiplied by it: as small as they are, every answer would be the same
ALONE, PADDED, SHARED = "one by one", "padded batch", "shared images"


def in_turns(ways: dict[str, Callable[[], Any]]) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each round, and what came out."""
    seconds, results = {name: [] for name in ways}, {}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            start = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def answering(network: Any, processor: Any, questions: Dataset) -> tuple[dict[str, list[float]], list[str]]:
    """Seconds of each way and the answers of all of them."""
    apart, together = (kind(processor, prompt_only=True) for kind in (ChatCollator, SharedImageCollator))

    def ask(collator: Any, batch: int) -> Callable[[], list[str]]:
        settings = {"batch_size": batch, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
        generate(network, questions.select(range(2)), collator, **settings)  # warms up
        return lambda: generate(network, questions, collator, **settings)

    ways = {ALONE: ask(apart, 1), PADDED: ask(apart, BATCH), SHARED: ask(together, BATCH)}
    seconds, answers = in_turns(ways)
    assert answers[SHARED] == answers[PADDED] == answers[ALONE], "the answers depend on how the questions are batched"
    assert len(set(answers[SHARED])) > len(questions) / 4, "the answers are too alike to tell anything"
    return seconds, answers[SHARED]


@torch.no_grad()
def one_by_one(network: Any, batches: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """Mean log-probability per token of each label, a batch for each question."""
    scores = []
    for batch in batches:
        targets = batch["labels"][:, 1:]
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        logits = network(**inputs, use_cache=False).logits[:, :-1].log_softmax(-1)
        said = targets != -100
        of_targets = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        scores.append((of_targets * said).sum(1) / said.sum(1))
    return scores


def scoring(network: Any, processor: Any, questions: Dataset) -> tuple[dict[str, list[float]], list[int], float]:
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
        return [one for batch, own in zip(shared, trees, strict=True) for one in score_labels(network, batch, own)]

    as_trees(), one_by_one(network, batches[:1])  # warms up
    seconds, scores = in_turns({ALONE: lambda: one_by_one(network, batches), SHARED: as_trees})
    apart_most = max(float((a - b).abs().max()) for a, b in zip(scores[ALONE], scores[SHARED], strict=True))
    return seconds, [len(tree.labels) for own in trees for tree in own], apart_most


def table(title: str, seconds: dict[str, list[float]], questions: int) -> str:
    """A line for each way: seconds per question, and how many times as fast it is as each of the others."""
    others = list(seconds)[:-1]
    lines = [f"{title:24}{'s/question':>12}" + "".join(f"{'times ' + other + ' (range)':>34}" for other in others)]
    for name, own in seconds.items():
        line = f"{name:24}{statistics.median(own) / questions:12.4f}"
        for other in others:
            ratios = [theirs / mine for theirs, mine in zip(seconds[other], own, strict=True)]
            line += f"{f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})':>34}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    disable_progress_bars()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        questions = write_questions(Path(folder, "pictures"), IMAGES)
        write_model(Path(folder, "model"), questions)
        network = AutoModelForImageTextToText.from_pretrained(Path(folder, "model")).eval()
        processor = AutoProcessor.from_pretrained(Path(folder, "model"))
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter *= LOUDER
        answered, answers = answering(network, processor, questions)
        scored, labels, difference = scoring(network, processor, questions)
    print(f"{len(questions)} questions on {IMAGES} images, {NEW_TOKENS} new tokens each, in batches of {BATCH}")
    print(f"medians of {ROUNDS} rounds, {torch.get_num_threads()} threads; {len(set(answers))} different answers")
    print(table("answers", answered, len(questions)))
    print(table(f"scores of {sum(labels) / len(labels):.1f} labels", scored, len(labels)))
    print(f"{len(labels)} questions with {sum(labels)} labels, whose scores differ by at most {difference:.1e}")


if __name__ == "__main__":
    main()
