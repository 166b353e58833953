from __future__ import annotations

import io
import re
import shutil
import sys
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oldphoto.errors import PhotoError
from oldphoto.imagefile import atomically, remove_stale_parts
from oldphoto.report import PREVIEW_SIDE, ReportEntry, ReportWriter, preview, preview_mask

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HOSTILE = "a/<script>alert(1)</script>\"' onload='x\n\x01 & \udcff.jpg"
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Page(HTMLParser):
    """The tags and the text of a page, with style and script apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.code = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.code += data
        else:
            self.text += data

    def all(self, name: str, /, **wanted: str) -> list[dict[str, str | None]]:
        return [a for tag, a in self.tags if tag == name and all(a.get(key) == value for key, value in wanted.items())]


def picture(height: int = 40, width: int = 60, level: float = 0.5) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((height, width, 3), level, np.float32)


def full_entry(name: str = "album/photo.jpg") -> ReportEntry:
    mask = np.zeros((40, 60), np.float32)
    mask[20] = 1
    return ReportEntry(
        name,
        "restored",
        before=preview(picture(level=0.3)),
        after=preview(picture(level=0.7)),
        mask=preview_mask(mask),
        faces=((0.25, 0.1, 0.5, 0.6), (0.6, 0.2, 0.8, 0.5)),
        seconds={"mask": 1.5, "translate": 4.5},
        damaged_share=0.025,
        warnings=("The profile was damaged.",),
    )


def write(path: Path, *entries: ReportEntry, title: str = "in") -> Page:
    with ReportWriter(path, title, "1.2.3") as report:
        for entry in entries:
            report.add(entry)
    return Page(path)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((40, 60), (60, 40)),
        ((1200, 1920), (960, 600)),
        ((1920, 480), (240, 960)),
        ((2, 4000), (960, 1)),
    ],
)
def test_previews_keep_the_shape_within_the_long_side(shape: tuple[int, int], size: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(preview(np.zeros((*shape, 3), np.float32)))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)
    with Image.open(io.BytesIO(preview_mask(np.zeros(shape, np.float32)))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", size)
    assert max(size) <= PREVIEW_SIDE


def test_a_preview_keeps_colours_and_clips_what_lies_outside() -> None:
    rgb = np.zeros((32, 32, 3), np.float32)
    rgb[...] = (0.8, 0.4, -0.5)
    with Image.open(io.BytesIO(preview(rgb))) as image:
        np.testing.assert_allclose(np.asarray(image)[16, 16], (204, 102, 0), atol=4)


def test_a_hairline_scratch_of_a_large_scan_stays_visible_in_the_mask_preview() -> None:
    mask = np.zeros((1500, 6000), np.float32)
    mask[700] = 1
    before = mask.copy()
    with Image.open(io.BytesIO(preview_mask(mask))) as image:
        small = np.asarray(image)
    assert small.max(axis=0).min() > 120
    assert (small > 0).mean() < 0.02
    np.testing.assert_array_equal(mask, before)


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page = write(path, full_entry(), full_entry("b.jpg"))
    content = path.read_text(encoding="utf-8")
    assert re.search(r"https?://", content) is None
    assert page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"] == CSP
    assert page.all("meta", name="viewport")
    for _tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(key) or "#").startswith(("data:", "#"))
        assert not [key for key in attributes if key.startswith("on")]
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", page.code))
    assert "@import" not in page.code
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_restored_photo_shows_all_that_is_known(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", full_entry())
    images = page.all("img")
    assert [image["width"] for image in images] == ["60"] * 3
    assert all(image["loading"] == "lazy" and image["decoding"] == "async" and image["alt"] for image in images)
    slider = page.all("input", type="range")[0]
    assert page.all("label", **{"for": str(slider["id"])})
    ids = {attributes.get("id") for _tag, attributes in page.tags}
    toggles = [button for button in page.all("button") if "aria-controls" in button]
    assert len(toggles) == 2
    assert all(button["aria-pressed"] == "false" and button["aria-controls"] in ids for button in toggles)
    boxes = page.all("span", **{"class": "face"})
    assert [box["style"] for box in boxes] == [
        "left: 25.00%; top: 10.00%; width: 25.00%; height: 50.00%",
        "left: 60.00%; top: 20.00%; width: 20.00%; height: 30.00%",
    ]
    for shown in ("Faces 2", "2.5 %", "mask1.50 s", "translate4.50 s", "Total6.00 s", "The profile was damaged."):
        assert shown in page.text


@pytest.mark.parametrize("field", ["name", "warnings", "error", "title", "stage"])
def test_hostile_text_is_shown_as_text(tmp_path: Path, field: str) -> None:
    calm = [tag for tag, _ in write(tmp_path / "calm.html", entry_with(field, "b/x.jpg"), title="t").tags]
    title = HOSTILE if field == "title" else "t"
    page = write(tmp_path / "report.html", entry_with(field, HOSTILE), title=title)
    assert [tag for tag, _ in page.tags] == calm
    assert "<script>alert(1)</" in page.text
    assert "script>\"' onload='x\\n\\x01 & \\udcff.jpg" in page.text
    assert "alert" not in page.code
    assert not any("onload" in attributes for _, attributes in page.tags)


def entry_with(field: str, text: str) -> ReportEntry:
    pictures = {"before": preview(picture()), "after": preview(picture())}
    return ReportEntry(
        text if field == "name" else "b/x.jpg",
        "failed",
        **pictures,
        seconds={text if field == "stage" else "mask": 1.0},
        warnings=(text if field == "warnings" else "w",),
        error=text if field == "error" else "e",
    )


def test_failures_and_kept_photos_are_listed_and_counted(tmp_path: Path) -> None:
    page = write(
        tmp_path / "report.html",
        full_entry(),
        ReportEntry("kept.jpg", "kept"),
        ReportEntry("broken.jpg", "failed", error="broken.jpg: the file ends early"),
        ReportEntry("late.jpg", "failed", before=preview(picture()), seconds={"read": 60.0}, error="the disk is full"),
    )
    for shown in ("4photos", "1restored", "1kept from an earlier run", "2failed", "1 min 06 sof processing"):
        assert shown in page.text
    assert page.text.index("2failed") < page.text.index("photo.jpg") < page.text.index("broken.jpg")
    for shown in ("kept.jpg", "broken.jpg: the file ends early", "the disk is full", "oldphoto 1.2.3"):
        assert shown in page.text
    assert len(page.all("input", type="range")) == 1
    assert "ended early" not in page.text


def test_an_empty_run_gives_a_page(tmp_path: Path) -> None:
    assert "0photos" in write(tmp_path / "report.html").text


def test_an_unreadable_preview_does_not_lose_the_report(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", ReportEntry("a.jpg", "restored", before=b"no", after=b"no"))
    assert len(page.all("img")) == 2


def test_an_unknown_status_is_refused(tmp_path: Path) -> None:
    with ReportWriter(tmp_path / "report.html", "in", "1") as report, pytest.raises(ValueError, match="skipped"):
        report.add(ReportEntry("a.jpg", "skipped"))


def test_nothing_stands_under_the_final_name_before_close(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    report = ReportWriter(path, "in", "1")
    report.add(full_entry())
    (part,) = path.parent.iterdir()
    assert part.name.startswith(".")
    report.close()
    report.close()
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert not part.exists()


def test_an_earlier_report_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("earlier")
    with ReportWriter(path, "in", "1") as report:
        report.add(full_entry())
        assert path.read_text() == "earlier"
    assert "photo.jpg" in Page(path).text


def test_two_runs_with_one_page_leave_that_of_the_last(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with ReportWriter(path, "first", "1") as first:
        first.add(full_entry("a.jpg"))
        with ReportWriter(path, "second", "1") as second:
            first.add(full_entry("b.jpg"))
            second.add(full_entry("c.jpg"))
            remove_stale_parts(tmp_path)
        assert len(Page(path).all("article")) == 1
    assert b"\0" not in path.read_bytes()
    shown = Page(path).text
    assert [name in shown for name in ("a.jpg", "b.jpg", "c.jpg")] == [True, True, False]


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
def test_what_a_killed_run_left_of_its_page_goes_with_the_next(tmp_path: Path) -> None:
    with atomically(tmp_path / "page.html") as part:
        part.touch()
        left = part.with_name(part.name[:9] + 24 * "0" + part.suffix)
    left.write_bytes(b"half")
    with ReportWriter(tmp_path / "report.html", "in", "1"):
        assert not left.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_a_whole_page(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(error), ReportWriter(path, "in", "1") as report:
        report.add(full_entry())
        raise error
    page = Page(path)
    assert "1restored" in page.text
    assert "The run ended early" in page.text
    assert path.read_text(encoding="utf-8").endswith("</html>\n")


def test_memory_stays_flat_over_many_photos(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((400, 600, 3), dtype=np.float32)
    small = preview(noise)
    path = tmp_path / "report.html"
    with ReportWriter(path, "in", "1") as report:
        tracemalloc.start()
        try:
            for number in range(300):
                report.add(ReportEntry(f"{number}.jpg", "restored", small, small, seconds={"mask": 1.0}))
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert path.stat().st_size > 300 * 2 * len(small)
    assert held < 300_000
    assert peak < 20 * len(small)
    assert "300photos" in path.read_text(encoding="utf-8").replace("<strong>", "").replace("</strong>", "")


def test_a_report_that_can_not_be_written_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "folder.html"
    folder.mkdir()
    blocked = tmp_path / "file"
    blocked.write_text("x")
    for path in (folder, blocked / "report.html"):
        with pytest.raises(PhotoError, match=r"cannot write the report.*name a file") as caught:
            ReportWriter(path, "in", "1")
        assert str(path) in str(caught.value)
    assert blocked.read_text() == "x"
    assert not list(tmp_path.glob(".*"))


def test_a_lost_folder_fails_the_commit_but_does_not_hide_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "report.html"
    report = ReportWriter(path, "in", "1")
    shutil.rmtree(path.parent)
    with pytest.raises(PhotoError, match=r"report\.html"):
        report.close()
    with pytest.raises(KeyboardInterrupt) as caught, ReportWriter(path, "in", "1"):
        shutil.rmtree(path.parent)
        raise KeyboardInterrupt
    assert "report.html" in caught.value.__notes__[0]


def test_a_photo_that_did_not_fit_leaves_no_half_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    with ReportWriter(path, "in", "1") as report:
        report.add(ReportEntry("first.jpg", "kept"))
        with monkeypatch.context() as patch, pytest.raises(PhotoError, match="No space left"):
            patch.setattr(report, "_file", FullDisk(report._file))
            report.add(full_entry("second.jpg"))
        report.add(ReportEntry("third.jpg", "kept"))
    page = Page(path)
    assert "second" not in path.read_text(encoding="utf-8")
    assert "2photos" in page.text
    assert len(page.all("article")) == 2
    assert page.all("article")[-1]["id"] == "photo-2"


class FullDisk:
    """Takes a few bytes, then no more."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._room = 100

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        if not self._room:
            raise OSError(28, "No space left on device")
        written: int = self._file.write(data[: self._room])
        self._room -= written
        return written


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def photo_entry(name: str, rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> ReportEntry:
    after = (rgb / 255).astype(np.float32)
    before = np.repeat(after.mean(axis=2, keepdims=True), 3, axis=2)
    mask = np.zeros(rgb.shape[:2], np.float32)
    mask[100:110] = 1
    return ReportEntry(
        name,
        "restored",
        before=preview(before),
        after=preview(after),
        mask=preview_mask(mask),
        faces=((0.3, 0.1, 0.6, 0.5),),
        seconds={"mask": 1.0, "translate": 2.0},
    )


def test_the_page_works_in_a_browser_by_keyboard(tmp_path: Path, browser: Chrome) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from skimage import data

    path = tmp_path / "report.html"
    long_name = "a folder/" + "averylongnamewithoutanyspace" * 6 + ".jpg"
    write(path, photo_entry(long_name, data.astronaut()), photo_entry(HOSTILE, data.coffee()), title="x" * 80)
    browser.get(path.as_uri())

    def colourfulness() -> float:
        shot = Image.open(io.BytesIO(pair.screenshot_as_png)).convert("HSV")
        return float(np.asarray(shot)[..., 1].mean())

    def resize(width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def clip() -> str:
        return browser.find_element(By.CSS_SELECTOR, "#photo-1 .after img").value_of_css_property("clip-path")

    resize(1200, 900)
    pair = browser.find_element(By.CSS_SELECTOR, "#photo-1 .pair")
    slider = browser.find_element(By.ID, "cut-1")
    half = colourfulness()
    assert "50%" in clip()
    slider.send_keys(Keys.ARROW_LEFT * 10)
    assert "40%" in clip()
    assert slider.get_attribute("aria-valuetext") == "40 % before, 60 % after"
    assert browser.find_element(By.CSS_SELECTOR, "#photo-1 .overlay").value_of_css_property("outline-style") == "solid"
    more_after = colourfulness()
    slider.send_keys(Keys.END)
    assert "100%" in clip()
    assert colourfulness() < half < more_after
    assert "50%" in browser.find_element(By.CSS_SELECTOR, "#photo-2 .after img").value_of_css_property("clip-path")

    for layer, key in (("mask-1", Keys.SPACE), ("faces-1", Keys.ENTER)):
        button = browser.find_element(By.CSS_SELECTOR, f"[aria-controls={layer}]")
        shown = browser.find_element(By.ID, layer)
        assert not shown.is_displayed()
        plain = pair.screenshot_as_png
        button.send_keys(key)
        assert shown.is_displayed()
        assert button.get_attribute("aria-pressed") == "true"
        assert pair.screenshot_as_png != plain
        button.send_keys(key)
        assert not shown.is_displayed()
        assert button.get_attribute("aria-pressed") == "false"

    browser.find_element(By.CSS_SELECTOR, "button[data-show=restored]").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "photo-1").is_displayed()
    assert not browser.find_element(By.CSS_SELECTOR, "button[data-show=failed]").is_enabled()

    resize(360, 780)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    browser.find_element(By.ID, "photo-2").screenshot(str(tmp_path / "second.png"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.get_log("browser") == []


def test_both_pictures_stand_in_full_without_javascript(tmp_path: Path, browser: Chrome) -> None:
    from selenium.webdriver.common.by import By
    from skimage import data

    path = tmp_path / "report.html"
    write(path, photo_entry("a.jpg", data.astronaut()))
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(path.as_uri())
    before, after = (browser.find_element(By.CSS_SELECTOR, f".{role} img") for role in ("before", "after"))
    assert before.is_displayed()
    assert after.is_displayed()
    assert after.value_of_css_property("clip-path") == "none"
    apart = after.rect["x"] - before.rect["x"] >= before.rect["width"]
    under = after.rect["y"] - before.rect["y"] >= before.rect["height"]
    assert apart or under
    assert not browser.find_element(By.ID, "cut-1").is_displayed()
