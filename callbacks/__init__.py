"""What watches a run. Each callback works in anybody's `transformers.Trainer`, and is loaded alone (PEP 562)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .frozen_parts import FrozenPartsCallback as FrozenPartsCallback
    from .generation_eval import GenerationEvalCallback as GenerationEvalCallback
    from .generation_eval import IoUCallback as IoUCallback
    from .generation_eval import MaskIoUCallback as MaskIoUCallback
    from .generation_eval import TypeAccuracyCallback as TypeAccuracyCallback
    from .grad_norm import GradNormCallback as GradNormCallback
    from .interrupt import InterruptCallback as InterruptCallback
    from .label_audit import LabelAuditCallback as LabelAuditCallback
    from .log_lines import LogLinesCallback as LogLinesCallback
    from .preflight.callback import PreflightCallback as PreflightCallback
    from .resume import ResumeCallback as ResumeCallback
    from .shared_image import SharedImageCallback as SharedImageCallback

MODULES = {
    "FrozenPartsCallback": "frozen_parts",
    "GenerationEvalCallback": "generation_eval",
    "GradNormCallback": "grad_norm",
    "InterruptCallback": "interrupt",
    "IoUCallback": "generation_eval",
    "LabelAuditCallback": "label_audit",
    "LogLinesCallback": "log_lines",
    "MaskIoUCallback": "generation_eval",
    "PreflightCallback": "preflight.callback",
    "ResumeCallback": "resume",
    "SharedImageCallback": "shared_image",
    "TypeAccuracyCallback": "generation_eval",
}
__all__ = list(MODULES)


def __getattr__(name: str):
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
