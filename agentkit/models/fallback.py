"""`FallbackModel`: the next model answers when one fails.

It stands between a run and several models, above the retries of each.
"""

from __future__ import annotations

from dataclasses import replace

from agentkit.core.effects import Address
from agentkit.errors import (
    ConfigurationError,
    InvalidResponse,
    ModelError,
    ModelHTTPError,
    ModelUnreachable,
)
from agentkit.events import (
    Emit,
    Event,
    HttpFinished,
    HttpStarted,
    ReasoningDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
    Warned,
    ignore,
)
from agentkit.messages import ModelRequest, ModelResponse
from agentkit.models.base import DIRECT, Model, hash_of, identity_of
from agentkit.models.names import resolve_model
from agentkit.models.prices import usage_with_cost
from agentkit.models.profiles import Profile


class FallbackModel:
    """Tries models in order until one answers.

        model = FallbackModel("openai:gpt-4o", "groq:llama-3.3-70b-versatile", "local")

    Each model makes its own retries first. A refusal is an answer: the next model is
    not tried. Every change of model is a warning in the result and the trace, and
    `ModelResponse.extra["answered_by"]` names the model that answered.

    Args:
        models: At least one, best first: model strings, or models.
        on: The errors after which the next model is tried.

    Raises:
        ConfigurationError: There is no model, or a string does not name one.
    """

    def __init__(
        self,
        *models: str | Model,
        on: tuple[type[ModelError], ...] = (ModelUnreachable, InvalidResponse, ModelHTTPError),
    ) -> None:
        if not models:
            raise ConfigurationError("FallbackModel needs at least one model.")
        self._models = tuple(resolve_model(model) for model in models)
        self._on = on

    @property
    def name(self) -> str:
        """The names of all models, in order."""
        return "fallback(" + ", ".join(model.name for model in self._models) + ")"

    @property
    def wrapped(self) -> tuple[Model, ...]:
        """The models."""
        return self._models

    @property
    def profile(self) -> Profile:
        """The first model's profile, with only the output modes that all of them support."""
        first, *others = (model.profile for model in self._models)
        shared = tuple(
            mode
            for mode in first.output_modes
            if all(mode in profile.output_modes for profile in others)
        )
        return replace(
            first,
            output_modes=shared or ("prompt",),
            native_with_tools=all(one.native_with_tools for one in (first, *others)),
            repeats=min(one.repeats for one in (first, *others)),
        )

    def identity(self) -> str:
        """Return a hash of the identities of all models."""
        return hash_of(*map(identity_of, self._models))

    def check(self) -> None:
        """Check every model, so that a broken fallback is found before it is needed.

        Raises:
            AgentKitError: With what one of them lacks.
        """
        for model in self._models:
            model.check()

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request with the first model that can; see `Model`.

        Raises:
            ModelError: The last model's error; those of the others are in its notes.
        """
        relay = _Relay(at, emit)
        failures: list[str] = []
        for model, following in zip(self._models, (*self._models[1:], None), strict=True):
            try:
                response = await model.request(request, at=at, emit=relay, stream=stream)
                return _answered_by(model.name, response)
            except self._on as error:
                if following is None:
                    for failure in failures:
                        error.add_note(f"Before that: {failure}")
                    raise
                failures.append(f"{type(error).__name__}: {error}")
                relay.switch(model.name, following.name, failures[-1])
        raise AssertionError("the loop returns or raises")

    async def aclose(self) -> None:
        """Close every model."""
        for model in self._models:
            await model.aclose()


def _answered_by(name: str, response: ModelResponse) -> ModelResponse:
    """Return a response with the name of its model, and its cost by the price of that model."""
    return replace(
        response,
        model=response.model or name,
        usage=usage_with_cost(name, response),
        extra={"answered_by": name, **response.extra},  # The innermost of several.
    )


class _Relay:
    """Forwards events, and numbers the HTTP attempts of all models in one sequence.

    The models count from 0 each, but an address must not occur twice in a trace.
    """

    def __init__(self, at: Address, emit: Emit) -> None:
        self._at = at
        self._emit = emit
        self._attempt = -1
        self._shown = False

    def __call__(self, event: Event) -> None:
        match event:
            case HttpStarted():
                self._attempt += 1
                at = self._at.attempt(self._attempt)
                event = replace(event, at=at, attempt=self._attempt)
            case HttpFinished():
                event = replace(event, at=self._at.attempt(self._attempt))
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._shown = True
            case Restarted():
                self._shown = False
            case _:
                pass
        self._emit(event)

    def switch(self, model: str, following: str, failure: str) -> None:
        """Report that the next model is tried."""
        text = f"{model} failed ({failure}); trying {following}."
        data = {"model": model, "next": following, "error": failure}
        self(Warned(at=self._at, code="fallback", text=text, data=data))
        if self._shown:
            self(Restarted(at=self._at, reason=failure))
