"""The few pages that people see, from `templates/pages/<locale>/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from lifecycle.errors import ConfigError

NOT_FOUND, UNSUBSCRIBE, UNSUBSCRIBED, TRY_AGAIN = "not_found", "unsubscribe", "unsubscribed", "try_again"
_NAMES = (NOT_FOUND, UNSUBSCRIBE, UNSUBSCRIBED, TRY_AGAIN)
_DEFAULT = "en"
_HEADERS = {
    "Cache-Control": "no-store, private",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address of the page is the right to unsubscribe
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


class Pages:
    """Every folder of `folder` that is named like a locale is a language. Raises ConfigError without English."""

    def __init__(self, folder: Path) -> None:
        environment = Environment(
            loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self.locales = tuple(sorted(path.name for path in folder.glob("*") if path.is_dir()))
        if _DEFAULT not in self.locales:
            raise ConfigError(f"{folder}: the pages in English are missing; copy them from the repository")
        self._templates = {
            (locale, name): environment.get_template(f"{locale}/{name}.html")
            for locale in self.locales
            for name in _NAMES
        }

    def respond(self, name: str, locale: str, *, status: int = 200, **words: Any) -> HTMLResponse:
        locale = self.closest([locale])
        html = self._templates[locale, name].render(locale=locale, **words)
        return HTMLResponse(html, status_code=status, headers={**_HEADERS, "Content-Language": locale})

    def asked_for(self, accept_language: str) -> str:
        """The locale for a stranger, from the browser's Accept-Language header (weights decide the order)."""
        ranges = []
        for position, part in enumerate(accept_language.split(",")[:20]):
            tag, _, weight = part.strip().partition(";q=")
            ranges.append((-_number(weight), position, tag))
        return self.closest([tag for _, _, tag in sorted(ranges)])

    def closest(self, wanted: list[str]) -> str:
        for tag in wanted:
            if tag in self.locales:
                return tag
            try:
                language = Locale.parse(tag, sep="-").language
            except (ValueError, UnknownLocaleError):
                continue
            if language in self.locales:
                return language
        return _DEFAULT


def _number(weight: str) -> float:
    try:
        return float(weight or 1)
    except ValueError:
        return 0.0
