"""A chat in the terminal. Ctrl-C stops the answer, not the program; Ctrl-D ends it.

pip install "agentkit-replay[local]"
python examples/chat.py                               (or --model openai:gpt-4o-mini)
"""

import argparse

import anyio

from agentkit import Agent, AgentKitError, Session


async def answer(session: Session[str], prompt: str) -> None:
    """Print the answer as it comes. The session keeps what was said, however this ends."""
    async with session.stream(prompt) as run:
        async for piece in run.text():
            print(piece, end="", flush=True)
    print(flush=True)
    _ = run.result  # raises what the run failed with


def chat(session: Session[str]) -> None:
    """Ask for prompts and answer them, until there are no more."""
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
