"""A private Postfix (Debian's) on loopback, as the relay between Tern and the world.

It hands mail on to one server, and what comes to the bounce domain to another by LMTP. Nothing is installed and no
Postfix of this machine is touched: configuration, queue and log are in a folder of its own. Wants root, as Postfix
does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lifecycle.processes import free_port

PROGRAM = "/usr/sbin/postfix"
_DAEMONS = "/usr/lib/postfix/sbin"
_PATIENCE_SECONDS = 20

_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""
_SETTINGS = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
myhostname = relay.test
myorigin = relay.test
mydestination =
alias_maps =
alias_database =
local_transport = error:nobody lives here
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
disable_dns_lookups = yes
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts =
relay_domains = {bounce_domain}
relay_recipient_maps =
transport_maps = inline:{{ {bounce_domain}=lmtp:inet:127.0.0.1:{lmtp_port} }}
relayhost = [127.0.0.1]:{world_port}
lmtp_destination_recipient_limit = 1
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
biff = no
"""


@dataclass(frozen=True)
class Postfix:
    port: int
    folder: Path

    def log(self) -> str:
        path = self.folder / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""


def missing() -> str | None:
    """Why there can be no Postfix here, or None."""
    if not Path(PROGRAM).exists():
        return "Postfix is not installed; on Debian: apt-get install postfix"
    return None if os.geteuid() == 0 else "Postfix can only be started by root"


@contextmanager
def relay(*, world_port: int, lmtp_port: int, bounce_domain: str = "bounce.test") -> Iterator[Postfix]:
    """While the block runs. Raises RuntimeError, with the end of its log, where it does not start."""
    folder = Path(tempfile.mkdtemp(prefix="tern-postfix-"))
    folder.chmod(0o755)  # its programs run as several users
    port = free_port()
    names = {
        "folder": folder, "daemons": _DAEMONS, "port": port, "world_port": world_port, "lmtp_port": lmtp_port,
        "bounce_domain": bounce_domain,
    }  # fmt: skip
    (folder / "main.cf").write_text(_SETTINGS.format(**names))
    (folder / "master.cf").write_text(_SERVICES.format(**names))
    (folder / "spool").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    with (folder / "output").open("wb") as output:
        child = subprocess.Popen(
            [PROGRAM, "-c", str(folder), "start-fg"], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    found = Postfix(port, folder)
    try:
        _wait(found, child)
        yield found
    finally:
        child.terminate()
        child.wait(_PATIENCE_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(postfix: Postfix, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", postfix.port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    said = (postfix.folder / "output").read_text(errors="replace") + postfix.log()
    raise RuntimeError("Postfix did not start:\n" + "\n".join(said.splitlines()[-10:]))
