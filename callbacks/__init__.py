"""What watches a run. Each callback works in anybody's `transformers.Trainer`."""

from callbacks.frozen_parts import FrozenPartsCallback
from callbacks.generation_eval import GenerationEvalCallback, IoUCallback, MaskIoUCallback, TypeAccuracyCallback
from callbacks.grad_norm import GradNormCallback
from callbacks.interrupt import InterruptCallback
from callbacks.label_audit import LabelAuditCallback
from callbacks.preflight import PreflightCallback
from callbacks.report import ReportCallback
from callbacks.resume import ResumeCallback
from callbacks.shared_image import SharedImageCallback

__all__ = [
    "FrozenPartsCallback",
    "GenerationEvalCallback",
    "GradNormCallback",
    "InterruptCallback",
    "IoUCallback",
    "LabelAuditCallback",
    "MaskIoUCallback",
    "PreflightCallback",
    "ReportCallback",
    "ResumeCallback",
    "SharedImageCallback",
    "TypeAccuracyCallback",
]
