"""GraphQL as far as the stand-in shop needs it: read, validate, price, and project stored objects onto a query."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import graphql
from graphql import ArgumentNode, FieldNode, GraphQLSchema, OperationDefinitionNode, SelectionSetNode

from sandbox.storeroom import Kind, Span

LARGEST_PAGE = 250

_TERM = re.compile(r"updated_at:(>=|<)'([^']+)'")


class QueryError(Exception):
    """An entry for the answer's `errors`; `code` goes into its extensions."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Field:
    key: str
    """Under which the answer holds it: the alias, or the name."""
    name: str
    arguments: tuple[ArgumentNode, ...]
    fields: tuple[Field, ...] | None
    """None for scalars and enums."""

    def argument(self, name: str, variables: Mapping[str, Any]) -> Any:
        for node in self.arguments:
            if node.name.value == name:
                return graphql.value_from_ast_untyped(node.value, dict(variables))
        return None

    @cached_property
    def node(self) -> Field | None:
        """What a connection holds; None for a field that is no connection."""
        for field in self.fields or ():
            if field.name == "nodes":
                return field
            if field.name == "edges":
                return next((inner for inner in field.fields or () if inner.name == "node"), None)
        return None


@dataclass(frozen=True)
class Operation:
    is_mutation: bool
    fields: tuple[Field, ...]


@lru_cache(maxsize=2)
def load_schema(introspection: Path) -> GraphQLSchema:
    """From Shopify's published introspection. Some of its deprecations break the letter of the GraphQL
    specification, so the schema itself is taken as it is."""
    with gzip.open(introspection) as file:
        return graphql.build_client_schema(json.load(file)["data"], assume_valid=True)


def read_operation(text: str, schema: GraphQLSchema | None) -> Operation:
    """Raises QueryError for what does not parse, or is not valid where there is a schema."""
    try:
        document = graphql.parse(text)
    except graphql.GraphQLSyntaxError as error:
        raise QueryError(error.message) from None
    if schema is not None and (problems := graphql.validate(schema, document)):
        raise QueryError(problems[0].message, "undefinedField")
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if len(operations) != 1 or len(document.definitions) != 1:
        raise QueryError("this stand-in takes one operation and no fragments")
    operation = operations[0]
    is_mutation = operation.operation == graphql.OperationType.MUTATION
    return Operation(is_mutation, tuple(_fields(operation.selection_set)))


def _fields(selections: SelectionSetNode) -> Iterator[Field]:
    for node in selections.selections:
        if not isinstance(node, FieldNode):
            raise QueryError("this stand-in takes no fragments")
        inner = tuple(_fields(node.selection_set)) if node.selection_set else None
        key = node.alias.value if node.alias else node.name.value
        yield Field(key, node.name.value, tuple(node.arguments or ()), inner)


def requested_cost(operation: Operation, variables: Mapping[str, Any]) -> int:
    """The most that the operation can cost, by the rule in sandbox/shopify.py."""
    fixed = 10 if operation.is_mutation else 0
    return fixed + sum(_most(field, variables) for field in operation.fields)


def _most(field: Field, variables: Mapping[str, Any]) -> int:
    if field.fields is None:
        return 0
    node = field.node
    if node is None:
        return 1 + sum(_most(inner, variables) for inner in field.fields)
    return 2 + page_size(field, variables) * _most(node, variables)


def page_size(field: Field, variables: Mapping[str, Any]) -> int:
    first = field.argument("first", variables)
    if not isinstance(first, int):
        raise QueryError(f"you must provide one of first or last for {field.name}", "BAD_REQUEST")
    if not 0 < first <= LARGEST_PAGE:
        raise QueryError(f"first must be between 1 and {LARGEST_PAGE} for {field.name}", "BAD_REQUEST")
    return first


def read_filter(text: str) -> Span:
    """`updated_at:>='…' AND updated_at:<'…'`; Shopify ignores terms that it does not know, this shop does not."""
    bounds: dict[str, int] = {}
    for term in filter(None, text.split(" AND ")):
        found = _TERM.fullmatch(term.strip())
        if found is None:
            raise QueryError(f"the stand-in shop knows no filter {term}", "BAD_REQUEST")
        bounds[found[1]] = int(datetime.fromisoformat(found[2]).timestamp())
    return Span(bounds.get(">="), bounds.get("<"))


def kind_of(name: str) -> Kind:
    """The shelf behind a root field."""
    return "orders" if name in ("orders", "order") else "customers"


class Projection:
    """Picks what a query asks for out of stored objects, and adds up what that costs."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self._variables = variables
        self.cost = 0

    def of(self, field: Field, stored: Any) -> Any:
        """`stored`: an object, a list of objects (a connection's too), or a scalar."""
        if field.fields is None or stored is None:
            return stored
        if field.node is not None:
            return self._nested(field, stored)
        if isinstance(stored, list):
            return [self.fields(field.fields, item) for item in stored]
        return self.fields(field.fields, stored)

    def fields(self, fields: Sequence[Field], stored: Mapping[str, Any]) -> dict[str, Any]:
        self.cost += 1
        try:
            return {field.key: self.of(field, stored[field.name]) for field in fields}
        except KeyError as missing:
            raise QueryError(f"the stand-in shop knows no field {missing}", "undefinedField") from None

    def connection(
        self, field: Field, items: Sequence[Mapping[str, Any]], cursors: Sequence[str], *, more: bool
    ) -> dict[str, Any]:
        self.cost += 2
        node = field.node
        assert node is not None and field.fields is not None
        nodes = [self.of(node, item) for item in items]
        answer: dict[str, Any] = {}
        for part in field.fields:
            if part.name == "nodes":
                answer[part.key] = nodes
            elif part.name == "edges":
                answer[part.key] = [
                    {inner.key: one if inner.name == "node" else cursor for inner in part.fields or ()}
                    for one, cursor in zip(nodes, cursors, strict=True)
                ]
            elif part.name == "pageInfo":
                answer[part.key] = _page_info(part, cursors, more)
        return answer

    def _nested(self, field: Field, stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        size, after = page_size(field, self._variables), field.argument("after", self._variables)
        start = int(unpack(after)[0]) if after else 0
        items = stored[start : start + size]
        cursors = [pack(start + number) for number in range(1, len(items) + 1)]
        return self.connection(field, items, cursors, more=start + size < len(stored))


def _page_info(field: Field, cursors: Sequence[str], more: bool) -> dict[str, Any]:
    known = {
        "hasNextPage": more,
        "endCursor": cursors[-1] if cursors else None,
        "startCursor": cursors[0] if cursors else None,
    }
    return {part.key: known.get(part.name) for part in field.fields or ()}


def pack(*values: int) -> str:
    """A cursor: opaque to whoever gets it."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def unpack(cursor: str) -> list[int]:
    try:
        return list(json.loads(base64.urlsafe_b64decode(cursor)))
    except ValueError:
        raise QueryError("after is no cursor of this shop", "BAD_REQUEST") from None
