"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lifecycle.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes the place of `path` when the block ends, and is gone when it fails.

    Raises UsageError where the folder does not exist or cannot be written to.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = draft.open("wb")
    except FileNotFoundError:
        raise UsageError(f"{path}: the folder does not exist; create it first") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
