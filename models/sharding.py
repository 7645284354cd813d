"""Weights that ZeRO-3 has divided among the processes: whole where they are read or changed, and ready to answer."""

from contextlib import AbstractContextManager, nullcontext

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled


def whole(*weights: nn.Parameter, change: bool = False) -> AbstractContextManager:
    """A context in which `weights` are whole on every process; to `change` them is for the first one, for all.

    For what happens outside of a module's forward: inside, ZeRO-3 gathers and forgets the weights itself.
    """
    divided = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not divided:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(divided, modifier_rank=0 if change else None)


def read_by(module: nn.Module, *weights: nn.Parameter) -> None:
    """Have `weights` whole while `module` runs, which reads them without calling the modules that they belong to."""
    for weight in weights:
        if hasattr(weight, "ds_id"):
            import deepspeed

            deepspeed.zero.register_external_parameter(module, weight)


def to_answer(network: PreTrainedModel) -> PreTrainedModel:
    """The network on this process's device; one that is divided, with each layer gathered when it is computed."""
    if not is_deepspeed_zero3_enabled():
        return network.to(PartialState().device)
    import deepspeed

    deepspeed.initialize(model=network, config=deepspeed_config())  # its hooks stay with the modules
    return network
