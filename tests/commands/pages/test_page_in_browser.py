"""The page of a real run, opened from disk in a real browser: Chromium, without a window."""

import csv
import json
import re
import shutil
import time

import numpy as np
import pytest

from sgfr_jax import metrics
from sgfr_jax.commands import report, run
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host import machine
from sgfr_jax.datasets import images
from tests.commands.pages.test_page import finish, shown
from tests.commands.pages.test_summary import record
from tests.commands.test_report import write
from tests.small import SMALL, write_folder

# A directory and a file of it, so that the name ends the page's script if it is let.
HOSTILE_KIND, HOSTILE_FILE = "<", "script><img src=x onerror=\"document.title='owned'\">'&é.png"
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1200,900",
)  # fmt: skip


pytestmark = pytest.mark.slow  # and needs Chromium


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A work directory with two categories, one of which has a hostile file, and its images."""
    place = tmp_path_factory.mktemp("page")
    folder = write_folder(place)
    hostile = folder / "nut" / "test" / HOSTILE_KIND / HOSTILE_FILE
    hostile.parent.mkdir(parents=True)
    shutil.copy(folder / "nut" / "test" / "dent" / "0.png", hostile)
    settings = SMALL.replace(layers=("block2",), data_dir=str(folder), baselines=("nearest",))
    resources = machine.Resources(place / "out", batch_size=4, num_figures=0, save_maps=True)
    run.run(config.resolve(settings), resources)
    report.main([f"--workdir={place / 'out'}", "--html"])
    return place / "out", folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")  # it would look for a driver of its own
        service = webdriver.ChromeService(driver)
        opened = webdriver.Chrome(options, service)
    yield opened
    opened.quit()


@pytest.fixture
def page(browser, finished):
    return Page(browser, finished[0] / "report" / "report.html")


class Page:
    """What a reader sees and does."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(path.as_uri())

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def texts(self, selector):
        found = self.browser.find_elements("css selector", selector)
        return [element.get_property("textContent") for element in found]

    def text(self, selector):
        (only,) = self.texts(selector)
        return only

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def press(self, *keys):
        """Presses keys wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def slide(self, slider, value):
        """Drags a slider to a value, as near as its steps lie."""
        self.run(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('input', { bubbles: true }));",
            self.find(slider), value,
        )  # fmt: skip

    def chosen(self, name):
        """The thresholds, exactly, and the view."""
        return self.find("#controls").get_attribute(f"data-{name}")

    def choose(self, category):
        from selenium.webdriver.support.select import Select

        Select(self.find("#category")).select_by_value(category)

    def counts(self):
        return tuple(int(self.text(f"#count-{name}")) for name in ("tp", "fp", "fn", "tn"))

    def shares(self, *names):
        """Measures in percent, as numbers."""
        return [float(self.text(f"#{name}").rstrip("%")) for name in names]

    def painted(self, card=0):
        """The pixels of a card's canvas `[H, W, 3]`, painted for the present thresholds."""
        canvas = self.browser.find_elements("css selector", ".card canvas")[card]
        self.run("arguments[0].scrollIntoView({ block: 'center' })", canvas)
        state = f"{self.chosen('view')} {self.chosen('pixel')}"
        for _ in range(200):
            if canvas.get_attribute("data-painted") == state:
                break
            time.sleep(0.02)
        width, height, data = self.run(
            "const c = arguments[0]; return [c.width, c.height, Array.from("
            "c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]", canvas
        )  # fmt: skip
        return np.reshape(data, (height, width, 4))[..., :3]

    def trouble(self):
        """Lines of the console, and what was asked of any network."""
        lines = [entry["message"] for entry in self.browser.get_log("browser")]
        for entry in self.browser.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                address = event["params"]["request"]["url"]
                if not address.startswith(("file://", "data:", "blob:")):
                    lines.append(address)
        return lines


def scores(workdir, category):
    with (workdir / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] == category]
    labels = np.array([row["label"] == "1" for row in rows])
    return np.array([float(row["score"]) for row in rows]), labels, rows


def maps_and_masks(workdir, folder, category):
    """Of the images whose masks are known."""
    for row in scores(workdir, category)[2]:
        mask = folder / category / "ground_truth" / row["kind"] / row["file"].split("/")[-1]
        mask = mask.with_name(f"{mask.stem}_mask.png")
        found = np.load(workdir / "maps" / category / f"{row['file']}.npy")
        if row["label"] == "0":
            yield found, np.zeros(found.shape, bool)
        elif mask.exists():
            yield found, images.read_mask(mask, len(found))


def test_it_opens_from_disk_without_an_error_or_a_request(page):
    page.choose("nut")
    page.painted()
    assert page.trouble() == []


def test_no_connection_is_possible(page):
    page.run("fetch('http://localhost:9/x').catch(() => {})")
    page.run("const i = document.createElement('img'); i.src = 'http://localhost:9/y';"
             "document.body.append(i)")  # fmt: skip
    time.sleep(0.1)
    refused = [entry["message"] for entry in page.browser.get_log("browser")]
    assert all("Content Security Policy" in line for line in refused)
    for address in ("localhost:9/x", "localhost:9/y"):
        assert any(address in line for line in refused)


def test_figures_are_those_of_results_json(page, finished):
    results = json.loads((finished[0] / "results.json").read_text())
    methods = {"affine_ridge": results} | results["baselines"]
    shown = [re.split(r"\s*\|\s*", row) for row in page.run(
        "return [...document.querySelectorAll('#summary .tabular tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent).join(' | '))"
    )]  # fmt: skip
    wanted = {
        (category, method): own
        for method, found in methods.items()
        for category, own in found["categories"].items()
    }
    body = {tuple(row[:2]): row[2:] for row in shown[1:5]}
    assert set(body) == set(wanted)
    for key, own in wanted.items():
        cells = [f"{100 * own[name]:.1f}" for name in metrics.Metrics._fields]
        sizes = [str(own[name]) for name in ("num_train", "num_test", "num_atoms")]
        assert body[key][:11] == cells + sizes
    means = {row[1]: row[2:10] for row in shown[5:]}
    for method, found in methods.items():
        own = [f"{100 * found['mean'][name]:.1f}" for name in metrics.Metrics._fields]
        assert means[method] == own
    # Where nothing has been moved, the thresholds are those of the best F1.
    own = results["categories"]["cap"]
    assert page.shares("image-f1", "pixel-f1") == pytest.approx(
        [100 * own["image_f1_max"], 100 * own["pixel_f1_max"]], abs=0.051
    )
    legends = page.texts("#curves .legend li")
    assert f"affine_ridge: AUPRO {100 * own['aupro']:.1f}" in legends and len(legends) == 10


@pytest.mark.parametrize("category", ["cap", "nut"])
def test_counts_are_those_of_the_scores(page, finished, category):
    page.choose(category)
    values, labels, _ = scores(finished[0], category)
    low, high = values.min() - 1e-3, values.max() + 1e-3
    seen = set()
    for wanted in np.linspace(low, high, 7):
        page.slide("#image-slider", wanted)
        at = float(page.chosen("image"))
        assert at == pytest.approx(wanted, abs=2e-3)
        above = values >= at
        tp, fp = (above & labels).sum(), (above & ~labels).sum()
        fn, tn = (~above & labels).sum(), (~above & ~labels).sum()
        assert page.counts() == (tp, fp, fn, tn)
        seen.add(page.counts())
        recall, alarms = page.shares("image-recall", "image-alarms")
        assert recall == pytest.approx(100 * tp / (tp + fn), abs=0.051)
        assert alarms == pytest.approx(100 * fp / (fp + tn), abs=0.051)
        if tp + fp:
            assert page.shares("image-precision", "image-f1") == pytest.approx(
                [100 * tp / (tp + fp), 200 * tp / (2 * tp + fp + fn)], abs=0.051
            )
        assert page.text("#summary-line") == (
            f"{fn} {'miss' if fn == 1 else 'misses'}, {fp} false alarm{'' if fp == 1 else 's'}"
        )
        decisions = dict(zip(page.texts("#images .tabular:nth-of-type(2) tbody th"),
                             page.texts("#images .tabular:nth-of-type(2) tbody td:last-child"),
                             strict=True))  # fmt: skip
        names = {(1, 1): "Found", (1, 0): "Missed", (0, 1): "False alarm", (0, 0): "Passed"}
        for row, is_above in zip(scores(finished[0], category)[2], above, strict=True):
            assert decisions[row["file"]] == names[int(row["label"]), int(is_above)]
    assert len(seen) > 3


def test_named_and_typed_thresholds(page, finished):
    values, labels, _ = scores(finished[0], "cap")
    from selenium.webdriver.common.keys import Keys

    buttons = {b.text: b for b in page.browser.find_elements("css selector", ".presets button")}
    buttons["No misses"].click()
    assert (
        page.counts()[2] == 0
        and page.counts()[1] == (values[~labels] >= values[labels].min()).sum()
    )
    buttons["No false alarms"].click()
    assert page.counts()[1] == 0
    typed = page.find("#image-threshold")
    typed.send_keys(Keys.CONTROL, "a", Keys.NULL, "0", Keys.ENTER)
    assert page.counts() == (labels.sum(), (~labels).sum(), 0, 0)


def test_pixel_measures_are_those_of_the_maps(page, finished):
    found, masks = map(np.stack, zip(*maps_and_masks(*finished, "cap"), strict=True))
    weights = metrics.region_weights(masks)
    last = int(page.find("#pixel-slider").get_attribute("max"))
    for step in (0, last // 3, last // 2, last - 5):
        page.slide("#pixel-slider", step)
        threshold = float(page.chosen("pixel"))
        above = found >= np.float32(threshold)
        tp, fp = (above & masks).sum(), (above & ~masks).sum()
        names = ("pixel-precision", "pixel-recall", "pixel-alarms", "pixel-pro")
        assert page.shares(*names) == pytest.approx([
            100 * tp / (tp + fp), 100 * tp / masks.sum(), 100 * fp / (~masks).sum(),
            100 * weights[above[masks]].sum() / weights.sum(),
        ], abs=0.051)  # fmt: skip


def test_the_slider_repaints_what_lies_above_it(page, finished):
    file = page.find(".card").get_attribute("data-file")
    anomaly_map = np.load(finished[0] / "maps" / "cap" / f"{file}.npy")
    page.find("input[value=image]").click()
    plain = page.painted()
    page.find("input[value=overlay]").click()
    last = int(page.find("#pixel-slider").get_attribute("max"))
    covered = []
    for step in (0, last // 2, last):
        page.slide("#pixel-slider", step)
        threshold = float(page.chosen("pixel"))
        changed = (page.painted() != plain).any(axis=-1)
        above = anomaly_map >= threshold
        # Eight bits: a value beside the threshold may fall on its other side.
        clear = np.abs(anomaly_map - threshold) > np.ptp(anomaly_map) / 255
        assert (changed == above)[clear].mean() > 0.999
        covered.append(changed.mean())
        share = float(
            re.search(r"([\d.]+)% of it", page.find(".card canvas").get_attribute("aria-label"))[1]
        )
        assert share == pytest.approx(100 * above.mean(), abs=2)
    assert covered[0] > covered[1] > covered[2]
    page.find("input[value=map]").click()
    assert (page.painted() != plain).any(axis=-1).mean() > 0.9


def test_the_line_and_the_dots_move(page):
    def places():
        line = page.find("line.threshold").get_attribute("x1")
        dots = page.browser.find_elements("css selector", "#curves .dot")
        return [line, *((dot.get_attribute("cx"), dot.get_attribute("cy")) for dot in dots)]

    assert len(page.texts("#curves h3")) == 5
    first = places()
    page.slide("#image-slider", page.find("#image-slider").get_attribute("min"))
    moved = places()
    assert [a != b for a, b in zip(first, moved, strict=True)] == [True] * 3 + [False] * 3
    page.slide("#pixel-slider", 3)
    assert [a != b for a, b in zip(moved, places(), strict=True)] == [False] * 3 + [True] * 3


def test_the_worst_come_first(page, finished):
    values, labels, rows = scores(finished[0], "cap")
    order = sorted(
        range(len(rows)), key=lambda i: (not labels[i], values[i] * (1 if labels[i] else -1))
    )
    shown = [card.get_attribute("data-file") for card in
             page.browser.find_elements("css selector", ".card")]  # fmt: skip
    assert shown == [rows[i]["file"] for i in order]
    assert page.texts("#gallery h3") == ["Worst misses", "Worst false alarms"]


def test_tables_sort_by_keyboard(page, finished):
    from selenium.webdriver.common.keys import Keys

    values, _, rows = scores(finished[0], "cap")
    table = "#images .tabular:nth-of-type(2)"
    header = page.find(f"{table} thead th:nth-child(3)")
    page.run("arguments[0].focus()", header.find_element("css selector", "button"))
    files = np.array([row["file"] for row in rows])
    assert page.texts(f"{table} tbody th") == files.tolist()
    page.press(Keys.ENTER)
    assert header.get_attribute("aria-sort") == "descending"
    assert page.texts(f"{table} tbody th") == files[np.argsort(-values, kind="stable")].tolist()
    page.press(Keys.SPACE)
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.texts(f"{table} tbody th") == files[np.argsort(values, kind="stable")].tolist()
    assert page.text("#announcement") == "All test images: sorted by score, ascending"
    assert page.run("return document.activeElement.closest('th')") == header
    page.press(Keys.TAB, Keys.ENTER)
    assert header.get_attribute("aria-sort") is None
    decisions = page.texts(f"{table} tbody td:last-child")
    assert decisions == sorted(decisions)
    page.slide("#image-slider", values.max())
    assert page.texts(f"{table} tbody td:last-child") == sorted(
        page.texts(f"{table} tbody td:last-child")
    )


def test_everything_is_reached_by_the_tab_key(page):
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(80):
        page.press(Keys.TAB)
        focused = page.browser.switch_to.active_element
        reached.append(focused.get_attribute("id") or focused.get_property("className")
                       or focused.get_property("textContent").strip("↕"))  # fmt: skip
    wanted = ["skip", "Results", "category", "image-slider", "image-threshold", "Best F1",
              "pixel-slider", "image AUROC", "enlarge", "kind"]  # fmt: skip
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    slider = page.find("#image-slider")
    page.run("arguments[0].focus()", slider)
    page.press(Keys.HOME)
    assert page.counts()[2:] == (0, 0)
    assert slider.get_attribute("aria-valuetext").endswith("0 misses, 3 false alarms")


def test_everything_has_a_name(page):
    parts = page.browser.find_elements(
        "css selector", "button, input, select, canvas, svg[role=img], section[id], [role=region]"
    )
    assert len(parts) > 60
    # A button of the viewer that is not open has none.
    nameless = [part.get_attribute("outerHTML")[:80] for part in parts
                if not part.accessible_name and part.is_displayed()]  # fmt: skip
    assert nameless == []


def test_a_picture_is_enlarged_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    first, second = [card.get_attribute("data-file") for card in
                     page.browser.find_elements("css selector", ".card")[:2]]  # fmt: skip
    button = page.find(".enlarge")
    page.run("arguments[0].focus()", button)
    page.press(Keys.ENTER)
    assert page.text("#viewer-title").startswith(first)
    page.press(Keys.ARROW_RIGHT)
    assert page.text("#viewer-title").startswith(second)
    page.press(Keys.ARROW_LEFT)
    assert page.text("#viewer-title").startswith(first)
    page.slide("#viewer-slider", 3)
    assert page.find("#pixel-slider").get_attribute("value") == "3"
    page.press(Keys.ESCAPE)
    assert page.run("return document.querySelector('dialog').open") is False
    assert page.browser.switch_to.active_element == button


def test_hostile_names_are_text(page):
    page.choose("nut")
    name = f"nut/test/{HOSTILE_KIND}/{HOSTILE_FILE}"
    assert name in page.texts("#images th")
    (card,) = [c for c in page.browser.find_elements("css selector", ".card")
               if c.get_attribute("data-file") == name]  # fmt: skip
    assert name in card.text and "(<" in page.run(
        "arguments[0].querySelector('button').click();"
        "return document.getElementById('viewer-title').textContent", card
    )  # fmt: skip
    assert page.run("return document.querySelectorAll('img').length") == 0
    assert page.browser.title.startswith("folder") and page.trouble() == []
    assert "pixel metrics leave them out" in " ".join(page.texts("#summary .notes li"))


def test_it_fits_a_phone_and_the_dark(page):
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    )
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    try:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        assert page.run("return document.documentElement.scrollWidth") <= 360
        assert (
            page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 30)"
        )
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_paper_all_pictures_are_painted(page):
    page.run("window.scrollTo(0, 0); dispatchEvent(new Event('beforeprint'))")
    cards = page.browser.find_elements("css selector", ".card canvas")
    for _ in range(200):
        if all(canvas.get_attribute("data-painted") for canvas in cards):
            break
        time.sleep(0.02)
    assert all(canvas.get_attribute("data-painted") for canvas in cards)


def test_categories_that_define_little(browser, tmp_path):
    made = [
        finish(tmp_path, labels, name, num_review=num)
        for name, labels, num in (("nothing", [], 2), ("nominal", [0, 0], 2),
                                  ("defective", [1, 1], 2), ("unreviewed", [0, 1], 0))
    ]  # fmt: skip
    shown(tmp_path, *made)
    report.main([f"--workdir={tmp_path}", "--html"])
    page = Page(browser, tmp_path / "report" / "report.html")
    sections = {}
    for name in ("nothing", "nominal", "defective", "unreviewed"):
        page.choose(name)
        sections[name] = page.texts("#category-results > section > h2")
        if name != "nothing":
            page.slide("#pixel-slider", 1)
    assert sections == {
        "nothing": [],
        "nominal": ["Scores and decisions", "Gallery", "Images"],
        "defective": ["Scores and decisions", "Gallery", "Curves", "Images"],
        "unreviewed": ["Scores and decisions", "Curves", "Images"],
    }
    assert page.trouble() == []


def test_a_sweep(browser, tmp_path):
    found = [
        record(category, value, shots=shots, seed=seed)
        for shots, base in ((1, 0.3), (2, 0.5), (4, 0.6))
        for seed, more in ((0, 0.0), (1, 0.1))
        for category, value in (("cap", base + more), ("nut", base - more))
    ]
    write(tmp_path / "a", *found)
    report.main([f"--workdir={tmp_path / 'a'}", "--html", "--metric=pixel_ap"])
    page = Page(browser, tmp_path / "a" / "report" / "report.html")
    assert len(page.texts("#details table")) == 1
    means = "#summary .tabular"
    assert page.texts(f"{means} tbody tr:first-child > *")[1:5] == [
        "1",
        "affine_ridge",
        "2",
        "30.0 ± 0.0",
    ]
    page.find(f"{means} thead th:nth-child(5) button").click()
    assert page.texts(f"{means} tbody td:nth-child(2)") == ["4", "2", "1"]
    assert page.texts("#charts h3") == ["pixel AP by nominal images"]
    assert len(page.browser.find_elements("css selector", "#charts circle:not(.dot)")) == 3
    assert page.trouble() == []
