"""A recipe's arguments in, one line out where something cannot work."""

import io
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import fields
from inspect import signature
from typing import NoReturn

import torch
from accelerate import PartialState
from huggingface_hub.errors import HfHubHTTPError
from transformers import Trainer, TrainingArguments
from trl import ModelConfig, TrlParser

from ..callbacks.interrupt import Interrupted
from ..callbacks.label_audit import LabelError
from ..callbacks.preflight.callback import PreflightDone, PreflightError
from ..callbacks.resume import WeightNamesError
from ..callbacks.sharing_proof import AttentionError
from ..eval.generation.agreement import SharingError
from ..eval.generation.constraints import AnswerSetError
from ..models.checkpoints import CheckpointError
from ..models.kinds import config_of
from ..models.precision import DTYPES, launched_dtype, precision_of
from ..models.weights import without_weights
from ..rows.errors import DataError
from .chatter import bars_only_in_a_terminal
from .checkpoints import FullDiskError, ResumeError, is_full_disk, saved_with
from .folder import FolderError, claim_folder
from .held import let_go
from .plan.count import PlanError
from .plan.plan import say
from .saved import SavedError
from .settings import RowSettings, RunSettings
from .trainers import RateError

# Errors whose message tells the reader what to do: they end the run without a traceback.
REFUSALS = (DataError, AnswerSetError, CheckpointError, RateError, LabelError, PreflightError, PlanError)
REFUSALS += (AttentionError, SharingError, ResumeError, FullDiskError, FolderError, SavedError, WeightNamesError)

LOAD = ["data", "model", "output_dir"]  # what a recipe's `load` takes; one that takes something else is left alone


class RecipeParser(TrlParser):
    """TRL's parser, whose `--config` also takes the `run.json` that a run left: the same run again.

    A recipe's `dtype` that is `launched_dtype` follows what `bf16` and `fp16` are given as, unless it is given itself.
    """

    def __init__(self, arguments: tuple[type, ...]):
        for part in arguments:
            _inherit_help(part)
        super().__init__(arguments)
        if any(field.default_factory is launched_dtype for part in arguments for field in fields(part)):
            self.set_defaults(dtype=None)  # the default's own value could not be told from a given one

    def parse_args_and_config(self, *args, **settings) -> tuple:
        parsed = super().parse_args_and_config(*args, **settings)
        for data in (part for part in parsed if isinstance(part, RowSettings)):
            [training] = (part for part in parsed if isinstance(part, TrainingArguments))
            held_out = getattr(data, "validation_fraction", 0.5)  # who holds nothing out has a part of its own
            data.refuse_empty_parts(training, 1 - held_out, held_out, test=1)
        for model in (part for part in parsed if isinstance(part, ModelConfig) and part.dtype is None):
            [training] = (part for part in parsed if isinstance(part, TrainingArguments))
            model.dtype, launched = DTYPES[precision_of(training.bf16, training.fp16)], launched_dtype()
            planned = isinstance(training, RunSettings) and training.plan is not None
            if model.dtype != launched and not planned and PartialState().is_main_process:
                print(f"number format: {model.dtype}, as bf16 and fp16 were given; the launch alone says {launched}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """In one line: the usage of several hundred settings would hide it."""
        self.exit(2, f"error: {message}\n")

    def set_defaults_with_config(self, **config) -> list[str]:
        if "arguments" in config:
            training, model = config["arguments"]["training"], config["arguments"]["model"]
            if model["dtype"] == DTYPES[precision_of(training["bf16"], training["fp16"])]:
                del model["dtype"]  # it followed those two, and does so again where one of them is given anew
            if training["greater_is_better"] == (not str(training["metric_for_best_model"]).endswith("loss")):
                del training["greater_is_better"]  # it followed the metric's name
            saving = saved_with(training["eval_strategy"], training["eval_steps"])
            if saving == {name: training[name] for name in saving}:
                del training["save_strategy"], training["save_steps"]  # they followed the evaluations
            config = {key: value for part in config["arguments"].values() for key, value in part.items()}
            del config["resume_from_checkpoint"]  # from the beginning
            config.pop("overwrite_output_dir", None)  # was said of that run's folder
            config = {key: value for key, value in config.items() if value is not None and not key.endswith("_token")}
        return super().set_defaults_with_config(**config)


def _inherit_help(part: type) -> None:
    """Have a setting whose default a recipe states anew say what it says where it comes from."""
    for setting in fields(part):
        known = (getattr(base, "__dataclass_fields__", {}).get(setting.name) for base in part.__mro__)
        told = (own.metadata["help"] for own in known if own and "help" in own.metadata)
        setting.metadata = {"help": next(told, None), **setting.metadata}


def launch(main: Callable[..., None], *arguments: type) -> None:
    """Call `main` with the dataclasses `arguments`: their defaults, then `--config` (a YAML file, or the `run.json`
    of a run), then the command line. What cannot work ends in one line; where the model is at fault that `load`,
    beside `main`, would load, before rows are read.
    """
    bars_only_in_a_terminal()
    try:
        parsed = RecipeParser(arguments).parse_args_and_config()
    except (ValueError, OSError, ImportError) as error:  # a misspelt key, no such file, no such library
        sys.exit(f"error: {' '.join(str(error).split())}")
    try:
        if card := next((part.plan for part in parsed if isinstance(part, RunSettings)), None):
            say(main, lambda asked: RecipeParser(arguments).parse_args_and_config(asked), sys.argv[1:], card)
            return
        claim_folder(main.__globals__["__file__"], *parsed)
        load = main.__globals__.get("load")
        if callable(load) and list(signature(load).parameters) == LOAD:
            data, training, model = parsed
            if config_of(model.model_name_or_path, model.model_revision):  # else `main` says that there is none
                with without_weights(), redirect_stdout(io.StringIO()):  # what it says comes when it reads them
                    load(data, model, training.trained_into)
        main(*parsed)
    except PreflightDone:
        pass
    except REFUSALS as error:
        sys.exit(f"error: {error}")
    except (ValueError, ImportError) as error:
        if not refused_by_a_trainer(error):
            raise
        sys.exit(f"error: {' '.join(str(error).split())}")
    except HfHubHTTPError as error:
        sys.exit(f"error: the Hub refused: {' '.join(str(error).split())}")
    except OSError as error:
        if not is_full_disk(error):
            raise
        sys.exit(f"error: the disk is full ({error}): make room, and launch it again; answers that came are kept")
    except Interrupted:
        leave_processes()
        raise
    finally:
        let_go()
    leave_processes()


def refused_by_a_trainer(error: BaseException) -> bool:
    """Whether a Trainer's constructor raised this of its own accord, over what it was asked: no code of ours did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = frames[-1].f_globals.get("__name__", "").partition(".")[0] in ("vlm_recipes", "__main__")
    making = (frame.f_locals.get("self") for frame in frames if frame.f_code.co_name == "__init__")
    return not ours and any(isinstance(one, Trainer) for one in making)


def leave_processes() -> None:
    """End the process group of a run that succeeded or was interrupted, and let its threads finish.

    A gloo thread holds the last tensors a moment longer than the collective that it ran for; a process that ends in
    that moment aborts after all is done (PyTorch issue 190489).
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(0.5)
