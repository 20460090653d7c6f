"""Reports of baselines with hostile contents."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

from lightning_gradcam import Baseline
from lightning_gradcam.baseline.summary import BaselineSummary
from lightning_gradcam.capture.layer import Layer
from tests.helpers.baselines import record_small

HOSTILE_NAME = (
    "<script>alert(1)</script>|[x](javascript:a)\n# head `code` \x1b[31mred\x1b[0m \u202e\"'&lt; "
    "@all #1 https://a.b www.a.b GH-1 \u2028\ud800"
)


def with_hostile_names(baseline, value=HOSTILE_NAME):
    """Return the baseline with names that would take effect where they are shown unescaped."""
    explanation = baseline.explanation
    [key] = explanation.evidence
    explanation = replace(
        explanation,
        evidence={HOSTILE_NAME: explanation.evidence[key]},
        map_status={HOSTILE_NAME: explanation.map_status[key]},
        layers={HOSTILE_NAME: Layer(HOSTILE_NAME, -1, HOSTILE_NAME)},
    )
    names = {
        "target": HOSTILE_NAME,
        "methods": (HOSTILE_NAME,),
        "layers": (HOSTILE_NAME,),
        "recorded": HOSTILE_NAME,
        "environment": {HOSTILE_NAME: value},
    }
    return replace(baseline, explanation=explanation, metadata=replace(baseline.metadata, **names))


def test_names_from_files_are_escaped_in_all_formats(tmp_path):
    with_hostile_names(record_small(0)).save(tmp_path / "one")
    one = Baseline.load(tmp_path / "one")
    other = with_hostile_names(record_small(1), value=HOSTILE_NAME + "!")
    alone = replace(other, metadata=replace(other.metadata, methods=("gradcam",)))
    for shown in (one.compare(other), one.compare(alone), BaselineSummary.from_baseline(one)):
        page = shown.html()
        inside = page.split("</style>")[1]
        assert "<script" not in inside
        assert "onerror" not in inside
        assert not re.search(r"<(?!/?(table|tr|td|th|h1|h2|p|span|img|body|html|head)\b)", inside)
        assert "<script>" in html.unescape(inside)  # shown, but as words
        for words in (shown.text(), shown.markdown(), page):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\ud800]", words)
            assert words.encode()
        markdown = shown.markdown()
        # What GitHub sees after it has read the entities, and before it looks for mentions, issues and addresses.
        seen = html.unescape(markdown)
        assert "@\u200ball" in seen
        assert not re.search(r"@all|#1|https://|www\.a|GH-1", seen)
        assert "&lt;script" not in seen  # an entity of the name's own stays what it was
        assert "<script" not in markdown
        assert "](" not in markdown
        assert "\n# head" not in markdown
        tables = [line for line in markdown.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} <= {3, 4, 6}
        assert json.loads(shown.json())
