"""A chat in the terminal. Ctrl-C stops the answer, Ctrl-D ends the program.

pip install "agentkit-replay[local]"
python examples/chat.py                               (or --model openai:gpt-4o-mini)
"""

import argparse

import anyio

from agentkit import Agent, AgentKitError, Session


async def answer(session: Session, prompt: str) -> None:
    """Print an answer as it arrives. The session keeps the history, however the run ends."""
    async with session.stream(prompt) as run:
        async for piece in run.text():
            print(piece, end="", flush=True)
    print(flush=True)
    _ = run.result  # raises if the run failed


def chat(session: Session) -> None:
    """Read prompts and answer them until the input ends."""
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not prompt.strip():
            continue
        try:
            anyio.run(answer, session, prompt)
        except KeyboardInterrupt:
            print("\n(stopped)", flush=True)
        except AgentKitError as error:
            print(f"\n({type(error).__name__}: {error.message})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    agent = Agent(
        parser.parse_args().model,
        instructions="You are a friendly companion. Answer in a few sentences.",
    )
    chat(Session(agent))
