"""A chat backend for many users: each has a conversation that survives restarts.

pip install "agentkit-replay[local]" fastapi uvicorn
python examples/sessions.py                           (or --model openai:gpt-4o-mini)

curl -H "x-user: ada" -d '{"text": "I am Ada."}' http://127.0.0.1:8000/messages
curl -H "x-user: ada" http://127.0.0.1:8000/messages
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import anyio
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

from agentkit import Agent, AgentKitError, Limits, Session


class Prompt(BaseModel):
    """What a user says."""

    text: str


def user_name(x_user: Annotated[str, Header()]) -> str:
    """Return who asks. A real application checks a token here."""
    if re.fullmatch(r"[a-z0-9-]{1,40}", x_user) is None:
        raise HTTPException(400, "x-user has to be lower-case letters, digits and hyphens.")
    return x_user


User = Annotated[str, Depends(user_name)]


class Conversations:
    """The sessions of all users: a file each, and a lock, so that prompts come one by one."""

    def __init__(self, agent: Agent[str, str], folder: Path) -> None:
        self.agent = agent
        self.folder = folder
        self.locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    def load(self, user: str) -> Session[str, str]:
        """Return a user's session as it was left."""
        path = self.folder / f"{user}.json"
        stored = path.read_text() if path.exists() else '{"messages": [], "usage": {}}'
        traces = f"{self.folder / 'traces' / user}/"
        return Session[str, str].from_json(self.agent, json.loads(stored), deps=user, trace=traces)

    def save(self, user: str, session: Session[str, str]) -> None:
        """Keep a session. A crash leaves the old file or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{user}.new"
        new.write_text(json.dumps(session.to_json()))
        new.replace(self.folder / f"{user}.json")


def make_app(agent: Agent[str, str], folder: Path) -> FastAPI:
    """Make the application. The agents' blocking parts are few: files of some kilobytes."""
    app = FastAPI(title="agentkit")
    conversations = Conversations(agent, folder)

    @app.post("/messages")
    async def say(prompt: Prompt, user: User) -> dict[str, str]:
        async with conversations.locks[user]:
            session = conversations.load(user)
            try:
                result = await session.run(prompt.text, limits=Limits(steps=10, seconds=60))
            except AgentKitError as error:
                raise HTTPException(502, f"{type(error).__name__}: {error.message}") from error
            finally:
                conversations.save(user, session)  # also what a failed run has reached
        return {"text": result.output, "run": result.run}

    @app.get("/messages")
    async def history(user: User) -> list[dict[str, str]]:
        messages = [message.to_json() for message in conversations.load(user).messages]
        return [{"role": m["role"], "text": str(m["content"] or "")} for m in messages]

    @app.delete("/messages", status_code=204)
    async def forget(user: User) -> None:
        async with conversations.locks[user]:
            conversations.save(user, Session(conversations.agent))

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    parser.add_argument("--folder", type=Path, default=Path("conversations"))
    given = parser.parse_args()
    friend = Agent(given.model, deps_type=str, instructions="You are a friendly companion.")
    uvicorn.run(make_app(friend, given.folder))
