"""Stand-ins of the e-mail services: their HTTP interfaces, with limits and faults, keeping what they took."""
