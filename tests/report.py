"""Opens the report of a finished pipeline in headless Chromium, as a reader would.

    python tests/report.py PIPELINE.toml ARTIFACTS PICTURES   # ARTIFACTS/<pipeline>/report.html; PICTURES: a folder for screenshots

Needs Playwright (pip) and Chromium (Debian's `chromium`; another path in KINSET_CHROMIUM). Fails on any message on the console, any
request beyond the file itself, any number that is not the one in scores.json, anything that sticks out of a narrow screen.
"""

import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

from playwright.sync_api import sync_playwright

pipeline, artifacts, pictures = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
spec = tomllib.loads(pipeline.read_text())
folder = artifacts / spec.get("name", pipeline.stem)
report = (folder / "report.html").resolve()
chromium = os.environ.get("KINSET_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pictures.mkdir(parents=True, exist_ok=True)

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SECTIONS = ["clusters", "map", "neighbors", "scores", "confusion", "calibration", "training", "stages"]


def check(what, found, wanted):
    if found != wanted:
        sys.exit(f"FAILED {what}: {found!r}, and not {wanted!r}")


def near(what, found, wanted, tolerance=1e-9):
    if abs(float(found) - wanted) > tolerance:
        sys.exit(f"FAILED {what}: {found}, and not {wanted}")


def scores(stage):
    """The rows of scores.json under the names of their stages."""
    rows = json.loads((folder / stage / "scores.json").read_text())["content"]["rows"]
    names = spec["stage"][stage].get("classifiers", [])
    named = {}
    for row in rows:
        place = re.fullmatch(r"classifiers\[(\d+)\]", row["name"])
        queries = spec["stage"][stage].get("queries")
        named[names[int(place[1])] if place else queries if row["name"] == "queries" else row["name"]] = row
    return named


judges = [name for name, stage in spec["stage"].items() if stage["kind"] in ("evaluate", "knn_eval", "linear_eval")]
predict = [(name, stage) for name, stage in spec["stage"].items() if stage["kind"] == "predict"][-1]


complaints = []


def opened(browser, name, **options):
    """A page that may not say or ask anything: what it says or asks for is collected, since nobody hears an exception in a callback."""
    page = browser.new_context(**options).new_page()
    page.on("console", lambda message: complaints.append(f"{name}: the console says {message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{name}: {error}"))

    def asked(request):
        if request.url.split("#")[0] != report.as_uri() and not request.url.startswith("data:"):
            complaints.append(f"{name}: it asks for {request.url[:200]}")

    page.on("request", asked)
    page.goto(report.as_uri())
    return page


def numbers(page):
    """Every number of the tables is the one in scores.json."""
    seen = 0
    for judge in judges:
        board = page.locator(f'[data-board="{judge}"]')
        check(f"{judge} has a table", board.count(), 1)
        for stage, row in scores(judge).items():
            line = board.locator(f'[data-row="{stage}"]')
            check(f"{judge} has a line for {stage}", line.count(), 1)
            for key in ["acc", "nmi", "ari", "top5", "ece", "knn"]:
                cell = line.locator(f'[data-name="{key}"]')
                if row.get(key) is None:
                    check(f"{judge}, {stage}: no {key}", cell.count(), 0)
                    continue
                near(f"{judge}, {stage}, {key}", cell.get_attribute("data-value"), row[key])
                check(f"{judge}, {stage}, {key} in words", cell.inner_text().strip(), f"{row[key] * 100:.1f}")
                seen += 1
    return seen


def matrices(page):
    """Each cell of each matrix has the count of scores.json, and each row sums to its class."""
    for judge in judges:
        for stage, row in scores(judge).items():
            if not row["confusion"]:
                continue
            matrix = page.locator(f'[data-confusion="{judge}/{stage}"]')
            check(f"{judge}/{stage} has a matrix", matrix.count(), 1)
            titles = matrix.locator("rect.cell title").all_text_contents()
            found = {}
            for title in titles:
                name, cluster, count, share = re.fullmatch(r"(.*) in cluster (\d+): (\d+) images, ([\d.]+) % of the class", title, re.S).groups()
                found.setdefault(name, {})[int(cluster)] = (int(count), float(share))
            wanted = [{k: n for k, n in enumerate(counts) if n} for counts in row["confusion"]]
            check(f"{judge}/{stage}: counts", sorted(str(sorted((k, n) for k, (n, _) in cells.items())) for cells in found.values()),
                  sorted(str(sorted(cells.items())) for cells in wanted if cells))
            for name, cells in found.items():
                total = sum(n for n, _ in cells.values())
                for n, share in cells.values():
                    near(f"{judge}/{stage}: share of {name}", share, 100 * n / total, 0.051)


def clusters(page):
    """Sizes, accuracy and calibration error are those of the same classifier on the same images."""
    key = "images" if "images" in predict[1] else "features"
    source, classifier = predict[1][key], predict[1]["classifier"]
    sizes = [int(n) for n in page.locator(".cluster").evaluate_all("all => all.map((one) => one.dataset.size)")]
    judge = next((name for name in judges if spec["stage"][name].get(key) == source), None)
    row = scores(judge)[classifier] if judge else None
    if row is None:
        return
    check("sizes of clusters", sizes, row["cluster_sizes"])
    near("accuracy of the clusters", page.locator("#cluster-accuracy").get_attribute("data-value"), row["acc"], 1e-6)
    near("calibration error", page.locator("#ece").get_attribute("data-value"), row["ece"], 1e-6)


def clicks(page):
    """Through the page as a reader goes."""
    for link in page.locator("nav a").all():
        link.click()
        target = link.get_attribute("href")
        check(f"{target} is there", page.locator(target).count(), 1)
    for summary in page.locator("details > summary").all():
        if summary.is_visible():
            summary.click()
            summary.click()
    button = page.locator("#theme")
    themes = []
    for _ in range(3):
        button.click()
        themes.append(page.evaluate("document.documentElement.dataset.theme ?? 'auto'"))
    check("themes", themes, ["dark", "light", "auto"])
    page.locator("a.proto").first.click()
    check("a prototype leads to its cluster", page.evaluate("location.hash"), "#cluster-0")
    cells = page.locator(".cluster").first.locator(".line").first.locator(".t")
    cells.first.click()
    look = page.locator("#look")
    check("a click shows the whole picture", (look.is_visible(), look.locator("p").inner_text()), (True, cells.first.get_attribute("aria-label")))
    check("there is a picture", look.locator("img:visible, .t:visible").count(), 1)
    page.keyboard.press("ArrowRight")
    check("an arrow leads to the next", look.locator("p").inner_text(), cells.nth(1).get_attribute("aria-label"))
    page.keyboard.press("Escape")
    check("and Escape away from it", look.is_visible(), False)
    cells.nth(1).focus()
    page.keyboard.press("Enter")
    check("Enter opens it, too", look.is_visible(), True)
    look.locator("button").click()
    check("and its button closes it", look.is_visible(), False)
    page.locator("#map").scroll_into_view_if_needed()
    points = page.locator(".maps .fig").first.locator("[data-i]")
    check("both maps have the same points", page.locator(".maps [data-i]").count(), 2 * points.count())
    points.nth(points.count() // 2).hover(force=True)
    peek = page.locator(".peek")
    check("the picture beside the pointer", peek.is_visible(), True)
    if "cluster" not in peek.inner_text():
        sys.exit(f"FAILED the words beside the pointer: {peek.inner_text()!r}")
    page.mouse.move(2, 2)
    page.mouse.move(5, 5)
    check("and it is gone again", peek.is_visible(), False)


size = report.stat().st_size
if size > 5_000_000:
    sys.exit(f"FAILED {size} bytes are more than 5 MB")
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = opened(browser, "wide", viewport=WIDE)
    for section in SECTIONS:
        check(f"section {section}", page.locator(f"section#{section}").count(), 1)
        check(f"section {section} has something in it", page.locator(f"section#{section} > .absent").count(), 0)
    order = page.locator("section[id]").evaluate_all("all => all.map((one) => one.id)")
    check("pictures come before tables", [id for id in order if id in SECTIONS], SECTIONS)
    check("one headline", page.locator("#headline").count(), 1)
    wider = page.locator(".card").evaluate_all("all => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.innerText)")
    check("every card holds its number", wider, [])
    seen = numbers(page)
    matrices(page)
    clusters(page)
    page.screenshot(path=pictures / "wide.png", full_page=True)
    clicks(page)
    print(f"  ok  wide: {len(SECTIONS)} sections, {seen} numbers and all matrices as in scores.json; clicked through; {size / 1e6:.2f} MB")

    for name, options in {"narrow": {"viewport": NARROW, "has_touch": True}, "dark": {"viewport": WIDE, "color_scheme": "dark"}}.items():
        page = opened(browser, name, **options)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > options["viewport"]["width"]:
            sys.exit(f"FAILED {name}: {width} pixels wide")
        page.screenshot(path=pictures / f"{name}.png", full_page=True)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    if sum(map(int, re.findall(r"\d+", dark)[:3])) > 150:
        sys.exit(f"FAILED dark: the paper is {dark}")
    print("  ok  narrow and dark: nothing sticks out")

    page = opened(browser, "print", viewport=WIDE, color_scheme="dark")
    page.pdf(path=pictures / "print.pdf", format="A4", margin={side: "14mm" for side in ("top", "bottom", "left", "right")})
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 760, "height": 1000})
    check("paper is white", page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)")
    check("no navigation on paper", page.locator("nav").is_visible(), False)
    page.screenshot(path=pictures / "print.png", full_page=True)
    print("  ok  print: white paper, no navigation")

    page = opened(browser, "without script", viewport=WIDE, java_script_enabled=False)
    numbers(page)
    check("pictures without script", page.locator(".cluster .t").count() > 20, True)
    print("  ok  without script: the same numbers and pictures")
    page.wait_for_timeout(200)
    check("no message on the console, no request", complaints, [])
    browser.close()
