"""Links in a page and in the text made from it: found, named, and turned into tracked ones."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lifecycle.errors import ContentError

ANCHOR = re.compile(r'(<a\b[^>]*?\bhref=")([^"]*)("[^>]*>)(.*?)(</a>)', re.DOTALL)
"""A link as css-inline writes it: attributes in double quotes. Groups 2 and 4: address, escaped, and label."""

URL_IN_TEXT = re.compile("\ue002(.*?)\ue003")
"""Where the text part has the address of a link."""

_NOT_TRACKED = ("mailto:", "tel:", "#")


@dataclass(frozen=True)
class Link:
    url: str
    label: str


def find_links(page: str, unsubscribe_url: str) -> list[Link]:
    """Every link that is to be tracked, in order, each address once."""
    found: dict[str, Link] = {}
    for anchor in ANCHOR.finditer(page):
        url = html.unescape(anchor.group(2))
        if _is_tracked(url, unsubscribe_url):
            label = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", anchor.group(4))).split())
            found.setdefault(url, Link(url, label[:80]))
    return list(found.values())


def track(
    page: str, text: str, unsubscribe_url: str, links: Mapping[str, int], address: Callable[[int], str]
) -> tuple[str, str]:
    """Page and text with tracked links. `links`: number by address; `address`: what to write for a number.

    Raises ContentError for a link that has no number.
    """

    def tracked(url: str) -> str:
        if not _is_tracked(url, unsubscribe_url):
            return url
        if url not in links:
            raise ContentError("a link in the mail is not known to its plan; the template has changed since")
        return address(links[url])

    def in_page(anchor: re.Match[str]) -> str:
        start, url, end, label, closing = anchor.groups()
        return f"{start}{html.escape(tracked(html.unescape(url)))}{end}{label}{closing}"

    return ANCHOR.sub(in_page, page), URL_IN_TEXT.sub(lambda marked: tracked(marked.group(1)), text)


def _is_tracked(url: str, unsubscribe_url: str) -> bool:
    return url != unsubscribe_url and not url.startswith(_NOT_TRACKED)
