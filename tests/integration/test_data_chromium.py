"""data.html in a real browser without a network: every card is drawn, and the map shows the chosen measure."""

from pathlib import Path

from needs import CHROMIUM

from clients.heterogeneity.table import measure_clients
from dashboards.data_page.page import write_data
from tests.support.chromium import chromium
from tests.support.small_city import small_city

pytestmark = CHROMIUM.mark

CARDS = "[...document.querySelectorAll('.card[id^=card-]')].filter((one) => one.offsetParent).map((one) => one.id)"
MAP = "echarts.getInstanceByDom(document.querySelector('#card-map .chart')).getOption().series[0].data"


def choose(value: str) -> str:
    """Return the JavaScript that selects a value in the map's list."""
    return f"""(() => {{ const list = document.querySelector('#card-map select');
      list.value = '{value}'; list.dispatchEvent(new Event('change')); }})()"""


def test_data_page_draws_every_card_and_the_map_the_chosen_measure(tmp_path: Path) -> None:
    city = small_city()
    measures, held = measure_clients(city, seed=0)
    _, file = write_data(tmp_path, city, measures, held, title="A <b>city</b>", seed=0)
    with chromium() as browser:
        page = browser.open(file.as_uri())
        assert page.drawn() == 5
        assert page.evaluate(CARDS) == ["card-map", "card-sizes", "card-labels", "card-distance", "card-faults"]
        assert page.evaluate("document.querySelector('h1').textContent") == "A <b>city</b>"
        assert "South</script>" not in page.evaluate("document.body.innerText")  # the map starts with a fault
        points = page.evaluate(MAP)
        assert sorted(tuple(point["value"]) for point in points) == sorted((k // 2, k % 2 * 3) for k in range(24))
        inks = {}
        for what in ("district", "size", "fault flip"):
            page.evaluate(choose(what))
            inks[what] = {tuple(p["value"]): p["itemStyle"]["color"] for p in page.evaluate(MAP)}
        assert len(set(inks["district"].values())) == 2
        assert len(set(inks["size"].values())) == 3
        noisy, clean = ({ink for at, ink in inks["fault flip"].items() if at[1] == y} for y in (0, 3))
        assert len(noisy) == len(clean) == 1
        assert noisy != clean
        page.evaluate(choose("district"))
        assert "South</script>" in page.evaluate("document.querySelector('#card-map .legend').innerText")
        page.evaluate("document.querySelector('.bar button').click()")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.drawn() == 5
        page.resize(420)
        page.wait("document.documentElement.scrollWidth <= 420")
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
