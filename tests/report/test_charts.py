from xml.etree import ElementTree as ET

import pytest

from nerv_fl.report.charts import Chart, Rule, Series, line_chart
from nerv_fl.report.formatting import fixed


def chart(**settings: object) -> Chart:
    defaults: dict[str, object] = {
        "label": "Loss over rounds",
        "series": [Series(name="loss", style="main", points={0: 4.0, 1: 3.0, 2: 3.0})],
        "height": 100,
        "format": lambda value: fixed(value, places=1),
    }
    return Chart(**(defaults | settings))  # type: ignore[arg-type]


def drawing(settings: Chart) -> ET.Element:
    return ET.fromstring(line_chart(settings))


def points(element: ET.Element) -> list[tuple[str, float]]:
    return [(dot.attrib["cx"], float(dot.attrib["cy"])) for dot in element.iter("circle")]


def test_points_stand_where_their_values_are() -> None:
    # Rounds 0..2 with half a round of air: 1/6, 3/6, 5/6; values 3..4 over 100 pixels, high ones above.
    assert points(drawing(chart())) == [("16.67%", 0.0), ("50.00%", 100.0), ("83.33%", 100.0)]


def test_a_drawing_is_named_for_those_who_cannot_see_it() -> None:
    svg = drawing(chart()).find("svg")

    assert svg is not None
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "Loss over rounds"
    assert svg.findtext("title") == "Loss over rounds"


def test_rejected_rounds_are_marked_and_named() -> None:
    element = drawing(chart(rejected=frozenset({2})))

    assert [dot.get("class") for dot in element.iter("circle")] == [None, None, "rejected"]
    titles = [title.text for title in element.iter("title")]
    assert titles == ["Loss over rounds", "Round 0\nloss: 4.0", "Round 1\nloss: 3.0", "Round 2, rejected\nloss: 3.0"]


def test_the_last_value_and_the_references_are_labelled_at_the_edge_without_overlap() -> None:
    rules = [Rule(name="unigram", style="reference", value=3.01, text="3.0")]
    labels = [text for text in drawing(chart(rules=rules)).iter("text") if "end-label" in text.attrib["class"]]

    assert {text.text for text in labels} == {"loss 3.0", "unigram 3.0"}
    first, second = (float(text.attrib["y"]) for text in labels)
    assert abs(first - second) >= 15


def test_a_reference_outside_the_values_widens_the_axis() -> None:
    element = drawing(chart(rules=[Rule(name="bound", style="bound", value=8.0, text="8")]))
    rule = next(line for line in element.iter("line") if line.get("class") == "rule bound")

    assert 0 <= float(rule.attrib["y1"]) < min(y for _, y in points(element))


def test_a_logarithmic_chart_takes_zero() -> None:
    series = [Series(name="error", style="main", points={0: 0.0, 1: 1e-16})]

    assert points(drawing(chart(series=series, log=True)))[0] == ("25.00%", 100.0)


@pytest.mark.parametrize(("count", "dots"), [(60, 60), (61, 1)])
def test_long_lines_show_only_rejected_points(count: int, dots: int) -> None:
    series = [Series(name="", style="main", points={number: float(number) for number in range(count)})]

    assert len(points(drawing(chart(series=series, rejected=frozenset({7}))))) == dots
