"""One transaction for many requests: nobody pays for another's fault, nothing queued is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from lifecycle import tokens
from lifecycle.db.engine import open_engine, writing
from lifecycle.settings import Config, Environment
from lifecycle.tokens import Purpose, Token
from lifecycle.tracking.app import create_app
from lifecycle.tracking.group_commit import GroupCommit


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_engine(f"sqlite:///{tmp_path}/notes.db")
    with writing(engine) as connection:
        connection.execute(text("create table notes (note integer not null check (note <> 13))"))
    return engine


def note(connection: Connection, entries: Sequence[int]) -> list[int]:
    connection.execute(text("insert into notes values (:note)"), [{"note": entry} for entry in entries])
    return [entry * 2 for entry in entries]


def kept(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("select note from notes order by note")).scalars())


def test_a_bad_entry_fails_alone(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> list[int | BaseException]:
        writer = GroupCommit(engine, note)
        writer.start()
        answers = await asyncio.gather(*(writer.write(n) for n in range(30)), return_exceptions=True)
        await writer.stop()
        return answers

    caplog.set_level(logging.CRITICAL)
    answers = asyncio.run(run())
    assert [n for n, answer in enumerate(answers) if isinstance(answer, Exception)] == [13]
    assert [answer for answer in answers if isinstance(answer, int)] == [2 * n for n in range(30) if n != 13]
    assert kept(engine) == [n for n in range(30) if n != 13]


def test_stopping_writes_what_is_queued(engine: Engine) -> None:
    async def run() -> None:
        writer = GroupCommit(engine, note, most=3)
        writer.start()
        waiting = [asyncio.create_task(writer.write(n)) for n in range(10)]
        await asyncio.sleep(0)
        await writer.stop()
        assert await asyncio.gather(*waiting) == [2 * n for n in range(10)]

    asyncio.run(run())
    assert kept(engine) == list(range(10))


def test_a_request_that_is_gone_does_not_disturb_the_others(engine: Engine) -> None:
    async def run() -> int:
        writer = GroupCommit(engine, note)
        writer.start()
        gone, other = asyncio.create_task(writer.write(1)), asyncio.create_task(writer.write(2))
        await asyncio.sleep(0)
        gone.cancel()
        answer = await other
        await writer.stop()
        return answer

    assert asyncio.run(run()) == 4


def test_without_a_database_a_picture_is_still_a_picture_and_a_link_asks_to_try_again(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = Environment(
        Path(), Path(__file__).parents[2] / "templates", tmp_path, "", b"a secret for tests, 32 characters"
    )
    app = create_app(open_engine(f"sqlite:///{tmp_path}/empty.db"), environment, config)
    caplog.set_level(logging.CRITICAL + 1)

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            paths = [
                f"/{purpose.value}/{tokens.sign(Token(purpose, 1, 1), environment.secret)}{suffix}"
                for purpose, suffix in ((Purpose.OPEN, ".gif"), (Purpose.CLICK, ""), (Purpose.UNSUBSCRIBE, ""))
            ]
            answers = [await client.get(path) for path in paths]
            answers.append(await client.post(paths[2], data={"List-Unsubscribe": "One-Click"}))
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200, 503, 503, 503]
