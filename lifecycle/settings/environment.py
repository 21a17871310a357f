"""What the environment decides: folders, the database, the signing key. Secrets come from nowhere else."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lifecycle.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """Folders are absolute. `secret` signs links and keys address hashes; losing it breaks every sent link."""

    config_dir: Path
    templates_dir: Path
    data_dir: Path
    database_url: str
    secret: bytes

    @property
    def reports_dir(self) -> Path:
        return self.data_dir / "reports"


def load_environment(env: Mapping[str, str] = os.environ) -> Environment:
    """Read TERN_CONFIG, TERN_TEMPLATES, TERN_DATA, TERN_DATABASE_URL and TERN_SECRET.

    Without TERN_SECRET a key is made once and kept in `<data>/secret.key`, readable by its owner only: right
    for one machine; several hosts must share one TERN_SECRET.
    """
    data_dir = _folder(env, "TERN_DATA", "data")
    data_dir.mkdir(parents=True, exist_ok=True)
    return Environment(
        config_dir=_folder(env, "TERN_CONFIG", "config"),
        templates_dir=_folder(env, "TERN_TEMPLATES", "templates"),
        data_dir=data_dir,
        database_url=_database_url(env.get("TERN_DATABASE_URL") or f"sqlite:///{data_dir / 'tern.db'}"),
        secret=_secret(env.get("TERN_SECRET"), data_dir / "secret.key"),
    )


def _folder(env: Mapping[str, str], name: str, default: str) -> Path:
    return (ROOT / env.get(name, default)).resolve()


def _database_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme in ("sqlite", "postgresql+psycopg"):
        return url
    raise ConfigError(
        f'TERN_DATABASE_URL: "{scheme}" databases are not supported; '
        "use sqlite:///path/to/tern.db or postgresql://user@host/name"
    )


def _secret(given: str | None, key_file: Path) -> bytes:
    if given is not None:
        if len(given) < 32:
            raise ConfigError("TERN_SECRET is too short to sign with; give it at least 32 characters")
        return given.encode()
    if not key_file.exists():
        _write_once(key_file, secrets.token_hex(32))
    return key_file.read_text().strip().encode()


def _write_once(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    with contextlib.suppress(FileExistsError):  # another process was first: its key counts
        path.hardlink_to(draft)
    draft.unlink()
