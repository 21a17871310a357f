"""What customers will probably do next: are they still there, how often will they order, for how much.

Two models of the literature, fitted to a shop's own orders: BG/NBD for the days on which customers order,
gamma-gamma for what they spend on such a day. How good they are is measured on a period kept from the fit.
"""
