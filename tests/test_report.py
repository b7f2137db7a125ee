"""The report of a night: one file, whole, that needs nothing else and names nobody."""

import html
import json
import re
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import LAST, small_world, world_in

from jobs import report, report_glance, report_lists
from jobs import run as journals
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender.errors import GateRefused
from storage.catalogue import Catalogue
from storage.errors import NoRatings, NotFound

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
    settings = world_in(tmp_path_factory.mktemp("report") / "state", named(hostile), publish__keep_reports=30)
    for day in (LAST - timedelta(days=1), LAST):
        nightly(settings, day)
    return settings


def test_a_night_writes_its_report_and_the_newest_is_linked(two_nights: Settings) -> None:
    pages = sorted(two_nights.pages.glob("2*.html"))
    assert len(pages) == 2
    assert (two_nights.pages / report.LATEST).resolve() == pages[-1]
    text = pages[-1].read_text()
    assert f"<title>recjob {LAST}: Published</title>" in text
    told = ["ndcg", "rmse", "users", "minutes", "quality", "history", "stars", "score", "spread", "by_day", "exposure"]
    assert text.count("<svg") == len(told)  # coverage and churn are not judged where there are so few users
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
    rows = {row["change"]: row["rows"] for row in told["changes"]}
    left = rows.get("left", 0) / (sum(rows.values()) - rows.get("entered", 0))
    assert [value for value, what, _ in found["tiles"] if what == "list churn"] == [report_glance.share(left)]
    assert {row["source"]: row["share"] for row in told["sources"]} == {"model": 40 / 41, "cold_user": 1 / 41}
    assert sum(day["ratings"] for day in told["by_day"]) == found["run"]["n_ratings"]
    assert [row["who"] for row in told["people"]] == ["no rating", "1 to 19 ratings", "20 to 99 ratings"]
    assert sum(row["cold"] for row in told["people"]) == told["people"][0]["users"] == 1
    assert told["top"][0]["n_users"] == max(movie["n_users"] for movie in told["top"])
    assert [night["status"] for night in found["nights"]] == ["published", "published"]
    for figure in ("stars", "score"):
        listed = told["listed_stars"][figure]
        assert list(listed["days"]) == [str(LAST), str(LAST - timedelta(days=1))]
        assert [sum(shares) for shares in listed["days"].values()] == pytest.approx([1, 1])
        assert 0 <= listed["moved"] <= 1
    assert sum(told["given"]["shares"]["all"]) == pytest.approx(1)
    assert found["headline"] == {
        "state": "good",
        "title": "Published",
        "text": f"Readers see the lists of {LAST} for 41 users.",
    }
    assert {verdict["state"] for verdict in found["verdicts"]} <= {"good", "warn"}


def test_of_an_older_date_the_page_says_that_readers_see_a_newer_one(two_nights: Settings) -> None:
    first, last = (record["run_id"] for record in journals.records(two_nights.journal, two_nights.lock))
    before = LAST - timedelta(days=1)
    told = f"Readers see the lists of {before} for 41 users where they ask for that date; the newest are of {LAST}."
    assert report.gather(two_nights, first)["headline"]["text"] == told
    fewer = {LAST.isoformat(): {"run_id": last}}
    record = journals.find(two_nights.journal, two_nights.lock, first)
    gone = f"The lists of {before} for 41 users were published. Readers now see those of {LAST}."
    assert report_glance.headline(record, fewer)["text"] == gone


def test_a_night_that_was_refused_says_so_and_what_readers_still_see(tmp_path: Path) -> None:
    settings, before = world_in(tmp_path / "state", publish__keep_reports=30), LAST - timedelta(days=1)
    with pytest.raises(NotFound):
        report.write(settings)
    with pytest.raises(NoRatings):
        nightly(settings, date(2020, 1, 1))
    assert "Nothing is published yet." in (settings.pages / report.LATEST).read_text()
    nightly(settings, before)
    strict = world_in(tmp_path / "state", gate__max_rmse_ratio=0.01, publish__keep_reports=30)
    with pytest.raises(GateRefused):
        nightly(strict, LAST, Options(strict=True))
    text = (settings.pages / report.LATEST).read_text()
    assert f'Recommendations of <span class="whole">{LAST}</span>' in text
    assert "over the limit" in text
    assert f"Readers still see the lists of {before}." in text
    document = report.gather(strict)
    assert (document["headline"]["state"], document["headline"]["title"]) == ("bad", "Refused")
    assert [night["status"] for night in document["nights"]][-2:] == ["published", "refused"]
    assert document["published"] is None


def test_a_report_that_cannot_be_written_fails_no_night(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", publish__keep_reports=1)
    settings.reports.mkdir()
    settings.pages.write_text("in the way")
    assert nightly(settings, LAST)["status"] == "published"
    assert [record["status"] for record in journals.records(settings.journal, settings.lock)] == ["published"]


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
    assert report_lists.lorenz([1, 0, 2, 1]) == [(0, 0), (0.25, 0), (0.5, 0.25), (0.75, 0.5), (1, 1)]
    assert report_lists.lorenz([0, 0]) == []
    assert report_lists.gini([1, 0, 2, 1]) == pytest.approx(0.375)
    assert report_lists.gini([3, 3, 3]) == pytest.approx(0)
    assert report_lists.moved([0.5, 0.5, 0], [0.25, 0.5, 0.25]) == 0.25


FRAME = '<iframe name="{name}" style="width:{width}px; height:900px; border:0" srcdoc="{page}"></iframe>'
MEASURE = """<pre></pre><script>
onload = () => {
  const found = {}
  for (const frame of document.querySelectorAll("iframe")) {
    const all = [...frame.contentDocument.querySelectorAll("html, body, body *:not(svg *)")]
    const wide = all.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != "inline"
                              || e.getBoundingClientRect().right > frame.clientWidth + 1)
    found[frame.name] = {
      overflows: wide.map(e => e.tagName + " " + e.textContent.trim().slice(0, 40)),
      requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
      pictures: frame.contentDocument.querySelectorAll("svg").length,
    }
  }
  document.querySelector("pre").textContent = JSON.stringify(found)
}
</script>"""


@pytest.fixture(scope="module")
def laid_out(two_nights: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The newest report at three widths, and a page that is at fault, as Chromium lays them out."""
    if CHROMIUM is None:
        pytest.skip("THE REPORT WAS NOT LAID OUT: needs Chromium (apt-get install chromium)")
    report_page = re.sub(
        "<meta http-equiv.*?>", "", (two_nights.pages / report.LATEST).read_text()
    )  # which would forbid requests
    at_fault = '<p style="width:50rem">wide</p><img src="http://127.0.0.1:9/asked.png">'
    pages = [
        ("desktop", 1280, report_page),
        ("tablet", 768, report_page),
        ("phone", 375, report_page),
        ("at fault", 375, at_fault),
    ]
    folder = tmp_path_factory.mktemp("browser")
    frames = "".join(FRAME.format(name=name, width=width, page=html.escape(text)) for name, width, text in pages)
    (folder / "frames.html").write_text(f'<meta charset="utf-8">{frames}{MEASURE}')
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom"]
    shown = subprocess.run(
        [CHROMIUM, *options, (folder / "frames.html").as_uri()], capture_output=True, text=True, timeout=200
    )
    found = re.search("<pre>(.+?)</pre>", shown.stdout)
    assert found is not None, shown.stderr
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.slow
@pytest.mark.parametrize("width", ["desktop", "tablet", "phone"])
def test_nothing_overflows_and_nothing_is_asked_for_in_a_browser(laid_out: dict[str, Any], width: str) -> None:
    assert laid_out[width]["overflows"] == []
    assert laid_out[width]["requests"] == []
    assert laid_out[width]["pictures"] > 8
    assert laid_out["at fault"]["overflows"] != []
    assert laid_out["at fault"]["requests"] == ["http://127.0.0.1:9/asked.png"]
