"""Words that a terminal, Markdown or HTML would obey, whatever they are."""

from __future__ import annotations

import html
import unicodedata
from html.parser import HTMLParser

import markdown
from hypothesis import given, strategies as st

from lightning_gradcam.utils.sanitize import escape_html, escape_markdown, escape_terminal
from tests.helpers.models import examples

ANYTHING = st.text(st.characters(), max_size=40) | st.text("\\`*_{}[]<>()#!|~@&;\x1b\n\r\u202e\u2066\ud800:/w.-GH01a")
"""With halves of characters, which `st.text` alone leaves out."""


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.words = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))

    def handle_data(self, data):
        self.words += data


@examples(300)
@given(ANYTHING)
def test_escape_terminal_returns_one_line_without_controls(words):
    shown = escape_terminal(words)
    assert len(shown.splitlines()) <= 1
    assert len(shown) == len(words)
    for before, after in zip(words, shown, strict=True):
        obeyed = unicodedata.category(before) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(before) in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"
        )  # fmt: skip
        assert after == ("?" if obeyed or before in "\u061c\u200e\u200f" else before)
    shown.encode()


@examples(300)
@given(ANYTHING)
def test_escape_html_shows_text_without_tags(words):
    seen = Seen()
    seen.feed(f'<p title="{escape_html(words)}">{escape_html(words)}')
    seen.close()
    assert seen.tags == [("p", [("title", escape_terminal(words))])]
    assert seen.words == escape_terminal(words)


@examples(300)
@given(ANYTHING)
def test_escape_markdown_shows_same_text_without_markup(words):
    shown = escape_markdown(words)
    assert not set("\\`*<>|~@") & set(shown)
    page = Seen()
    page.feed(markdown.markdown(f"x {shown} y\n\n| a |\n| --- |\n| {shown} |", extensions=["tables", "footnotes"]))
    page.close()
    assert [tag for tag, _ in page.tags] == ["p", "table", "thead", "tr", "th", "tbody", "tr", "td"]
    assert html.unescape(shown).replace("\u200b", "") == escape_terminal(words).replace("\u200b", "")
    read = html.unescape(shown)
    for start in ("@", "#"):
        assert all(part.startswith("\u200b") for part in read.split(start)[1:])
    assert "://" not in read
    assert "www." not in read
