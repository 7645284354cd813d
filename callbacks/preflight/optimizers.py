"""How much an optimizer keeps of what it trains."""

from torch import nn

FLOAT32 = 8  # bytes a value, for AdamW's two moments
PACKED_FROM, BLOCK = 4096, 256  # bitsandbytes: values of a tensor that is kept in 8 bits, and those that share a scale
IN_FLOAT32 = ("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit")
IN_8_BITS = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")


def optimizer_states(name: str, model: nn.Module) -> int | None:
    """Bytes that AdamW of this name (`TrainingArguments.optim`) keeps for what trains of `model`.

    In 8 bits the Trainer has embeddings stay in 32. None for an optimizer that is not known here.
    """
    if name not in IN_FLOAT32 + IN_8_BITS:
        return None
    whole = {one.weight for one in model.modules() if isinstance(one, nn.Embedding)} if name in IN_8_BITS else set()
    total = 0
    for weight in model.parameters():
        if weight.requires_grad:
            size, packed = weight.numel(), name in IN_8_BITS and weight.numel() >= PACKED_FROM and weight not in whole
            total += 2 * (size + 4 * -(-size // BLOCK)) if packed else FLOAT32 * size
    return total


def is_paged(name: str) -> bool:
    """Whether the states make room for what else a GPU needs, in the main memory."""
    return name.startswith("paged_")


def step_needs(name: str, model: nn.Module) -> int:
    """Bytes of what else is there in the optimizer's step: all gradients, and of `adamw_torch` the roots of all second
    moments at once.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    roots = 4 * sum(weight.numel() for weight in trained) if name == "adamw_torch" else 0
    return roots + sum(weight.numel() * weight.element_size() for weight in trained)
