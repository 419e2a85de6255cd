from xml.etree import ElementTree as ET

from nerv_fl.report.bars import Bar, Interval, bar_chart, interval_chart, stacked_columns


def share(text: str) -> float:
    return float(text.removesuffix("%"))


def test_an_interval_is_drawn_between_its_ends_with_zero_in_view() -> None:
    rows = [Interval(name="node 3", value=2.0, low=1.0, high=4.0, text="Node 3", style="good")]
    element = ET.fromstring(interval_chart(rows, label="Values", title="nats"))

    whisker = next(line for line in element.iter("line") if line.get("class") == "whisker")
    dot = next(element.iter("circle"))
    # The axis runs from 0 to 4.
    assert (share(whisker.attrib["x1"]), share(dot.attrib["cx"]), share(whisker.attrib["x2"])) == (25.0, 50.0, 100.0)
    assert "node 3" in [text.text for text in element.iter("text")]


def test_bars_are_proportional_and_zero_has_none() -> None:
    rows = [Bar(length=length, label=str(length), text="") for length in (4.0, 1.0, 0.0)]
    element = ET.fromstring(bar_chart(rows, label="Payouts", title="NERV"))

    widths = [share(bar.attrib["width"]) for bar in element.iter("rect") if bar.get("class") == "bar"]
    assert widths == [58.0, 14.5]


def test_bars_of_nothing_do_not_divide_by_zero() -> None:
    element = ET.fromstring(bar_chart([Bar(length=0.0, label="0", text="")], label="Payouts", title="NERV"))

    assert not [bar for bar in element.iter("rect") if bar.get("class") == "bar"]


def test_columns_are_stacked_from_the_axis_up() -> None:
    markup = stacked_columns({1: {"train": 3.0, "gate": 1.0}}, label="Seconds", unit="s", height=100)
    element = ET.fromstring(markup)

    parts = [rect for rect in element.iter("rect") if (rect.get("class") or "").startswith("stack")]
    assert [(float(part.attrib["y"]), float(part.attrib["height"])) for part in parts] == [(25.0, 75.0), (0.0, 25.0)]
    assert "Round 1\ntrain: 3 s\ngate: 1 s\nsum: 4 s" in [title.text for title in element.iter("title")]
