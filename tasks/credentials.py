"""Passwords and keys: from the environment, else from a Prefect Secret block of the same name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from prefect.blocks.system import Secret


class SecretEnvironment(Mapping[str, str]):
    """The environment; a variable that is not set is looked for once as a Secret block: TERN_SMTP_PASSWORD as
    `tern-smtp-password`."""

    def __init__(self) -> None:
        self._found: dict[str, str | None] = {}

    def __getitem__(self, name: str) -> str:
        value = os.environ.get(name) or self._block(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)

    def _block(self, name: str) -> str | None:
        if name not in self._found:
            try:
                block = Secret.load(name.lower().replace("_", "-"), _sync=True)  # type: ignore[call-arg]
                self._found[name] = str(block.get())  # type: ignore[union-attr]
            except ValueError:  # there is no such block
                self._found[name] = None
        return self._found[name]
