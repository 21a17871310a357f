"""What would have been sent on every day of a past range, under the rules as they are or under others.

Each day at 09:00 in the campaigns' time zone the campaigns of that date are judged by the definitions of a plan,
and their messages count as sent at that instant. Nothing is sent and no stored table is written.

What a simulation is not:

- Nobody reacts to simulated mail: orders, consents and suppressions are those of the past, whatever is simulated.
  So are segments, also where they depend on messages.
- Quiet hours are left out: who would have been held until the morning got the message on the same day.
- What a message is worth is estimated once, as of the first day, and stays.
- From the first day on only simulated messages count for caps and quotas; the ledger's own count before it.
- Channels to fall back to are left out: nobody knows whom a simulated message would not have reached. Templates
  count as approved, and caps by address look at e-mail addresses only.
- Addresses, countries and whether somebody is there at all are those of today.
"""
