"""What mail servers and mailboxes send back, as bytes: the shapes of Postfix, Exchange, Gmail, Exim and qmail, of
feedback loops, and of people who are away.

`to`: the bounce address that it comes to. `returned`: the mail that it is about.
"""

from __future__ import annotations

import base64
import textwrap
from email.header import Header

HEADERS = "From: {sender}\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: Sun, 22 Nov 2026 09:00:00 +0000\r\n"


def head_of(mail: bytes) -> bytes:
    return mail.replace(b"\r\n", b"\n").partition(b"\n\n")[0].replace(b"\n", b"\r\n") + b"\r\n"


def postfix(
    to: str,
    recipient: str,
    returned: bytes,
    *,
    status: str = "5.1.1",
    words: str = "550 5.1.1 <{recipient}>: Recipient address rejected: User unknown in virtual mailbox table",
    action: str = "failed",
    original: str = "",
    headers_only: bool = False,
    encoded: bool = False,
) -> bytes:
    """original: Original-Recipient, as after a forwarding. encoded: the status in base64, as it should not be."""
    said = words.format(recipient=recipient)
    fields = _wrapped(
        f"""\
        Reporting-MTA: dns; mail.brand.example
        X-Postfix-Queue-ID: 4XyZ1a2b3c
        X-Postfix-Sender: rfc822; {to}
        Arrival-Date: Sun, 22 Nov 2026 09:00:00 +0000 (UTC)

        Final-Recipient: rfc822; {recipient}
        {f"Original-Recipient: rfc822;{original}" if original else "X-Unused: yes"}
        Action: {action}
        Status: {status}
        Remote-MTA: dns; mx.example.com
        Diagnostic-Code: smtp; {said}
        """
    )
    notice = _wrapped(
        f"""\
        This is the mail system at host mail.brand.example.

        I'm sorry to have to inform you that your message could not
        be delivered to one or more recipients. It's attached below.

        <{recipient}>: host mx.example.com[192.0.2.7] said: {said} (in reply to RCPT TO command)
        """
    )
    if encoded:
        status_part = _part(
            "message/delivery-status", base64.encodebytes(fields), "Content-Transfer-Encoding: base64"
        )
    else:
        status_part = _part("message/delivery-status", fields)
    content = head_of(returned) if headers_only else returned
    return _report(
        HEADERS.format(
            sender="MAILER-DAEMON@mail.brand.example (Mail Delivery System)",
            to=to,
            subject="Undelivered Mail Returned to Sender",
        )
        + "Auto-Submitted: auto-replied\r\n",
        "delivery-status",
        [
            _part("text/plain; charset=us-ascii", notice, "Content-Description: Notification"),
            status_part,
            _part("text/rfc822-headers" if headers_only else "message/rfc822", content),
        ],
    )


def exchange(to: str, recipient: str, returned: bytes) -> bytes:
    """Exchange Online for a mailbox that does not exist."""
    subject = Header("Unzustellbar: Wir vermissen Sie", "utf-8", header_name="Subject").encode()
    fields = _wrapped(
        f"""\
        Reporting-MTA: dns;AS8PR04MB7654.eurprd04.prod.outlook.com
        Received-From-MTA: dns;mail.brand.example
        Arrival-Date: Sun, 22 Nov 2026 09:00:01 +0000

        Final-Recipient: rfc822;{recipient}
        Action: failed
        Status: 5.1.10
        Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {recipient} not found by
         SMTP address lookup
        X-Display-Name: {recipient}
        """
    )
    words = f"<html><body><p>Ihre Nachricht an <b>{recipient}</b> wurde nicht zugestellt.</p></body></html>"
    page = base64.encodebytes(words.encode())
    return _report(
        HEADERS.format(sender='"Microsoft Outlook" <postmaster@outlook.com>', to=to, subject=subject)
        + "X-MS-Exchange-Message-Is-Ndr:\r\nAuto-Submitted: auto-replied\r\n",
        "delivery-status",
        [
            _part('text/html; charset="utf-8"', page, "Content-Transfer-Encoding: base64"),
            _part("message/delivery-status", fields),
            _part("message/rfc822", returned),
        ],
    )


def gmail(to: str, recipient: str, returned: bytes) -> bytes:
    """Google for an account that does not exist: parts in parts, folded words."""
    fields = _wrapped(
        f"""\
        Reporting-MTA: dns; googlemail.com
        Arrival-Date: Sun, 22 Nov 2026 01:00:02 -0800 (PST)
        X-Original-Message-ID: <unused@mail.brand.example>

        Final-Recipient: rfc822; {recipient}
        Action: failed
        Status: 5.1.1
        Remote-MTA: dns; gmail-smtp-in.l.google.com. (142.250.27.26, the server for the domain gmail.com.)
        Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try
         550-5.1.1 double-checking the recipient's email address for typos or
         550-5.1.1 unnecessary spaces. For more information, go to
         550 5.1.1  https://support.google.com/mail/?p=NoSuchUser ffacd0b85a97d-1 - gsmtp
        Last-Attempt-Date: Sun, 22 Nov 2026 01:00:03 -0800 (PST)
        """
    )
    words = "\r\n** Address not found **\r\n\r\nYour message wasn't delivered: the address couldn't be found.\r\n"
    related = (
        b'Content-Type: multipart/related; boundary="inner"\r\n\r\n--inner\r\n'
        + _part('text/plain; charset="UTF-8"', words.encode())
        + b"\r\n--inner--\r\n"
    )
    return _report(
        HEADERS.format(
            sender="Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
            to=to,
            subject="Delivery Status Notification (Failure)",
        )
        + f"Auto-Submitted: auto-replied\r\nX-Failed-Recipients: {recipient}\r\n",
        "delivery-status",
        [related, _part("message/delivery-status", fields), _part("message/rfc822", returned)],
    )


def qmail(to: str, recipient: str, returned: bytes, *, words: str = "") -> bytes:
    """qmail follows no standard: one text with the returned mail at its end."""
    said = (
        words or "192.0.2.8 does not like recipient.\nRemote host said: 550 sorry, no mailbox here by that name."
    )
    text = _wrapped(
        f"""\
        Hi. This is the qmail-send program at mx.example.com.
        I'm afraid I wasn't able to deliver your message to the following addresses.
        This is a permanent error; I've given up. Sorry it didn't work out.

        <{recipient}>:
        {{said}}
        Giving up on 192.0.2.8.

        --- Below this line is a copy of the message.

        """
    ).replace(b"{said}", said.replace("\n", "\r\n").encode())
    head = HEADERS.format(sender="MAILER-DAEMON@mx.example.com", to=to, subject="failure notice")
    return head.encode() + b"\r\n" + text + returned


def exim(to: str, recipient: str, returned: bytes) -> bytes:
    """Exim before 4.90: X-Failed-Recipients and a text."""
    text = _wrapped(
        f"""\
        This message was created automatically by mail delivery software.

        A message that you sent could not be delivered to one or more of its
        recipients. This is a permanent error. The following address(es) failed:

          {recipient}
            host mx.example.com [192.0.2.9]
            SMTP error from remote mail server after RCPT TO:<{recipient}>:
            550 5.1.1 User unknown

        ------ This is a copy of the message, including all the headers. ------

        """
    )
    head = HEADERS.format(
        sender="Mail Delivery System <Mailer-Daemon@mx.example.com>",
        to=to,
        subject="Mail delivery failed: returning message to sender",
    )
    extra = f"X-Failed-Recipients: {recipient}\r\nAuto-Submitted: auto-replied\r\n"
    return (head + extra).encode() + b"\r\n" + text + returned


def feedback_loop(
    to: str, returned: bytes, *, kind: str = "abuse", mail_from: str = "", headers_only: bool = False
) -> bytes:
    """A complaint as Yahoo's loop sends it; the person's address is taken out."""
    fields = _wrapped(
        f"""\
        Feedback-Type: {kind}
        User-Agent: Yahoo!-Mail-Feedback/2.0
        Version: 1
        Original-Mail-From: <{mail_from or to}>
        Original-Rcpt-To: redacted@yahoo.com
        Received-Date: Sun, 22 Nov 2026 09:30:00 UTC
        Reported-Domain: brand.example
        """
    )
    returned_as = "text/rfc822-headers" if headers_only else "message/rfc822"
    return _report(
        HEADERS.format(sender="feedback@arf.mail.yahoo.com", to=to, subject="FW: We miss you"),
        "feedback-report",
        [
            _part("text/plain", b"This is an email abuse report for an email message from brand.example.\r\n"),
            _part("message/feedback-report", fields),
            _part(returned_as, head_of(returned) if headers_only else returned),
        ],
    )


def away(to: str, sender: str, subject: str, text: str, *headers: str) -> bytes:
    """What people's mailboxes answer by themselves. headers: `Name: value`."""
    head = HEADERS.format(sender=sender, to=to, subject=Header(subject, "utf-8", header_name="Subject").encode())
    further = "".join(f"{each}\r\n" for each in headers)
    body = base64.encodebytes(text.encode()).replace(b"\n", b"\r\n")
    mime = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
    return (head + further + mime + "\r\n").encode() + body


def _report(head: str, kind: str, parts: list[bytes]) -> bytes:
    outer = (
        f'MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type={kind};\r\n boundary="outer=_1"\r\n\r\n'
    )
    content = b"".join(b"--outer=_1\r\n" + part + b"\r\n" for part in parts)
    return (head + outer).encode() + content + b"--outer=_1--\r\n"


def _part(content_type: str, content: bytes, *headers: str) -> bytes:
    head = "".join(f"{each}\r\n" for each in (f"Content-Type: {content_type}", *headers))
    return head.encode() + b"\r\n" + content


def _wrapped(text: str) -> bytes:
    return textwrap.dedent(text).replace("\n", "\r\n").encode()
