"""What a sending process has begun and heard, on its own disk, for whoever cleans up after it.

Messages are marked `sending` by the hundred, because a commit costs more than a mail. This file tells which of a
hundred had begun to leave when the process was killed, and which answers it had already heard. What is written
survives the process, but not a power cut: after a restart of the machine a missing line proves nothing, and every
message of the hundred that has no answer is unknown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.ledger.claims import same_boot


@dataclass
class WireRecord:
    """`begun`: messages whose bytes began to leave. `answers`: by message. `whole`: what is not here did not
    happen."""

    claim: str
    whole: bool = True
    begun: set[int] = field(default_factory=set)
    answers: dict[int, Outcome] = field(default_factory=dict)


class WireLog:
    """One file for a claim, made with the first line and taken away once all of it stands in the ledger."""

    def __init__(self, folder: Path, claim: str) -> None:
        self._path = _path(folder, claim)
        self._claim = claim
        self._file: int | None = None

    def begun(self, message_id: int) -> None:
        self._write([message_id])

    def answered(self, message_id: int, outcome: Outcome) -> None:
        self._write([message_id, _KIND[type(outcome)], vars(outcome)])

    def close(self, *, settled: bool) -> None:
        """`settled`: the ledger has everything, so the file goes."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if settled:
            self._path.unlink(missing_ok=True)

    def _write(self, line: list[Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(self._file, json.dumps([self._claim]).encode() + b"\n")
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_log(folder: Path, claim: str) -> WireRecord | None:
    """What is known here of a claim; None: nothing, because it was held elsewhere or sent nothing."""
    path = _path(folder, claim)
    return _read(path) if path.is_file() else None


def all_logs(folder: Path) -> Iterator[WireRecord]:
    """Of every claim that has left a file here."""
    for path in sorted(folder.glob("*.wire")):
        if (found := _read(path)) is not None:
            yield found


def forget(folder: Path, claim: str) -> None:
    _path(folder, claim).unlink(missing_ok=True)


def _path(folder: Path, claim: str) -> Path:
    return folder / f"{sha256(claim.encode()).hexdigest()[:32]}.wire"


def _read(path: Path) -> WireRecord | None:
    try:
        lines = path.read_bytes().split(b"\n")
        record = WireRecord(json.loads(lines[0])[0])
    except (FileNotFoundError, ValueError, IndexError):  # settled meanwhile, or cut off in its first line
        return None
    record.whole = same_boot(record.claim) and lines[-1] == b""
    for line in lines[1:-1]:
        try:
            message_id, *answer = json.loads(line)
        except ValueError:
            record.whole = False
            continue
        record.begun.add(message_id)
        if answer:
            record.answers[message_id] = _outcome(*answer)
    return record


_KIND = {Accepted: "accepted", Refused: "refused", Unknown: "unknown"}
_TYPE: Mapping[str, type[Accepted] | type[Refused] | type[Unknown]] = {name: kind for kind, name in _KIND.items()}


def _outcome(kind: str, values: dict[str, Any]) -> Outcome:
    return _TYPE[kind](**values)
