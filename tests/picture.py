"""Makes src/report.png, the picture of the report in the README: parts of the page, in few colors.

    kinset run pipelines/fashion-mini.toml
    python tests/picture.py artifacts/fashion-mini/report.html

Needs Playwright, Chromium and Pillow. Shown are the headline, the prototypes, two contact sheets and the scores on the test images; what lies
between them on the page is left out.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

# The first contact sheet and one of another shape.
SHEETS = ["#cluster-0", "#cluster-4"]
LAST = '[data-board="scores_test"]'
CUT = f"""
nav, #theme, #warnings, #map, #neighbors, #duplicates, #outliers, .note, .board:not({LAST}), .beside, .finder,
.title .origin + .origin, #clusters > h3, .cluster:not({", ".join(SHEETS)}) {{ display: none !important }}
"""
WIDTH = 1200

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
    page = browser.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="light").new_page()
    page.goto(Path(sys.argv[1]).resolve().as_uri())
    page.add_style_tag(content=CUT)
    last = page.locator(LAST).bounding_box()
    picture = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": last["y"] + last["height"] + 12})
    browser.close()
picture = Image.open(io.BytesIO(picture)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
picture.save(Path(__file__).parents[1] / "src" / "report.png", optimize=True)
