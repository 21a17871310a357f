"""People and what they bought: one person over all shops, their orders, consents and suppressions."""
