"""What was asked of a dataclass of settings beside its defaults.

A leaf, which imports nothing of ours, and which all may import.
"""

import re
from dataclasses import MISSING, fields
from typing import Any


def given(settings: Any, names: str) -> str:
    """The first setting of a dataclass that is called by the regular expression `names` and is not its default.

    As it is typed, "--lora_r 8"; "" where there is none. A default that is typed, too, cannot be told.
    """
    for setting in fields(settings):
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        defaults = (default, *default) if isinstance(default, list) else (default,)  # TRL takes [one] for one
        if re.fullmatch(names, setting.name) and (value := getattr(settings, setting.name)) not in defaults:
            return f"--{setting.name} {value}"
    return ""
