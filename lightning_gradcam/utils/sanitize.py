"""Words from files and models, shown where they could be obeyed: by a terminal, by Markdown, by HTML."""

from __future__ import annotations

import html
import re

_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: a terminal moves, colours, or retitles itself
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of reading (CVE-2021-42574)
    "\u2028\u2029"  # end a line
    "\ud800-\udfff]"  # halves of characters, which JSON can spell and no file can hold
)


def escape_terminal(words: str) -> str:
    r"""One line for a terminal, with "?" for every character that it would obey instead of show.

    >>> escape_terminal("a \x1b[31mname\nand \u202eanother")
    'a ?[31mname?and ?another'
    """
    return _OBEYED.sub("?", words)


def escape_markdown(words: str) -> str:
    """The same for Markdown, in a table as well: nothing in it is obeyed, nobody mentioned and nothing linked.

    Entities are read before GitHub looks for mentions, issues and addresses, so a space of no width breaks these up.

    >>> escape_markdown("<b>|@all #1")
    '&#60;b&#62;&#124;&#64;&#8203;all &#35;&#8203;1'
    """
    broken = re.sub(r"[@#]|:(?=//)|www(?=\.)|GH(?=-)", lambda found: found[0] + "\u200b", escape_terminal(words))
    return re.sub(r"[&\\`*_{}\[\]<>()#!|~@\u200b]", lambda found: f"&#{ord(found[0])};", broken)


def escape_html(words: str) -> str:
    """The same for HTML, between tags and in quoted attributes.

    >>> escape_html('<b>"&')
    '&lt;b&gt;&quot;&amp;'
    """
    return html.escape(escape_terminal(words))
