"""What rows, labels and masks agree on wherever they are made or read; imports nothing, so that all may import it."""

from typing import Any

Row = dict[str, Any]
IGNORE_INDEX = -100  # a label that is not trained: what PyTorch's and transformers' losses leave out
IGNORED_PIXEL = 255  # of a mask: counts neither as target nor as background
SEG_TOKEN = "[SEG]"  # LISA's: where the model says it, a mask is drawn
