"""A small random SurgViVQA checkpoint with its processor, written without a download."""

import json
from collections.abc import Iterable
from os import PathLike
from string import ascii_lowercase, digits

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, BlipTextConfig, GPT2Config, GPT2Tokenizer, VideoMAEConfig

from vlm_recipes.models.surgvivqa.config import SurgViVqaConfig
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor
from vlm_recipes.models.surgvivqa.model import SurgViVqaForConditionalGeneration

END = "<|endoftext|>"
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_surgvivqa(
    folder: str | PathLike[str],
    questions: Iterable[str],
    answers: Iterable[str],
    *,
    hidden_size: int = 128,
    layers: int = 2,
    image_size: int = 72,
    patch_size: int = 12,
    num_frames: int = 2,
    longest_question: int = 256,
    initializer_range: float = 0.05,
    seed: int = 0,
) -> None:
    """Write a random model and a processor that `vlm_recipes.models.surgvivqa.loading.load_surgvivqa` loads offline.

    `questions` and `answers` train the two tokenizers. `hidden_size` (a multiple of 32) and `layers` hold for the
    three models alike, `initializer_range` for the two of text; `longest_question` is in tokens. The same arguments
    give the same weights.
    """
    heads = hidden_size // 32
    question_tokenizer, tokenizer = train_question_tokenizer(questions), train_answer_tokenizer(answers)
    config = SurgViVqaConfig(
        VideoMAEConfig(
            image_size=image_size,
            patch_size=patch_size,
            num_frames=num_frames,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=2 * hidden_size,
            use_mean_pooling=False,  # the tokens go on, normalised
        ),
        BlipTextConfig(
            vocab_size=len(question_tokenizer),
            hidden_size=hidden_size,
            encoder_hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=longest_question,
            initializer_range=initializer_range,
            is_decoder=True,  # with cross-attention
            bos_token_id=question_tokenizer.cls_token_id,
            eos_token_id=question_tokenizer.sep_token_id,
            pad_token_id=question_tokenizer.pad_token_id,
            sep_token_id=question_tokenizer.sep_token_id,
        ),
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=longest_question + 64,
            n_embd=hidden_size,
            n_layer=layers,
            n_head=heads,
            n_inner=2 * hidden_size,
            initializer_range=initializer_range,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SurgViVqaForConditionalGeneration(config)
    SurgViVqaProcessor.compose(config, tokenizer, question_tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)


def train_question_tokenizer(texts: Iterable[str]) -> BertTokenizer:
    """WordPiece in lower case, as BLIP's: each word of `texts` is a token, any other is spelt in characters."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    characters = sorted({character for word in words for character in word} | set(ascii_lowercase + digits))
    pieces = [*characters, *(f"##{character}" for character in characters), *sorted(words - set(characters))]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate([*BERT_TOKENS, *pieces])}, do_lower_case=True)


def train_answer_tokenizer(texts: Iterable[str]) -> GPT2Tokenizer:
    """Byte-level BPE, as GPT-2's: any text can be said."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]
    return GPT2Tokenizer(vocab=learned["vocab"], merges=[tuple(merge) for merge in learned["merges"]])
