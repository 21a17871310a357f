"""What every mail must have and must not have, checked on a rendered sample."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lifecycle.messages.anchors import find_links
from lifecycle.messages.records import Rendered
from lifecycle.settings.models import Shop

MAX_HTML_BYTES = 90_000
"""Gmail cuts a mail at about 102 KB and with it the unsubscribe link (deliverability notes, 3 and 5)."""

_IMAGE = re.compile(r"<img\b[^>]*>")
_ALT = re.compile(r'\balt="[^"]*"')
_SOURCE = re.compile(r'\bsrc="([^"]*)"')


def broken_rules(mail: Rendered, shop: Shop, *, unsubscribe_url: str) -> Iterator[str]:
    """One sentence per broken rule, without the file's name."""
    if not mail.subject:
        yield "the subject is empty; fill the block subject"
    if "\n" in mail.subject or "\r" in mail.subject:
        yield "the subject has a line break; write it on one line"
    if (size := len(mail.html.encode())) > MAX_HTML_BYTES:
        yield f"the HTML has {size:,} bytes, more than {MAX_HTML_BYTES:,}; Gmail would cut it"
    if f'href="{unsubscribe_url}"' not in mail.html:
        yield "there is no unsubscribe link; link to {{ unsubscribe_url }}"
    if not mail.text.strip():
        yield "the text part is empty; fill the block body"
    elif shop.sender.postal_address not in mail.text:
        yield "the postal address is missing; write {{ sender.postal_address }}"
    site = shop.site or "it has none: set site in config/shops.yaml"
    for link in find_links(mail.html, unsubscribe_url):
        if not _is_allowed(link.url, shop.site):
            yield f'the link "{link.url}" is neither https nor on the site of shop {shop.name} ({site})'
    for image in _IMAGE.findall(mail.html):
        if not _ALT.search(image):
            source = _SOURCE.search(image)
            yield f'the image "{source.group(1) if source else "?"}" has no alt text; write alt="" if it adorns'


def _is_allowed(url: str, site: str) -> bool:
    return url.startswith("https://") or (bool(site) and url.startswith(site))
