"""The report of a night: one file, whole, that needs nothing else and names nobody."""

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import LAST, small_world, world_in

from jobs import report
from jobs.nightly import nightly
from jobs.settings import Settings
from recommender.errors import GateRefused
from storage.catalogue import Catalogue
from storage.errors import NotFound

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def named(title: str = "Movie") -> Catalogue:
    """The small world with users called person-1, person-2, ..., and one title of our choice."""
    world = small_world()

    def people(table: pa.Table) -> pa.Table:
        names = pc.binary_join_element_wise("person", table["user_id"].cast(pa.string()), "-")
        return table.set_column(table.column_names.index("user_id"), "user_id", names)

    titles = pa.array([title, *world.movies["title"].to_pylist()[1:]])
    movies = world.movies.set_column(world.movies.column_names.index("title"), "title", titles)
    return Catalogue(people(world.ratings), movies, people(world.users))


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    hostile = '<script>alert("1")</script> & "quotes"'
    settings = world_in(tmp_path_factory.mktemp("report") / "state", named(hostile))
    for day in (LAST - timedelta(days=1), LAST):
        nightly(settings, day)
    return settings


def test_a_night_writes_its_report_and_the_newest_is_linked(two_nights: Settings) -> None:
    pages = sorted(two_nights.pages.glob("2*.html"))
    assert len(pages) == 2
    assert (two_nights.pages / report.LATEST).resolve() == pages[-1]
    text = pages[-1].read_text()
    assert f"Recommendations of {LAST}" in text
    assert text.count("<svg") == 5  # training, quality, nights, stars, exposure
    assert text.rstrip().endswith("</html>")


def test_a_page_asks_for_nothing_and_shows_titles_as_text(two_nights: Settings) -> None:
    text = (two_nights.pages / report.LATEST).read_text()
    assert not re.findall(r'(?:src|href)="(?!#)|url\((?!#)|@import', text)
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#34;quotes&#34;" in text


@pytest.mark.faults("B5.7", "B5.11")
def test_nobody_is_named(two_nights: Settings) -> None:
    text = (two_nights.pages / report.LATEST).read_text()
    assert "Somebody with" in text
    assert "liked best" in text
    assert "person" not in text


def test_what_is_told_is_what_is_published(two_nights: Settings) -> None:
    found = report.gather(two_nights)
    told = found["published"]
    assert told["users"] == 41
    assert told["rows"] == 41 * 5
    assert sum(row["share"] for row in told["changes"]) == pytest.approx(1)
    assert told["top"][0]["n_users"] == max(movie["n_users"] for movie in told["top"])
    assert [night["status"] for night in found["nights"]] == ["published", "published"]
    for day in {row["as_of_date"] for row in told["predicted"]}:
        assert sum(row["share"] for row in told["predicted"] if row["as_of_date"] == day) == pytest.approx(1)
    assert sum(told["given"]["all"]) == pytest.approx(1)
    assert {verdict["state"] for verdict in found["verdicts"]} <= {"good", "warn"}


def test_a_run_that_was_refused_has_a_report_that_says_so(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", gate__max_rmse_ratio=0.01)
    with pytest.raises(NotFound):
        report.write(settings)
    with pytest.raises(GateRefused):
        nightly(settings, LAST)
    document = report.gather(settings)
    assert document["verdicts"][0]["what"] == "refused"
    assert document["verdicts"][0]["state"] == "bad"
    assert "over the limit" in report.write(settings).read_text()


def test_old_reports_are_pruned_and_none_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", publish__keep_reports=1)
    for day in (LAST - timedelta(days=1), LAST):
        nightly(settings, day)
    assert len(list(settings.pages.glob("2*.html"))) == 1
    without = world_in(tmp_path / "other", publish__keep_reports=0)
    nightly(without, LAST)
    assert not without.pages.exists()


def test_the_curve_of_exposure_is_that_by_hand() -> None:
    """Movies listed 0, 1, 1 and 2 times: the lower half has a quarter of the places."""
    assert report.lorenz([1, 0, 2, 1]) == [(0, 0), (0.25, 0), (0.5, 0.25), (0.75, 0.5), (1, 1)]
    assert report.lorenz([0, 0]) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to lay a page out")
@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_overflows_in_a_browser(two_nights: Settings, tmp_path: Path, width: int) -> None:
    text = (two_nights.pages / report.LATEST).read_text()
    measuring = "<script>document.title = document.documentElement.scrollWidth - innerWidth</script></body>"
    page = tmp_path / "page.html"
    page.write_text(re.sub("<meta http-equiv.*?>", "", text).replace("</body>", measuring))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--hide-scrollbars",
        "--dump-dom",
    ]
    shown = subprocess.run(
        [CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    found = re.search("<title>(-?[0-9]+)</title>", shown)
    assert found is not None
    assert int(found[1]) <= 0
