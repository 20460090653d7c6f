"""Escaping of untrusted text, from files and models, for a terminal, Markdown and HTML."""

from __future__ import annotations

import html
import re

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, which move the cursor or change colors and the title
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of text (CVE-2021-42574)
    "\u2028\u2029"  # end a line
    "\ud800-\udfff]"  # surrogates, which JSON can contain but UTF-8 cannot encode
)


_MARKUP = re.compile(
    "[&\\\\`*<>#|~@\u200b]"
    "|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # within a word it does not format
    r"|\[(?=[\[^])|\](?=[(\[:\]]|$)"  # links, footnotes and their targets; other brackets stay readable
)


def escape_terminal(text: str) -> str:
    r"""Escape text for one line of a terminal: replace every control character by "?".

    >>> escape_terminal("a \x1b[31mname\nand \u202eanother")
    'a ?[31mname?and ?another'
    """
    return _CONTROLS.sub("?", text)


def escape_markdown(text: str) -> str:
    """Escape text for Markdown, also inside of tables: it formats, mentions and links nothing.

    GitHub decodes entities before it detects mentions, issues and addresses, so a zero-width space breaks these up.

    >>> escape_markdown("<b>|@all #1")
    '&#60;b&#62;&#124;&#64;&#8203;all &#35;&#8203;1'
    """
    separated = re.sub(r"[@#]|:(?=//)|www(?=\.)|GH(?=-)", lambda match: match[0] + "\u200b", escape_terminal(text))
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", separated)


def escape_html(text: str) -> str:
    """Escape text for HTML, between tags and in quoted attributes.

    >>> escape_html('<b>"&')
    '&lt;b&gt;&quot;&amp;'
    """
    return html.escape(escape_terminal(text))
