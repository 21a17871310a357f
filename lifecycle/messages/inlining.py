"""From a template's files to three Jinja sources: subject, HTML with its styles on the elements, text.

Inheritance and CSS are resolved once per template and locale; what is left per recipient is filling in
variables. On the way every Jinja tag is a stand-in, because an HTML parser would escape `{{ a > b }}` and move
a `{% for %}` out of a table.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

import css_inline
import inscriptis
from jinja2 import Environment, FunctionLoader

from lifecycle.messages.anchors import ANCHOR

_STAND_IN = re.compile("\ue000(\\d+)\ue001")
_HELD_BY_COMMENT = re.compile("<!--(\ue000\\d+\ue001)-->")
_STRUCTURAL = re.compile(r"\{%[-+]?\s*(extends|block|endblock|include)\b|\{\{[-+]?\s*super\(\)\s*[-+]?\}\}")
_OUTSIDE_TAGS = re.compile(
    r"<!--.*?-->|<(title|style)\b.*?</\1>|<[a-zA-Z/!](?:[^>\"']|\"[^\"]*\"|'[^']*')*>|(\ue000\d+\ue001)",
    re.DOTALL,
)
_TABLE_TAG = re.compile(r"<(/?)(?:(table|tbody|thead|tfoot|tr)|td|th)\b[^>]*>")
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_BODY_TAG = re.compile(r"<body\b[^>]*>")
_LINE_OF_TAGS = re.compile(r"^[ \t]*((?:\{%.*?%\}[ \t]*)+)\n", re.MULTILINE | re.DOTALL)
_PIXEL = (
    '<img src="{{ pixel_url }}" alt="" width="1" height="1" style="display:block;width:1px;height:1px;border:0">'
)


@dataclass(frozen=True)
class Sources:
    """Jinja sources. `html` has the open pixel at the top of the body, since long mails are cut at the end."""

    subject: str
    html: str
    text: str


def inline(name: str, read: Callable[[str], str], lexer: Environment) -> Sources:
    """`read` gives the source of a template by its name. Raises Jinja's TemplateError."""
    stand_ins = _StandIns(lexer)
    loader = FunctionLoader(lambda wanted: stand_ins.put(read(wanted)))
    page = Environment(loader=loader, autoescape=False).get_template(name).render()
    title = _TITLE.search(page)
    inlined = _INLINER.inline(_OUTSIDE_TAGS.sub(_as_comment, page))
    body = stand_ins.back(_BODY_TAG.sub(lambda tag: tag.group() + _PIXEL, inlined, count=1))
    return Sources(
        subject=stand_ins.back(html.unescape(title.group(1))) if title else "",
        html=body,
        text=_LINE_OF_TAGS.sub(r"\1", stand_ins.back(_as_text(inlined))),
    )


_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)


class _StandIns:
    """Every tag but those of inheritance becomes a private-use character with a number, and back."""

    def __init__(self, lexer: Environment) -> None:
        self._lexer = lexer
        self._tags: list[str] = []

    def put(self, source: str) -> str:
        parts: list[str] = []
        tag = ""
        for _, kind, value in self._lexer.lex(source):
            if kind == "data" and not tag:
                parts.append(value)
                continue
            tag += value
            if kind in ("block_end", "variable_end", "raw_end"):
                parts.append(self._stand_in(tag))
                tag = ""
            elif kind == "comment_end":
                tag = ""
        return "".join(parts)

    def back(self, text: str) -> str:
        bare = _HELD_BY_COMMENT.sub(r"\1", text)
        return _STAND_IN.sub(lambda number: self._tags[int(number.group(1))], bare)

    def _stand_in(self, tag: str) -> str:
        if _STRUCTURAL.match(tag):
            return tag
        self._tags.append(tag)
        return f"\ue000{len(self._tags) - 1}\ue001"


def _as_comment(match: re.Match[str]) -> str:
    """Comments may stand anywhere, also between table rows; in attributes and titles they would be text."""
    stand_in = match.group(2)
    return f"<!--{stand_in}-->" if stand_in else match.group()


def _as_text(page: str) -> str:
    """Plain text, tables read row by row, each link followed by its address."""
    bare = _HELD_BY_COMMENT.sub(r"\1", page)
    linked = ANCHOR.sub(_with_address, bare)
    flat = _TABLE_TAG.sub(lambda tag: f"<{tag[1]}div>" if tag[2] else f"<{tag[1]}span> ", linked)
    lines = (line.strip() for line in inscriptis.get_text(flat).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _with_address(anchor: re.Match[str]) -> str:
    address, label = anchor.group(2), anchor.group(4)
    return label if address.startswith("mailto:") else f"{label} &lt;\ue002{address}\ue003&gt;"
