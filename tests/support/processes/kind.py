"""Runs a recipe, and writes down in a file what accelerate made of its launch: kind.py FILE RECIPE ARGUMENTS …"""

import runpy
import sys
from pathlib import Path

from accelerate.state import AcceleratorState

file, recipe, *arguments = sys.argv[1:]
sys.argv = [recipe, *arguments]
runpy.run_path(recipe, run_name="__main__")
Path(file).write_text(AcceleratorState().distributed_type.value)
