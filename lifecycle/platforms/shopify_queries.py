"""What is asked of Shopify. Only fields that 2026-10 does not deprecate; a test checks that on its schema."""

from __future__ import annotations

_MONEY = "{ shopMoney { amount currencyCode } }"

_ORDER = f"""
  id name processedAt updatedAt cancelledAt displayFinancialStatus email phone customerLocale
  customer {{ id }}
  shippingAddress {{ name countryCodeV2 provinceCode }}
  billingAddress {{ name countryCodeV2 provinceCode }}
  totalPriceSet {_MONEY}
  totalRefundedSet {_MONEY}
  totalDiscountsSet {_MONEY}
  totalTaxSet {_MONEY}
  totalShippingPriceSet {_MONEY}
  refunds {{ id processedAt totalRefundedSet {_MONEY} }}
"""

_LINE = f"id sku title quantity originalUnitPriceSet {_MONEY}"

_CUSTOMER = """
  id createdAt updatedAt firstName lastName locale tags verifiedEmail
  defaultEmailAddress { emailAddress marketingState marketingOptInLevel marketingUpdatedAt }
  defaultPhoneNumber { phoneNumber }
  defaultAddress { countryCodeV2 provinceCode }
"""

PAGE = {
    "orders": f"""
query Orders($first: Int!, $after: String, $query: String!) {{
  orders(first: $first, after: $after, query: $query, sortKey: UPDATED_AT) {{
    nodes {{ {_ORDER}
      lineItems(first: 10) {{ nodes {{ {_LINE} }} pageInfo {{ hasNextPage endCursor }} }}
    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}""",
    "customers": f"""
query Customers($first: Int!, $after: String, $query: String!) {{
  customers(first: $first, after: $after, query: $query, sortKey: UPDATED_AT) {{
    nodes {{ {_CUSTOMER} }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}""",
}

LARGEST_PAGE = {"orders": 20, "customers": 249}
"""By Shopify's published rule an object costs 1 and a connection 2 and what it may hold: 49 points for an order
with ten lines, 4 for a customer. One query may ask for 1,000
(https://shopify.dev/docs/apps/build/apis/graphql-admin/rate-limits)."""

MORE_LINES = f"""
query MoreLines($id: ID!, $after: String) {{
  order(id: $id) {{
    id
    lineItems(first: 250, after: $after) {{ nodes {{ {_LINE} }} pageInfo {{ hasNextPage endCursor }} }}
  }}
}}"""

BULK = {
    "orders": f"""
{{ orders(query: $query) {{ edges {{ node {{ {_ORDER}
      lineItems {{ edges {{ node {{ {_LINE} }} }} }}
}} }} }} }}""",
    "customers": f"{{ customers(query: $query) {{ edges {{ node {{ {_CUSTOMER} }} }} }} }}",
}
"""A bulk export takes no variables: `$query` is replaced by a quoted text."""

RUN_BULK = """
mutation Export($query: String!) {
  bulkOperationRunQuery(query: $query, groupObjects: true) {
    bulkOperation { id status }
    userErrors { field message code }
  }
}"""

BULK_STATUS = """
query ExportStatus($id: ID!) {
  bulkOperation(id: $id) { id status errorCode rootObjectCount url }
}"""
