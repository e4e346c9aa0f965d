"""Run train_gpt.py of the current folder as a program; fail if it imported the package.

With BREAK_LOSS in the environment every training loss is not a number.
"""

import os
import runpy
import sys

if "BREAK_LOSS" in os.environ:
    import torch.nn.functional as F

    whole = F.cross_entropy
    F.cross_entropy = lambda *args, **named: whole(*args, **named) * float("nan")

code = 0
try:
    runpy.run_path("train_gpt.py", run_name="__main__")
except SystemExit as end:
    code = end.code or 0
assert "underpar" not in sys.modules, "the file imported the package"
sys.exit(code)
