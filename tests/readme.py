"""Checks the README: its Python runs on real artifacts, its two commands, links and figures are right, and it stays short.

    python tests/readme.py README.md FOLDER     # FOLDER holds artifacts/, made by tests/smoke.py
"""

import os
import re
import sys
from pathlib import Path

COMMANDS = ["cargo run --release -- run pipelines/fashion-mini.toml", "cargo test --release"]
WORDS = 1500

path = Path(sys.argv[1]).resolve()
text = path.read_text()
for command in COMMANDS:
    if not re.search(rf"^{re.escape(command)}\s+#", text, re.MULTILINE):
        sys.exit(f"FAILED the README lacks the command {command}")
if len(text.split()) > WORDS:
    sys.exit(f"FAILED the README has {len(text.split())} words, more than {WORDS}")

links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]


def slugs(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


for link in links:
    file, _, anchor = link.partition("#")
    page = path.parent / file if file else path
    if not page.exists() or (anchor and anchor not in slugs(page)):
        sys.exit(f"FAILED the README links to {link}, which does not exist")

# The tables are a selection from the page of benchmarks, where each figure has its command, machine and seeds.
benchmarks = (path.parent / "src" / "benchmarks.md").read_text()
rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
figures = [figure for row in rows for figure in re.findall(r"\d+\.\d+(?: ± \d+\.\d+|×)?|\d+×(?!\d)", row)]
for figure in figures:
    if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", benchmarks):
        sys.exit(f"FAILED {figure} is in the README's tables and not in src/benchmarks.md")
print(f"  ok  README, {len(text.split())} words, {len(links)} links, {len(figures)} figures as in the benchmarks")

blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
if not blocks:
    sys.exit("FAILED the README has no Python")
os.chdir(sys.argv[2])
for number, block in enumerate(blocks, 1):
    exec(compile(block, f"README.md, block {number}", "exec"), {})
    print(f"  ok  README, Python block {number}")
