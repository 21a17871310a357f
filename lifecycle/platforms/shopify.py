"""Shopify Admin GraphQL 2026-10: https://shopify.dev/docs/api/admin-graphql/2026-10

Increments are read page by page, the first pull is a bulk export. A kept page is a sequence of JSON documents:
answers of the API (a page, then what did not fit into it), or lines of the export.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import IO, Any

import httpx

from lifecycle.errors import PlatformBusy, PlatformRejected
from lifecycle.platforms import shopify_queries as queries
from lifecycle.platforms.base import Page, Window
from lifecycle.platforms.calling import Caller
from lifecycle.platforms.reading import amount, dig, instant, next_second, objects, text, whole
from lifecycle.platforms.records import ConsentFact, CustomerRow, LineRow, OrderRow, RefundRow, Row

VERSION = "2026-10"

STATUSES = {  # https://shopify.dev/docs/api/admin-graphql/2026-10/enums/OrderDisplayFinancialStatus
    "PENDING": "open",
    "AUTHORIZED": "open",
    "PARTIALLY_PAID": "open",
    "EXPIRED": "open",
    "PAID": "paid",
    "PARTIALLY_REFUNDED": "paid",
    "REFUNDED": "refunded",
    "VOIDED": "cancelled",
}

CONSENTS = {  # https://shopify.dev/docs/api/admin-graphql/2026-10/enums/CustomerEmailAddressMarketingState
    "SUBSCRIBED": "granted",
    "UNSUBSCRIBED": "withdrawn",
    # NOT_SUBSCRIBED, PENDING, INVALID and REDACTED say nothing that a person has said.
}

OPT_IN_BASIS = {  # https://shopify.dev/docs/api/admin-graphql/2026-10/enums/CustomerMarketingOptInLevel
    "CONFIRMED_OPT_IN": "double_opt_in",
    "SINGLE_OPT_IN": "express",
    "UNKNOWN": "express",
}

DEEPEST_PAGE = 25_000
"""Paging a result set ends after so many objects (https://shopify.dev/docs/api/usage/limits)."""

_BULK_ROWS_PER_PAGE = 1_000
_LONGEST_POLL_SECONDS = 10.0
_LONGEST_EXPORT_SECONDS = 6 * 3600


class _Refused(PlatformRejected):
    """An error in the body of an answer; `code` is Shopify's."""

    def __init__(self, message: str, code: str | None) -> None:
        super().__init__(message)
        self.code = code


class Shopify:
    name = "shopify"
    entities: Sequence[str] = ("customers", "orders")

    def __init__(self, caller: Caller, url: str, token: str) -> None:
        self._caller = caller
        self._endpoint = f"{url}/admin/api/{VERSION}/graphql.json"
        self._token = token

    def pages(self, entity: str, window: Window) -> Iterator[Page]:
        if window.since is None and self._caller.shop.bulk_first_pull:
            return self._exported(entity, window)
        return self._paged(entity, window)

    def parse(self, entity: str, body: bytes) -> list[Row]:
        build = _order if entity == "orders" else _customer
        return [build(node) for node in _assemble(entity, body)]

    def _paged(self, entity: str, window: Window) -> Iterator[Page]:
        since, after, seen = window.since, None, 0
        size = min(self._caller.pulling.page_size, queries.LARGEST_PAGE[entity])
        with self._caller.client() as client:
            while True:
                variables = {"first": size, "after": after, "query": _changed(since, window.until)}
                try:
                    body, data = self._ask(client, queries.PAGE[entity], variables)
                except _Refused as refused:
                    if refused.code != "MAX_COST_EXCEEDED" or size == 1:
                        raise
                    size //= 2  # what a query costs is Shopify's secret; a smaller one is always possible
                    continue
                nodes = objects(dig(data, entity, "nodes"))
                rest = [more for node in nodes for more in self._more_lines(client, node)]
                yield Page(b"\n".join([body, *rest]), len(nodes))
                position = dig(data, entity, "pageInfo") or {}
                if not position.get("hasNextPage"):
                    return
                after, seen = position.get("endCursor"), seen + len(nodes)
                last = instant(nodes[-1].get("updatedAt")) if nodes else None
                if seen + size > DEEPEST_PAGE and last not in (None, since):
                    # Go on in a new result set. Rows of the very second in which the old one ended come twice.
                    since, after, seen = last, None, 0

    def _more_lines(self, client: httpx.Client, order: Mapping[str, Any]) -> Iterator[bytes]:
        """Answers with the lines of an order that its page had no room for."""
        position = dig(order, "lineItems", "pageInfo") or {}
        while position.get("hasNextPage"):
            variables = {"id": order["id"], "after": position["endCursor"]}
            body, data = self._ask(client, queries.MORE_LINES, variables)
            yield body
            position = dig(data, "order", "lineItems", "pageInfo") or {}

    def _ask(self, client: httpx.Client, query: str, variables: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """The answer as it came, and its data. Raises PlatformBusy after the last attempt, PlatformRejected."""
        return self._caller.attempt(lambda: self._post(client, query, variables))

    def _post(
        self, client: httpx.Client, query: str, variables: Mapping[str, Any]
    ) -> tuple[bytes, dict[str, Any]]:
        response = self._caller.send(
            client,
            "POST",
            self._endpoint,
            json={"query": query, "variables": variables},
            headers={"X-Shopify-Access-Token": self._token},
        )
        answer = self._caller.decode(response)
        # 200 with `errors` in the body is a failure: https://shopify.dev/docs/api/admin-graphql#status_and_error_codes
        if dig(answer, "errors"):
            raise self._error(answer)
        data = dig(answer, "data")
        if not isinstance(data, dict):
            raise self._caller.cut()
        return response.content, data

    def _error(self, answer: Mapping[str, Any]) -> PlatformBusy | PlatformRejected:
        errors = objects(answer["errors"]) or [{"message": str(answer["errors"])}]
        code, message = dig(errors[0], "extensions", "code"), str(errors[0].get("message", ""))[:200]
        if code == "THROTTLED":
            return PlatformBusy(
                self._caller.sentence("Shopify's cost limit is used up; try again later"), _throttled_for(answer)
            )
        if code in ("INTERNAL_SERVER_ERROR", "TIMEOUT"):
            return PlatformBusy(self._caller.sentence(f"Shopify failed ({code}); try again later"))
        if code == "ACCESS_DENIED":
            return _Refused(self._caller.refused_scope("ACCESS_DENIED"), code)
        return _Refused(self._caller.sentence(f"Shopify did not take the query: {message}"), code)

    def _exported(self, entity: str, window: Window) -> Iterator[Page]:
        with self._caller.client() as client, tempfile.TemporaryFile() as file:
            operation = self._wait(client, self._start(client, entity, window))
            url, rows = operation.get("url"), whole(operation.get("rootObjectCount"))
            if url is None:  # nothing matched
                return
            self._caller.attempt(lambda: self._download(client, str(url), file, rows))
            file.seek(0)
            yield from _split(file)

    def _start(self, client: httpx.Client, entity: str, window: Window) -> str:
        query = queries.BULK[entity].replace("$query", json.dumps(_changed(None, window.until)))

        def start() -> str:
            _body, data = self._post(client, queries.RUN_BULK, {"query": query})
            for error in objects(dig(data, "bulkOperationRunQuery", "userErrors")):
                if error.get("code") in ("OPERATION_IN_PROGRESS", "LIMIT_REACHED"):
                    raise PlatformBusy(
                        self._caller.sentence("Shopify runs other bulk exports for this app; try again later"), 60
                    )
                said = str(error.get("message"))[:200]
                raise PlatformRejected(self._caller.sentence(f"Shopify did not start the export: {said}"))
            return str(dig(data, "bulkOperationRunQuery", "bulkOperation", "id"))

        return self._caller.attempt(start)

    def _wait(self, client: httpx.Client, operation_id: str) -> dict[str, Any]:
        """The finished operation. Polls after 0.25 seconds, then ever less often, at last every 10."""
        pause, waited = 0.25, 0.0
        while waited < _LONGEST_EXPORT_SECONDS:
            _body, data = self._ask(client, queries.BULK_STATUS, {"id": operation_id})
            operation = data.get("bulkOperation") or {}
            status, code = operation.get("status"), operation.get("errorCode")
            if status == "COMPLETED":
                return dict(operation)
            if code == "ACCESS_DENIED":
                raise PlatformRejected(self._caller.refused_scope(code))
            if status not in ("CREATED", "RUNNING"):
                raise PlatformBusy(
                    self._caller.sentence(f"Shopify's export ended as {status} ({code}); try again later")
                )
            self._caller.sleep(pause)
            waited, pause = waited + pause, min(pause * 1.5, _LONGEST_POLL_SECONDS)
        raise PlatformBusy(self._caller.sentence("Shopify's export takes longer than 6 hours; try again later"))

    def _download(self, client: httpx.Client, url: str, file: IO[bytes], rows: int | None) -> None:
        """Stream the export into `file`, from its start. The storage host gets no token: its url is signed."""
        file.seek(0)
        file.truncate()
        with self._caller.transport_errors(), client.stream("GET", url) as response:
            self._caller.judge(response)
            for chunk in response.iter_bytes(1 << 20):
                file.write(chunk)
        if not _is_complete(file, rows):
            raise self._caller.cut()


def _changed(since: datetime | None, until: datetime) -> str:
    """https://shopify.dev/docs/api/usage/search-syntax; updated_at counts whole seconds."""
    before = f"updated_at:<'{next_second(until):%Y-%m-%dT%H:%M:%SZ}'"
    return before if since is None else f"updated_at:>='{next_second(since):%Y-%m-%dT%H:%M:%SZ}' AND {before}"


def _throttled_for(answer: Mapping[str, Any]) -> float | None:
    """Seconds until the bucket holds what the query costs."""
    cost = dig(answer, "extensions", "cost")
    requested, status = amount(dig(cost, "requestedQueryCost")), dig(cost, "throttleStatus")
    available, rate = amount(dig(status, "currentlyAvailable")), amount(dig(status, "restoreRate"))
    if requested is None or available is None or not rate:
        return None
    return float(max(requested - available, Decimal(0)) / rate)


def _is_complete(file: IO[bytes], rows: int | None) -> bool:
    """Are all `rows` there, and does the last line end where it should?"""
    file.seek(0)
    found, line = 0, b""
    for line in file:
        found += _is_row(line)
    try:
        json.loads(line)
    except ValueError:
        return False
    return found == rows


def _is_row(line: bytes) -> bool:
    """False for a child of the row before it. Inside a text the quotes would be escaped."""
    return b'"__parentId":' not in line


def _split(file: IO[bytes]) -> Iterator[Page]:
    """Pages of about 1,000 rows; children follow their parent because the export was asked to group them."""
    lines: list[bytes] = []
    rows = 0
    for line in file:
        if _is_row(line):
            if rows == _BULK_ROWS_PER_PAGE:
                yield Page(b"".join(lines), rows)
                lines, rows = [], 0
            rows += 1
        lines.append(line)
    if rows:
        yield Page(b"".join(lines), rows)


def _assemble(entity: str, body: bytes) -> list[dict[str, Any]]:
    """The rows of a kept page, each with all of its lines under lineItems.nodes."""
    found: dict[str, dict[str, Any]] = {}
    for document in _documents(body.decode()):
        if parent := document.pop("__parentId", None):
            _add_lines(found, parent, [document])
        elif "data" not in document:
            found[str(document.get("id"))] = document
        elif more := dig(document, "data", "order"):
            _add_lines(found, more.get("id"), objects(dig(more, "lineItems", "nodes")))
        else:
            found |= {str(node.get("id")): node for node in objects(dig(document, "data", entity, "nodes"))}
    return list(found.values())


def _documents(body: str) -> Iterator[dict[str, Any]]:
    decoder, position = json.JSONDecoder(), 0
    while position < len(body):
        document, position = decoder.raw_decode(body, position)
        yield document
        while position < len(body) and body[position].isspace():
            position += 1


def _add_lines(found: Mapping[str, dict[str, Any]], order_id: Any, lines: list[dict[str, Any]]) -> None:
    order = found.get(str(order_id))
    if order is not None:
        order.setdefault("lineItems", {"nodes": []})["nodes"].extend(lines)


def _order(node: dict[str, Any]) -> OrderRow:
    total = amount(dig(node, "totalPriceSet", "shopMoney", "amount"))
    ship_to, bill_to = node.get("shippingAddress"), node.get("billingAddress")
    goes_to = ship_to if text(dig(ship_to, "countryCodeV2")) else bill_to
    updated_at = instant(node.get("updatedAt"))
    return OrderRow(
        order_id=_number(node.get("id")),
        customer_id=_number(dig(node, "customer", "id")),
        ordered_at=instant(node.get("processedAt")),
        updated_at=updated_at,
        status=_status(node, total),
        currency=text(dig(node, "totalPriceSet", "shopMoney", "currencyCode")),
        total=total,
        refunded=_money(node, "totalRefundedSet"),
        discount=_money(node, "totalDiscountsSet"),
        tax=_money(node, "totalTaxSet"),
        shipping=_money(node, "totalShippingPriceSet"),
        email=text(node.get("email")),
        phone=text(node.get("phone")),
        name=text(dig(ship_to, "name")) or text(dig(bill_to, "name")),
        country=text(dig(goes_to, "countryCodeV2")),
        region=text(dig(goes_to, "provinceCode")),
        locale=text(node.get("customerLocale")),
        lines=[_line(line) for line in objects(dig(node, "lineItems", "nodes"))],
        refunds=[_refund(refund, updated_at) for refund in objects(node.get("refunds"))],
        attributes={"number": node["name"]} if text(node.get("name")) else {},
        raw=node,
    )


def _status(node: Mapping[str, Any], total: Decimal | None) -> str | None:
    if node.get("cancelledAt"):
        return "cancelled"
    word = text(node.get("displayFinancialStatus"))
    status = STATUSES.get(word, word) if word else None
    return "returned" if status == "paid" and total is not None and total < 0 else status


def _line(node: Mapping[str, Any]) -> LineRow:
    title = text(node.get("title"))
    return LineRow(
        sku=text(node.get("sku")) or title,  # gift cards and hand-written lines have no sku
        title=title,
        quantity=whole(node.get("quantity")),
        unit_price=amount(dig(node, "originalUnitPriceSet", "shopMoney", "amount")),
    )


def _refund(node: Mapping[str, Any], updated_at: datetime | None) -> RefundRow:
    return RefundRow(
        refund_id=_number(node.get("id")) or "?",
        refunded_at=instant(node.get("processedAt")) or updated_at,
        amount=amount(dig(node, "totalRefundedSet", "shopMoney", "amount")),
    )


def _customer(node: dict[str, Any]) -> CustomerRow:
    customer_id, address = _number(node.get("id")), node.get("defaultEmailAddress")
    return CustomerRow(
        customer_id=customer_id,
        email=text(dig(address, "emailAddress")),
        updated_at=instant(node.get("updatedAt")),
        created_at=instant(node.get("createdAt")),
        phone=text(dig(node, "defaultPhoneNumber", "phoneNumber")),
        name=" ".join(filter(None, (text(node.get("firstName")), text(node.get("lastName"))))) or None,
        country=text(dig(node, "defaultAddress", "countryCodeV2")),
        region=text(dig(node, "defaultAddress", "provinceCode")),
        locale=text(node.get("locale")),
        email_verified=node.get("verifiedEmail") is not False,
        tags=[tag for tag in node.get("tags") or [] if isinstance(tag, str)],
        consents=_consents(customer_id, address),
        raw=node,
    )


def _consents(customer_id: str | None, address: Any) -> list[ConsentFact]:
    state, level = dig(address, "marketingState"), dig(address, "marketingOptInLevel")
    status = CONSENTS.get(state) if isinstance(state, str) else None
    if status is None:
        return []
    basis = "request" if status == "withdrawn" else OPT_IN_BASIS.get(str(level), "express")
    return [
        ConsentFact(
            channel="email",
            topic="promotions",
            status=status,
            basis=basis,
            occurred_at=instant(dig(address, "marketingUpdatedAt")),
            source="shopify",
            evidence=f"customer {customer_id}: marketingState {state}, marketingOptInLevel {level}",
            first_hand=level in ("SINGLE_OPT_IN", "CONFIRMED_OPT_IN"),  # UNKNOWN may be imported
        )
    ]


def _money(node: Mapping[str, Any], name: str) -> Decimal:
    return amount(dig(node, name, "shopMoney", "amount")) or Decimal(0)


def _number(gid: Any) -> str | None:
    """`123` from `gid://shopify/Order/123`. Text, because 64 bits do not fit a float."""
    found = text(gid)
    return found.rpartition("/")[2] or None if found else None
