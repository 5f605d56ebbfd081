"""A server for the service's event loop: jobs with a deadline, in a few threads, over reused sessions.

Rules:
* At most `SESSIONS` jobs at once for each connection, each in a thread of its own; a server that hangs holds
  up its own jobs only, and each of them until its deadline.
* A session is reused for `MAX_AGE` seconds. One that was idle for `FRESH` seconds is asked whether it is
  still there, and replaced when it is not (the server was restarted).
* After a failure to connect everybody is refused for `PAUSE` seconds: a dead server costs one wait, not one
  for each request, and no intent is written for what cannot be made.
* The password is asked for when the first session is made, and kept, as libpq keeps it in each session, until
  the server refuses it or the cluster is sealed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from services.lease.postgres import dsn
from services.lease.postgres.answer_deadline import deadline
from services.lease.postgres.errors import Full, Lost, PostgresFailure, Unreachable
from services.lease.postgres.session import Session, connect

T = TypeVar("T")
SESSIONS = 8
MAX_AGE = 60.0  # seconds
PAUSE = 1.0  # seconds
FRESH = 0.5  # seconds after its use for which a session is not checked
GRACE = 0.25  # seconds: the thread's own deadline comes first
RESERVE = 0.5  # seconds that a job needs at least
WAITING = 0.1  # seconds from one look for a session to the next, where the server has none free
Passwords = Callable[[], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Login:
    """A server, its user, and what TLS trusts (PEM; empty: the system's authorities)."""

    server: dsn.Server
    user: str
    ca: str = field(default="", repr=False)


class Desk:
    """What a job has: a session, and the means to enter another database as the same user."""

    def __init__(self, session: Session, login: Login, passwords: list[str]) -> None:
        self.session = session
        self._login, self._passwords = login, passwords

    @property
    def user(self) -> str:
        """The user as which we log in."""
        return self._login.user

    def enter(self, database: str) -> Session:
        """A session in another database of the same server, to be closed. Raises PostgresFailure."""
        return _connect(self._login, self._passwords, database)

    def require_taken(self, password: str) -> None:
        """Try this password. Raises LoginRefused when it is refused, Unreachable when nobody can tell."""
        _connect(self._login, [password], self._login.server.database).close()


Job = Callable[[Desk], T]


class Database:
    """One connection's server. `passwords`: gives those that may be valid, the likeliest first."""

    def __init__(self, login: Login, passwords: Passwords, sessions: int = SESSIONS) -> None:
        self._login, self._passwords, self._max = login, passwords, sessions
        self._threads = ThreadPoolExecutor(sessions, thread_name_prefix="postgres")
        self._room = asyncio.Semaphore(sessions)
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        self._why = ""
        self._closed = False
        self._known: list[str] | None = None

    def require_reachable(self) -> None:
        """Raise `Unreachable` when connecting failed less than `PAUSE` seconds ago."""
        if time.monotonic() - self._failed_at < PAUSE:
            raise Unreachable(self._why)

    async def run(self, job: Job[T], seconds: float) -> T:
        """Do `job` within `seconds`. Raises PostgresFailure; `Lost`: it may have had an effect."""
        at = time.monotonic() + seconds
        self.require_reachable()
        try:
            async with asyncio.timeout(seconds):
                await self._room.acquire()
        except TimeoutError:
            raise Unreachable("PostgreSQL is too busy") from None
        try:
            passwords = await self._likeliest()
        except BaseException:
            self._room.release()
            raise
        doing = asyncio.get_running_loop().run_in_executor(self._threads, self._do, job, passwords, at)
        doing.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(doing), at + GRACE - time.monotonic())
        except TimeoutError:
            raise Lost("PostgreSQL did not answer in time") from None

    async def _likeliest(self) -> list[str]:
        """The passwords to try. Raises Unreachable when this server was closed, perhaps meanwhile."""
        passwords = self._known or await self._passwords()
        if self._closed:
            raise Unreachable("the connection was changed, or the cluster sealed")
        self._known = passwords
        return passwords

    def close(self) -> None:
        """Close the idle sessions; those in use are closed when their job ends."""
        self._closed, self._known = True, None
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
        self._threads.shutdown(wait=False)

    def _done(self, doing: asyncio.Future[T]) -> None:
        self._room.release()
        if not doing.cancelled():
            doing.exception()  # fetched, so that asyncio does not log it if nobody waits

    def _do(self, job: Job[T], passwords: list[str], at: float) -> T:
        with deadline(at):
            session = self._take()
            if session is not None and time.monotonic() - session.used_at > FRESH:
                try:
                    session.ask("SELECT 1")  # still there? Nothing has been changed by it
                except PostgresFailure:
                    session.close()
                    session = None
            session = session or self._enter(passwords, at)
            try:
                return job(Desk(session, self._login, passwords))
            finally:
                self._give_back(session)

    def _enter(self, passwords: list[str], at: float) -> Session:
        while True:
            try:
                return _connect(self._login, passwords, self._login.server.database)
            except Full:  # the server is well: another job's session may serve this one too
                if at - time.monotonic() < 2 * WAITING + RESERVE:
                    raise
            except PostgresFailure as error:
                self._failed_at, self._why, self._known = time.monotonic(), str(error), None
                raise
            time.sleep(WAITING)
            session = self._take()
            if session is not None:
                return session

    def _take(self) -> Session | None:
        with self._lock:
            while self._idle:
                session = self._idle.pop()
                if session.is_open and time.monotonic() - session.made_at < MAX_AGE:
                    return session
                session.close()
        return None

    def _give_back(self, session: Session) -> None:
        session.used_at = time.monotonic()
        with self._lock:
            if session.is_open and not self._closed and len(self._idle) < self._max:
                self._idle.append(session)
                return
        session.close()


def _connect(login: Login, passwords: list[str], database: str) -> Session:
    """A session with the first password that is taken. Raises Unreachable, LoginRefused."""
    parameters = {**login.server.parameters(), "dbname": database}
    for password in passwords[:-1]:
        try:
            return connect(parameters, login.user, password, login.ca)
        except Full:
            raise
        except PostgresFailure:
            continue  # not only LoginRefused: libpq's texts may change
    return connect(parameters, login.user, passwords[-1], login.ca)
