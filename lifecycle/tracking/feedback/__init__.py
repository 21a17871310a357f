"""What comes back: bounces, complaints, unsubscribes by mail, and what services and messengers report.

Mails (`mails`) and webhooks (`services`, `whatsapp`) become records (`records`), which `intake` writes down in one
transaction. They arrive by `lmtp`, `imap` or `webhooks`; what came is answered for only after the commit.
"""
