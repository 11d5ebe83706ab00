"""Users of the gateway: they ask over HTTP, know what would have been right, and vote honestly.

They never stop asking while the loop runs, so an answer that fails at any moment of it is seen.
"""

import asyncio
import threading
import time
from dataclasses import dataclass

import aiohttp

from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.synthetic import Mix
from mlops_assets.metrics import is_exact
from mlops_assets_tests.loop.tickets import BEFORE, Ticket, write_ticket
from mlops_assets_tests.serving_client import PATIENCE, Answer, ask

AT_ONCE = 6
"""Users who wait for an answer at the same time."""
USERS = 240
IDLE_S = 3.0
"""Between two questions of one of those who ask at all times."""


@dataclass
class Habits:
    """How users behave now; whoever tells the story changes it."""

    mix: Mix = BEFORE
    votes: float = 0.3
    """Share of the answers that are voted on."""
    corrections: float = 0.2
    """Share of the answers that are voted down for which users say what would have been right."""
    echoes: float = 0.1
    """Share of the others that they send back word for word as the right answer."""


@dataclass
class Heard:
    """What users got, since somebody last began to count."""

    answered: int = 0
    right: int = 0
    """As the world knows; users cannot tell which release answered."""

    @property
    def share(self) -> str:
        """Right answers, for people."""
        return f"{self.right / self.answered:.0%}" if self.answered else "none"


class Users:
    """A crowd in a thread of its own, until the block ends."""

    def __init__(self, url: str, key: str, seed: int) -> None:
        self.habits, self.heard = Habits(), Heard()
        self.answered = self.voted = 0
        self.corrected: set[str] = set()
        """Requests whose answer somebody corrected."""
        self.echoed: set[str] = set()
        """Requests whose wrong answer somebody sent back as the right one."""
        self.failed: list[str] = []
        """What users got that was no answer, and votes that were not taken."""
        self.known: dict[str, str] = {}
        """The right answer to each text: what people who label can tell."""
        self._url, self._key, self._dice = url, key, Dice(seed)
        self._wanted = 0
        self._busy = self._ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))

    def __enter__(self) -> "Users":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()

    def send(self, count: int, seconds: float = 300.0) -> None:
        """Have so many more questions answered. Raises TimeoutError."""
        goal, end = self.answered + count, time.monotonic() + seconds
        self.hurry(True)
        while self.answered < goal:
            if time.monotonic() > end:
                raise TimeoutError(f"{count} questions were not answered within {seconds:.0f} s")
            time.sleep(0.02)
        self.hurry(False)

    def hurry(self, busy: bool) -> None:
        """Ask without pause, or now and then."""
        self._busy = busy

    async def _live(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(headers=headers, timeout=PATIENCE) as session:
            await asyncio.gather(*(self._user(session, place) for place in range(AT_ONCE)))

    async def _user(self, session: aiohttp.ClientSession, place: int) -> None:
        await asyncio.sleep(IDLE_S * place / AT_ONCE)
        while not self._ended:
            await self._turn(session)
            waited = 0.0
            while not self._busy and not self._ended and waited < IDLE_S * AT_ONCE:
                await asyncio.sleep(0.05)
                waited += 0.05

    async def _turn(self, session: aiohttp.ClientSession) -> None:
        """One question, and perhaps a vote."""
        ticket = write_ticket(self._dice, self.habits.mix)
        user = f"user-{self._dice.number(1, USERS)}"
        self.known[ticket.text] = ticket.right
        try:
            got = await ask(session, self._url, ticket.text, user=user, metadata=ticket.slices)
        except aiohttp.ClientError as error:
            self.failed.append(f"no answer: {type(error).__name__} {error}")
            return
        if not got.acknowledged:
            self.failed.append(f"{got.status}: {got.raw[:200]}")
            return
        right = is_exact(ticket.right, got.text)
        self.answered += 1
        self.heard.answered += 1
        self.heard.right += right
        if self._dice.chance(self.habits.votes):
            await self._vote(session, got, ticket, user, right=right)

    async def _vote(
        self, session: aiohttp.ClientSession, got: Answer, ticket: Ticket, user: str, *, right: bool
    ) -> None:
        vote = {"request_id": got.id, "user": user, "rating": "up" if right else "down"}
        if not right and self._dice.chance(self.habits.corrections):
            vote["correction"] = ticket.right
            self.corrected.add(got.id)
        elif not right and self._dice.chance(self.habits.echoes):
            vote["correction"] = got.text
            self.echoed.add(got.id)
        async with session.post(f"{self._url}/feedback", json=vote) as response:
            if response.status >= 300:
                self.failed.append(f"vote {response.status}: {await response.text()}")
        self.voted += 1
