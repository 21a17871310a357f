"""Stand-ins that speak the real protocols: shops, a mailbox, shoppers. The product never imports them."""
