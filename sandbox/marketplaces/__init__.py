"""Stand-ins of the marketplaces' message interfaces on loopback: their requests, answers, limits and faults."""
