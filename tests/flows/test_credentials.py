"""Passwords come from the environment, else from a Prefect Secret block of the same name."""

from __future__ import annotations

import os
import subprocess
import sys

from lifecycle.settings import ROOT

PROGRAM = """
from prefect.blocks.system import Secret
from tasks.credentials import SecretEnvironment
Secret(value="from the block").save("tern-smtp-password", overwrite=True)
env = SecretEnvironment()
print(env.get("TERN_SMTP_PASSWORD"), "|", env.get("TERN_SET"), "|", env.get("TERN_NOWHERE"))
"""


def test_environment_first_then_block_then_nothing(prefect_env: dict[str, str]) -> None:
    env = {**os.environ, **prefect_env, "TERN_SET": "from the environment"}
    env.pop("TERN_SMTP_PASSWORD", None)
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "from the block | from the environment | None", done.stderr[-2000:]
