from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.report.markup import Html, el, join


def test_text_and_attributes_are_escaped() -> None:
    assert el("p", "<b>&", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;&amp;</p>'


def test_markup_is_not_escaped_twice() -> None:
    assert join(el("b", "1 < 2"), Html("<i>")) == "<b>1 &lt; 2</b><i>"


def test_none_and_false_leave_out_and_true_stands_alone() -> None:
    assert el("p", None, hidden=True, title=None, open=False) == '<p hidden=""></p>'


@given(st.text(), st.text())
def test_whatever_the_text_is_an_xml_parser_reads_it_back(text: str, title: str) -> None:
    element = ET.fromstring(el("p", text, title=title))

    def visible(raw: str) -> str:
        return "".join(letter for letter in raw if letter.isprintable() or letter in "\n\t")

    assert (element.text or "") == visible(text)
    assert len(element) == 0
