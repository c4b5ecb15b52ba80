"""Runs the Python of the README against real artifacts, so that what it promises is true.

    python tests/readme.py README.md FOLDER     # FOLDER holds artifacts/, made by tests/smoke.py
"""

import os
import re
import sys
from pathlib import Path

blocks = re.findall(r"^```python\n(.*?)^```", Path(sys.argv[1]).read_text(), re.MULTILINE | re.DOTALL)
if not blocks:
    sys.exit("FAILED the README has no Python")
os.chdir(sys.argv[2])
for number, block in enumerate(blocks, 1):
    exec(compile(block, f"README.md, block {number}", "exec"), {})
    print(f"  ok  README, Python block {number}")
