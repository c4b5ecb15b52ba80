"""Makes fashion-mini.png, the picture of the report in the README: the upper part of the page, in few colors.

    python tests/golden/report/make.py artifacts/fashion-mini/report.html

Needs Playwright, Chromium and Pillow. It lies here, because the top level of the repository is fixed, `artifacts/` is not tracked, and this is
what the command gave when it was last looked at.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_context(viewport={"width": 1180, "height": 900}, color_scheme="light").new_page()
    page.goto(Path(sys.argv[1]).resolve().as_uri())
    end = page.locator("#cluster-1").bounding_box()["y"]
    picture = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1180, "height": end - 4})
    browser.close()
picture = Image.open(io.BytesIO(picture)).convert("RGB").quantize(160, dither=Image.Dither.NONE)
picture.save(Path(__file__).with_name("fashion-mini.png"), optimize=True)
