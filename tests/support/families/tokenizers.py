"""Stand-in tokenizers of the families' own kinds, trained on a page of text; any text can be written with them."""

import json
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AddedToken,
    GemmaTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from demo.checkpoints import llava

TEXTS = (
    "You are a helpful assistant. What is shown in this picture? Answer with yes or no. Describe both pictures.\n\n",
    "Where is the nutrition table? The table is in the upper left corner of the picture, and it has 12 rows.\n",
    "Are there any abnormalities in the image? Check all that are present: polyp, ulcerative colitis, oesophagitis.\n",
    "How many instruments are there? There are two; one of them is a grasper, the other one is a hook.\n",
    "user\nassistant\nsystem\nmodel\nUser: Assistant: USER: ASSISTANT: Human:\n",
    "0 1 2 3 4 5 6 7 8 9 (10, 24), [35, 47] 100% +-*/\n",
    "It is red, green and blue! And as far as I can see, nothing else; not a thing. No. Yes. None of the above.\n",
    "one\n\ntwo\n\nthree\n\nfour\n\n\nfive\n\n\nsix\n\n\nseven\n\n",  # runs become one token, as in theirs
)
# Llama 3's, which Mistral's newer ones follow: words, runs of up to three digits, signs, line ends.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def _learnt(vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = _words()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    learnt = json.loads(backend.to_str())["model"]
    return learnt["vocab"], [tuple(merge) for merge in learnt["merges"]]


def _words() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(
    special: tuple[str, ...],
    *,
    eos: str,
    pad: str,
    bos: str | None = None,
    adds_bos: bool = False,
    named: dict[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """Bytes and what the texts teach, then `special` tokens; `named` are attributes that the tokenizer has besides."""
    vocab, merges = _learnt(400)
    backend = Tokenizer(models.BPE(vocab=dict(vocab), merges=merges))
    backend.pre_tokenizer, backend.decoder = _words(), decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=named or {},
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    return tokenizer


def qwen2(
    *special: str,
    kind: type[PreTrainedTokenizerBase] = Qwen2Tokenizer,
    plain: tuple[str, ...] = (),
    named: dict[str, str] | None = None,
) -> PreTrainedTokenizerBase:
    """Qwen2's, with `special` tokens, then `plain` ones, which decoding keeps; `named` as in `byte_level`."""
    vocab, merges = _learnt(400)
    tokenizer = kind(
        vocab=dict(vocab),
        merges=merges,
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named or {},
        model_max_length=8192,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special], special_tokens=True)
    tokenizer.add_tokens(list(plain))
    return tokenizer


def llama() -> LlamaTokenizerFast:
    """Llama 2's and the first Mistral's: `▁` for a space, one before the text, single bytes; `<s>` comes first."""
    return llava.train_tokenizer(TEXTS, 500)


def gemma(special: tuple[str, ...] = (), named: dict[str, str] | None = None) -> GemmaTokenizer:
    """Gemma's: `▁` for a space, none before the text, single bytes; `<bos>` comes first."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    lines = pre_tokenizers.Split(Regex(r"\n+"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([lines, pre_tokenizers.Metaspace(prepend_scheme="never")])
    head = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *special]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*head, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    learnt = json.loads(backend.to_str())["model"]
    tokenizer = GemmaTokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        add_bos_token=True,
        padding_side="left",
        model_max_length=8192,
        extra_special_tokens=named or {},
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special], special_tokens=True)
    return tokenizer
