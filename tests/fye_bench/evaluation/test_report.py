"""A run's page is one file that shows what went wrong first, and trusts no text that it shows."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fye_bench.evaluation import pictures
from fye_bench.evaluation.command import main_report
from fye_bench.evaluation.compare import compare, overview
from fye_bench.evaluation.comparison import write_comparison, write_overview
from fye_bench.evaluation.report import typical, write_report
from fye_bench.evaluation.saved import SavedRun
from tests.fye_bench.evaluation.runs import FAMILIES, edit, write_run

EVIL = '<script>alert("1")</script> & <img src=x onerror=alert(2)>'
FAILED = {3: EVIL, 11: "no face in 3 of 16 frames: 2, 3, 9"}


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.text)
        assert not self._open, "tags that are left open"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("table", "section", "details", "article", "main", "svg", "script", "style", "dl", "ul"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", pairs=24, failed=FAILED, without_truth=(1, 2))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run))


@pytest.fixture(scope="module")
def pages(run: Path, page: Page, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("pages")
    others = [
        write_run(folder / name, pairs=24, failed=FAILED, worse=worse, seconds=1.0, seed=1)
        for name, worse in (("same", 0.0), ("worse", 0.05))
    ]
    a, b = SavedRun.load(run), SavedRun.load(others[1])
    write_comparison(compare(a, b), a, b, folder / "comparison.html")
    write_overview(overview([SavedRun.load(path) for path in (run, *others)]), folder / "overview.html")
    return {"report": page} | {name: Page(folder / f"{name}.html") for name in ("comparison", "overview")}


@pytest.mark.parametrize("name", ["report", "comparison", "overview"])
def test_a_report_loads_nothing_from_the_network(name: str, pages: dict[str, Page]) -> None:
    page = pages[name]
    for tag, attributes in page.tags:
        for attribute in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(attribute) or "#"
            assert value.startswith(("data:", "#")), (tag, attribute, value[:80])
        assert not any(attribute.startswith("on") for attribute in attributes)
    assert not re.search(r"url\(|@import|https?://|//[a-z]", re.sub(r"data:[^\"]*", "", page.text))
    policy = next(tag for _, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:")


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_report_escapes_text_from_files(name: str, pages: dict[str, Page]) -> None:
    page = pages[name]
    assert sum(tag == "script" for tag, _ in page.tags) == 1  # the page's own
    assert EVIL in page.shown and EVIL not in page.text
    assert not [attributes for tag, attributes in page.tags if tag == "img" and attributes.get("src") == "x"]


def test_a_report_escapes_names_of_groups_and_of_the_run(tmp_path: Path) -> None:
    about = {"suite": {"name": EVIL, "digest": EVIL}, "bundle": {"name": EVIL, "digest": "b", "precision": EVIL}}
    folder = write_run(tmp_path / "run", pairs=8, pictures=False, backend=EVIL, **about)
    edit(folder, lambda found: [row.update(family=EVIL, kind=EVIL, mode=EVIL) for row in found["pairs"]])
    edit(folder, lambda found: found["summary"].update({EVIL: found["summary"]["all"]}))
    page = Page(write_report(folder))
    assert sum(tag == "script" for tag, _ in page.tags) == 1 and EVIL not in page.text and "onerror" in page.shown


def test_a_report_lists_every_failed_pair(page: Page) -> None:
    assert "2 of 24 pairs failed" in page.shown
    for error in FAILED.values():
        assert error in page.shown


def test_a_report_shows_the_worst_pairs_first_with_their_pictures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=20)
    names = [pair.name for pair in SavedRun.load(folder).pairs]
    bad = {"psnr": 8.0, "ssim": 0.1, "l1": 60.0, "lpips": 0.9, "face_psnr": 7.0, "landmark_error": 40.0}
    edit(folder, lambda found: found["pairs"][13]["metrics"].update(bad))
    page = Page(write_report(folder))
    worst = page.text[page.text.index('id="worst"') : page.text.index('id="typical"')]
    shown = re.findall(r'<h3><span class="number">(\d+)</span>([^<]*)</h3>', worst)
    assert [int(number) for number, _ in shown] == list(range(1, 13))
    assert shown[0][1] == names[13] and worst.count("data:image/webp") == 12
    assert "8.00" in worst  # its numbers


def test_a_report_shows_typical_pairs_of_each_family(run: Path) -> None:
    found = typical(SavedRun.load(run).succeeded)
    assert sorted(pair.family for pair in found) == sorted([*FAMILIES, *FAMILIES])


def test_a_run_gives_the_same_report_each_time(run: Path, page: Page) -> None:
    assert write_report(run).read_text() == page.text


def test_a_report_shows_the_costs_of_every_group(page: Page) -> None:
    results = page.text[page.text.index('id="results"') : page.text.index('id="distributions"')]
    rows = [row for row in results.split("<tr")[1:] if "<small>" in row and "<td" in row]
    assert len(rows) >= 10 and all("2.0" in row.split('class="cost')[2] for row in rows)
    assert all("500 MB" in row for row in rows)


def test_a_report_of_five_hundred_pairs_stays_small(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=50, pictures=False)
    rows = json.loads((folder / "results.json").read_text())["pairs"]
    many = [row | {"pair": f"{row['pair']}-{n}"} for n in range(10) for row in rows]
    edit(folder, lambda found: found.update(pairs=many))
    # noise that just fits into a picture's budget
    noise = np.random.default_rng(0).integers(0, 256, (150, 300, 3), np.uint8)
    sheet = tmp_path / "sheet.jpg"
    pictures.media.write_image(sheet, noise)
    for pair in SavedRun.load(folder).pairs:
        (folder / "sheets" / f"{pair.name}.jpg").symlink_to(sheet)
    assert 1_000_000 < write_report(folder).stat().st_size < 3_000_000


def test_a_picture_of_a_report_stays_within_its_budget(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 2000, 3), np.uint8)
    found = pictures.embed(noise)
    assert len(found.uri) < pictures.MAX_BYTES * 4 / 3 + 100 and found.width <= pictures.MAX_WIDTH
    assert found.width / found.height == pytest.approx(2000 / 300, rel=0.02)


def test_a_run_without_clips_and_sheets_has_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=4, failed=dict.fromkeys(range(4), "out of memory"), pictures=False)
    edit(folder, lambda found: found.update(summary={}))
    (folder / "performance.json").unlink()
    assert "4 of 4 pairs failed" in Page(write_report(folder)).shown


def test_a_comparison_page_shows_frames_of_both_runs(pages: dict[str, Page]) -> None:
    page = pages["comparison"]
    assert page.text.count("data:image/webp") == 10
    assert "Not accepted" in page.shown and "worse" in page.shown


def test_an_overview_page_names_the_run_to_use(pages: dict[str, Page]) -> None:
    assert "Use onnxruntime, fp32, no forecast, mini (same): 2.00 times as fast" in pages["overview"].shown


def test_fye_report_prints_the_path_of_its_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_report([str(run)]) == 0 and capsys.readouterr().out.strip() == str(run / "report.html")


def test_a_report_of_one_pair_shows_no_interval(run: Path, page: Page, tmp_path: Path) -> None:
    numbers = r"\d[\d.]* to \d"
    alone = Page(write_report(write_run(tmp_path / "alone", pairs=1)))
    assert re.search(numbers, page.shown.split("Worst cases")[-2])
    assert "one pair" in alone.shown and not re.search(numbers, alone.shown)
