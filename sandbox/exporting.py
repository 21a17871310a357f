"""Shopify's bulk exports: a query runs by itself and leaves a file of JSON lines."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.querying import Field, Operation, Projection, QueryError, kind_of, read_filter
from sandbox.storeroom import Storeroom

AT_ONCE = 5
"""Bulk queries per app and shop since 2026-01."""


@dataclass
class _Export:
    number: int
    query: str
    signature: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    completed_at: datetime | None = None
    status: str = "CREATED"
    error_code: str | None = None
    roots: int = 0
    objects: int = 0

    @property
    def gid(self) -> str:
        return f"gid://shopify/BulkOperation/{self.number}"

    @property
    def name(self) -> str:
        return f"{self.number}.jsonl"


class Exports:
    def __init__(self, storeroom: Storeroom, folder: Path, read: Callable[[str], Operation]) -> None:
        self._storeroom = storeroom
        self._folder = folder
        self._read = read
        self._exports: dict[str, _Export] = {}
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier server, whose addresses nobody knows

    def start(self, query: str, grouped: bool, base_url: str) -> dict[str, Any]:
        """The payload of bulkOperationRunQuery."""
        if sum(export.status in ("CREATED", "RUNNING") for export in self._exports.values()) >= AT_ONCE:
            return _refused("LIMIT_REACHED", f"{AT_ONCE} bulk queries are running for this app and shop")
        try:
            root = _root(self._read(query))
        except QueryError as error:
            return _refused("INVALID", str(error))
        if not grouped:
            return _refused("INVALID", "the stand-in shop groups objects under their parents only")
        export = _Export(len(self._exports) + 1, query)
        self._exports[export.gid] = export
        answer: dict[str, Any] = {"bulkOperation": self.status(export.gid, base_url), "userErrors": []}
        threading.Thread(target=self._run, args=(export, root), daemon=True).start()
        return answer

    def status(self, gid: str, base_url: str) -> dict[str, Any] | None:
        """A BulkOperation; None for an id that nobody was given."""
        export = self._exports.get(gid)
        if export is None:
            return None
        done = export.status == "COMPLETED" and export.roots > 0
        return {
            "id": export.gid,
            "status": export.status,
            "errorCode": export.error_code,
            "type": "QUERY",
            "query": export.query,
            "createdAt": f"{export.created_at:%Y-%m-%dT%H:%M:%SZ}",
            "completedAt": f"{export.completed_at:%Y-%m-%dT%H:%M:%SZ}" if export.completed_at else None,
            "objectCount": str(export.objects),
            "rootObjectCount": str(export.roots),
            "fileSize": str((self._folder / export.name).stat().st_size) if done else None,
            "url": f"{base_url}exports/{export.name}?signature={export.signature}" if done else None,
            "partialDataUrl": None,
        }

    def file(self, name: str, signature: str) -> Path | None:
        for export in self._exports.values():
            if export.name == name and secrets.compare_digest(export.signature, signature):
                return self._folder / name
        return None

    def _run(self, export: _Export, root: Field) -> None:
        export.status = "RUNNING"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / export.name).open("w", encoding="utf-8") as file:
                for is_root, line in self._lines(root):
                    file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
                    export.objects += 1
                    export.roots += is_root
        except QueryError:
            export.status, export.error_code = "FAILED", "INTERNAL_SERVER_ERROR"
        else:
            export.completed_at, export.status = datetime.now(UTC), "COMPLETED"

    def _lines(self, root: Field) -> Iterator[tuple[bool, Mapping[str, Any]]]:
        """Each object on a line of its own, those of a nested connection below their parent and with its id."""
        own, nested = _parts(root)
        projection = Projection({})
        span = read_filter(str(root.argument("query", {}) or ""))
        for item in self._storeroom.every(kind_of(root.name), span):
            stored = json.loads(item.json)
            yield True, projection.fields(own, stored)
            for connection in nested:
                fields, _ = _parts(connection)
                for child in stored[connection.name]:
                    yield False, {**projection.fields(fields, child), "__parentId": stored["id"]}


def _root(operation: Operation) -> Field:
    """The one connection of a query that may be exported. Raises QueryError."""
    if operation.is_mutation or len(operation.fields) != 1 or operation.fields[0].node is None:
        raise QueryError("a bulk query must have one connection at its root")
    root = operation.fields[0]
    _, nested = _parts(root)
    if len(nested) > 4 or any(_parts(inner)[1] for inner in nested):
        raise QueryError("a bulk query has at most five connections on two levels")
    return root


def _parts(connection: Field) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    """A connection's own fields and the connections inside it."""
    fields = connection.node.fields if connection.node else None
    own = tuple(inner for inner in fields or () if inner.node is None)
    return own, tuple(inner for inner in fields or () if inner.node is not None)


def _refused(code: str, message: str) -> dict[str, Any]:
    return {"bulkOperation": None, "userErrors": [{"field": ["query"], "message": message, "code": code}]}
