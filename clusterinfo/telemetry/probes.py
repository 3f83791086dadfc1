"""Asks the ends, from time to time, whether they answer: readiness knows of an outage before the next batch meets it.

A collector rests for minutes between two runs of lists, a consumer until something comes. Knows nothing of what the
ends are: each is a question, asked beside the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from clusterinfo.errors import ClusterinfoError
from clusterinfo.observations import Observe, Recovered, Retrying

Question = Callable[[], Awaitable[object]]
"""Returns if the end answers, raises ClusterinfoError if it does not."""

ASK_S = 15.0
"""From one answer to the next question; Kubernetes asks for readiness every 10 s."""
ANSWER_WITHIN_S = 10.0
STEP = "answer"


@asynccontextmanager
async def watched(observe: Observe, **questions: Question) -> AsyncIterator[None]:
    """Ask every one of `questions` (by the end's name) every 15 s while the block runs; tell who does not answer."""
    asking = [asyncio.create_task(_ask_on(name, question, observe)) for name, question in questions.items()]
    try:
        yield
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


async def _ask_on(name: str, question: Question, observe: Observe) -> NoReturn:
    failures = 0
    while True:
        await asyncio.sleep(ASK_S)
        error = await _unanswered(question)
        if error:
            failures += 1
            observe(Retrying(lane=name, step=STEP, error=error, wait_s=ASK_S))
        elif failures:
            observe(Recovered(lane=name, step=STEP, attempts=failures + 1))
            failures = 0


async def _unanswered(question: Question) -> str:
    """Why the end does not answer; "" if it does."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await question()
    except TimeoutError:
        return f"no answer within {ANSWER_WITHIN_S:g} s"
    except ClusterinfoError as error:
        return str(error)
    return ""
