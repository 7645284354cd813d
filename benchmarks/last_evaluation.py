"""What a recipe's last evaluation costs beside its training, in operations: `python -m benchmarks.last_evaluation`.

Counted are the models and the settings of the recipes' defaults, on data of the real size; nothing is computed. The
weights of the full-size models are counted on PyTorch's "meta" device. A token costs two operations for each weight of
a matrix that it passes, and in each attention `4 · width` for each token that it may see, causal ones counted in full.
Left out are embeddings, norms, softmax, the optimizer and LoRA's own small matrices.

A step of training costs the forward; where gradients pass through, once more for those of the inputs, once more for
those of the weights if these train, and once more where checkpointing computes the forward anew. A frozen tower costs
its forward alone. An answer costs its prompt's forward and one token's for each new token of the longest answer of its
batch, the cache's attention left out; what questions share is read once, as the recipes do.

The tokens of questions and answers are assumptions; the sizes of the parts are the datasets' own, those of
`HuggingFaceH4/llava-instruct-mix-vsft` from its card. ReasonSeg's test part is given as many queries an image as its
training part has (4.78). `watched` are all evaluations before the last, their loss included.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    Blip2ForConditionalGeneration,
    BlipTextModel,
    GPT2LMHeadModel,
    LlavaForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    SamModel,
    VideoMAEModel,
)

from benchmarks.full_size import blip2_flan_t5_xl, full_size, llava_7b, sam_vit, surgvivqa_parts
from vlm_recipes.eval.report.tables import Table


@dataclass(frozen=True)
class Part:
    """What one token costs in a part of a model: weights of its matrices, and width times layers of its attention."""

    weights: int
    attention: int = 0

    def __call__(self, tokens: float, seen: float | None = None) -> float:
        """Operations of the forward of so many tokens, of which each may see `seen` (all of them)."""
        return tokens * (2 * self.weights + 4 * self.attention * (tokens if seen is None else seen))


def part(module: nn.Module, width: int = 0, layers: int = 0) -> Part:
    tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
    matrices = (weight for weight in module.parameters() if weight.ndim > 1 and id(weight) not in tables)
    return Part(sum(weight.numel() for weight in matrices), width * layers)


@dataclass(frozen=True)
class Cost:
    """Operations of the training, of its evaluations, and of the last one's passes by name."""

    training: float
    watched: float
    passes: dict[str, float]

    @property
    def share(self) -> float:
        return sum(self.passes.values()) / self.training


def qwen(
    *,
    trained: tuple[float, float],  # images (rows of the collator), and questions on each
    tested: tuple[float, float],
    again: dict[str, float],  # passes over single questions of as many images
    watched: float,
    tokens: tuple[int, int, int, int],  # of the image, of a prompt besides it, of an answer, of the longest of a batch
) -> Cost:
    """Qwen2-VL-7B with LoRA on the language model and checkpointing; the head reads the answers' tokens alone."""

    class Tokenizer:
        pad_token_id = eos_token_id = 0
        convert_tokens_to_ids = staticmethod(lambda token: 1)

    with torch.device("meta"):
        network = Qwen2VLForConditionalGeneration(full_size("Qwen2-VL-7B", Tokenizer))
    tower, language = part(network.model.visual, 1280, 32), part(network.model.language_model, 3584, 28)
    head = part(network.lm_head)
    image, prompt, said, longest = tokens

    def answered(images: float, questions: float) -> float:
        read = language(image + questions * prompt, seen=image + prompt) + questions * longest * language(1, seen=0)
        return images * (tower(4 * image) + read + questions * longest * head(1))

    images, questions = trained
    length = image + questions * (prompt + said)
    learnt = tower(4 * image) + 3 * language(length, seen=length) + 2 * head(questions * said)
    passes = {"test": answered(*tested)} | {name: answered(n, 1) for name, n in again.items()}
    losses = watched * (tower(4 * image) + language(image + prompt + said))
    return Cost(images * learnt, answered(watched, 1) + losses, passes)


def kvasir_vqa() -> Cost:
    """41,079 questions on 4,550 images to train, 8,984 on 975 to test; five evaluations of 500 questions."""
    sizes = {"trained": (4550, 41079 / 4550), "tested": (975, 8984 / 975), "watched": 5 * 500}
    return qwen(**sizes, again={"free": 500, "blank images": 500}, tokens=(546, 58, 5, 12))


def nutrition_tables() -> Cost:
    """1,083 photographs, of which 5% validate, in three epochs; 123 to test; an evaluation an epoch, of 54."""
    sizes = {"trained": (3 * 1083 * 0.95, 1), "tested": (123, 1), "watched": 3 * 54}
    return qwen(**sizes, again={"blank images": 64}, tokens=(1280, 110, 30, 34))


def visual_chat() -> Cost:
    """259,155 conversations, 1% to validate; 13,640 to test; five evaluations of 200."""
    sizes = {"trained": (259155 * 0.99, 1), "tested": (13640, 1), "watched": 5 * 200}
    return qwen(**sizes, again={"blank images": 200}, tokens=(400, 60, 150, 256))


def vqa_rad() -> Cost:
    """1,793 questions on 313 images, 5% to validate, five epochs, no checkpointing; 451 on 203 to test."""
    with torch.device("meta"):
        network = Blip2ForConditionalGeneration(blip2_flan_t5_xl())
    text = network.language_model
    tower, queries = part(network.vision_model, 1408, 39), part(network.qformer, 768, 12)
    encoder, decoder, head = part(text.encoder, 2048, 24), part(text.decoder, 2048, 48), part(text.lm_head)
    looked_at = Part(24 * 2 * 2048**2)  # the decoder's keys and values of the prompt
    prompt, said, longest = 32 + 70, 4, 10

    def read(images: float, questions: float) -> float:
        shown = images * (tower(257) + queries(32, seen=257))
        return shown + questions * (encoder(prompt) + looked_at(prompt))

    questions = 5 * 1793 * 0.95
    learnt = read(questions / 4, 2 * questions) + questions * 2 * (decoder(said, seen=prompt) + head(said))
    answer = longest * (decoder(1, seen=prompt) + head(1))
    passes = {"test": read(203, 451) + 451 * answer, "blank images": read(200, 200) + 200 * answer}
    return Cost(learnt, 5 * (read(90, 2 * 90) + 90 * answer), passes)


def reasonseg() -> Cost:
    """5,000 steps of 20 queries, two of an image together, no checkpointing; 779 images to test; ten evaluations."""
    with torch.device("meta"):
        network, sam = LlavaForConditionalGeneration(llava_7b()), SamModel(sam_vit("huge"))
    tower, language = part(network.model.vision_tower, 1024, 24), part(network.model.language_model, 4096, 32)
    head, encoder, windows = part(network.lm_head), part(sam.vision_encoder, 1280, 4), Part(0, 1280 * 28)
    mask = part(sam.mask_decoder, 256, 7)(64 * 64, seen=8)
    image, prompt, said, longest = 576, 40, 8, 12

    def seen(images: float) -> float:
        return images * (tower(577) + encoder(64 * 64) + windows(64 * 64, seen=14 * 14))

    def answered(images: float, queries: float) -> float:
        return seen(images) + queries * (language(image + prompt) + longest * (language(1) + head(1)) + mask)

    queries = 5000 * 20
    learnt = 2 * language(image + prompt + said) + 3 * head(said) + 3 * mask
    validated = 10 * (answered(200, 200) + seen(200) + 200 * language(image + prompt + said))
    whole = answered(779, 4.78 * 779)
    passes = {"test": whole, "questions shuffled": whole, "blank images": answered(200, 200)}
    return Cost(seen(queries / 2) + queries * learnt, validated, passes)


def ssg_vqa() -> Cost:
    """30,000 steps of 8 questions, four of a frame together; 105,640 on 2,780 frames to test; 15 evaluations."""
    with torch.device("meta"):
        video, blip, gpt2 = surgvivqa_parts()
        tower, text = VideoMAEModel(video), BlipTextModel(blip.text_config, add_pooling_layer=False)
        decoder = GPT2LMHeadModel(gpt2).transformer
    tower, decoder, head = part(tower, 768, 12), part(decoder, 768, 12), Part(768 * 50257)
    looked_at = Part(12 * 2 * 768**2)  # the text encoder's keys and values of the video, for each question anew
    asks = Part(part(text).weights - looked_at.weights, 768 * 12)
    seen, prompt, said, nodes, longest = 784, 24, 3, 150, 6

    def read(videos: float, questions: float) -> float:
        return videos * tower(seen) + questions * (looked_at(seen) + asks(prompt, seen=seen + prompt))

    questions = 30000 * 8
    learnt = read(questions / 4, questions) + questions * 2 * (decoder(prompt + said) + head(said))
    tree = decoder(prompt + nodes) + head(1 + nodes)
    freely = decoder(prompt) + longest * (decoder(1, seen=prompt) + head(1))
    passes = {"test": read(2780, 105640) + 105640 * tree}
    passes |= {"free": read(500, 500) + 500 * freely, "blank images": read(500, 500) + 500 * tree}
    return Cost(learnt, 15 * (2 * read(500, 500) + 500 * (tree + decoder(prompt + said))), passes)


RECIPES = {one.__name__: one for one in (nutrition_tables, kvasir_vqa, vqa_rad, reasonseg, ssg_vqa, visual_chat)}


def table() -> Table:
    rows = []
    for name, counted in RECIPES.items():
        cost = counted()
        share = {which: f"{100 * one / cost.training:.1f} %" for which, one in cost.passes.items()}
        row = {"recipe": name, "its passes": ", ".join(f"{which} {one}" for which, one in share.items())}
        row |= {"training, PFLOP": f"{cost.training / 1e15:,.1f}", "last evaluation": f"{100 * cost.share:.1f} %"}
        rows.append(row | {"evaluations before": f"{100 * cost.watched / cost.training:.1f} %"})
    return Table("Evaluations in shares of their training's operations", rows, texts=2)


if __name__ == "__main__":
    print(table())
