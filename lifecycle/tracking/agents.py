"""What a User-Agent says about who is asking. Data, not logic: sources and the day they were read stand beside.

A User-Agent alone never proves a person: link scanners send ordinary browsers' ones (`classify` adds timing).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class Verdict(NamedTuple):
    class_: str
    evidence: str


_PATTERNS: tuple[tuple[str, str, str], ...] = (
    # Gmail's own prefetch, 1 to 6 % of its opens (SparkPost/Bird, read 2026-11-22)
    (r"Chrome/42\.0\.2311\.135 Safari/537\.36 Edge/12\.246 Mozilla/5\.0$", "prefetch", "Gmail prefetch"),
    # Loaded when the mail is shown, cached, no address of the reader (scientiamobile, read 2026-11-22)
    (r"GoogleImageProxy", "proxy", "Gmail image proxy"),
    (r"YahooMailProxy", "proxy", "Yahoo image proxy"),  # Litmus, read 2026-11-22
    # Apple Mail Privacy Protection loads every picture, read or not (Klaviyo: "no way to differentiate")
    (r"^Mozilla/5\.0$", "proxy", "bare Mozilla/5.0, as Apple Mail Privacy Protection sends"),
    (r"^\s*$", "scanner", "no User-Agent"),
    (
        r"barracuda|proofpoint|mimecast|messagelabs|symantec|trend ?micro|fireeye|trellix|forcepoint|sophos"
        r"|cloudmark|ironport|zscaler|check ?point|safelinks|urldefense|virustotal|urlscan|phishtank|\bvade\b",
        "scanner",
        "names a mail security product",
    ),
    (
        r"(?<!cu)bot(?![a-z_])|crawler|spider|slurp|bingpreview|facebookexternalhit|skypeuripreview|headless"
        r"|phantomjs|lighthouse|pingdom|uptimerobot",
        "scanner",
        "names a crawler",
    ),
    (
        r"^(curl|wget|python|go-http-client|java|okhttp|apache-httpclient|libwww-perl|node|axios|ruby|php|perl"
        r"|dart|guzzlehttp|winhttp|powershell)\b|python-requests|python-httpx|aiohttp|scrapy|powershell",
        "scanner",
        "names a program library",
    ),
)
_KNOWN = tuple((re.compile(pattern, re.IGNORECASE), Verdict(*rest)) for pattern, *rest in _PATTERNS)
_READER = re.compile(r"^Mozilla/\d\.\d \(|^Opera/|Outlook|Thunderbird|Lotus-Notes|AppleMail|^Mail/", re.IGNORECASE)


@lru_cache(maxsize=100_000)
def judge_agent(user_agent: str | None) -> Verdict | None:
    """The class that the User-Agent alone decides, or None where it could be a person's program."""
    text = user_agent or ""
    for pattern, verdict in _KNOWN:
        if pattern.search(text):
            return verdict
    return None if _READER.search(text) else Verdict("unknown", "User-Agent of no known program")
