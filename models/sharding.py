"""Weights that ZeRO-3 has sharded over the processes: gathered where they are read or changed outside a forward."""

from contextlib import AbstractContextManager, nullcontext

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled


def gathered(*weights: nn.Parameter, change: bool = False) -> AbstractContextManager:
    """A context in which each process has all of `weights`; to `change` them is for the first process, for all.

    For what happens outside of a module's forward: inside, ZeRO-3 gathers and releases the weights itself.
    """
    sharded = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(sharded, modifier_rank=0 if change else None)


def gather_in_forward(module: nn.Module, *weights: nn.Parameter) -> None:
    """Gather `weights` for each forward of `module`, which reads them without calling the modules they belong to."""
    for weight in weights:
        if hasattr(weight, "ds_id"):
            import deepspeed

            deepspeed.zero.register_external_parameter(module, weight)


def place_for_inference(network: PreTrainedModel) -> PreTrainedModel:
    """Move the network to this process's device; under ZeRO-3 it is sharded, each layer gathered for its forward."""
    if not is_deepspeed_zero3_enabled():
        return network.to(PartialState().device)
    import deepspeed

    deepspeed.initialize(model=network, config=deepspeed_config())  # its hooks stay with the modules
    return network
