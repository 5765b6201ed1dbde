"""Model names such as `openai:gpt-4o`, and the models they stand for.

An agent resolves its `model=` here, when it is made.
"""

from __future__ import annotations

from difflib import get_close_matches

from agentkit.errors import UnknownModel
from agentkit.models.base import Model
from agentkit.models.chat.model import ChatModel
from agentkit.models.profiles import PROFILES


def resolve_model(spec: str | Model) -> Model:
    """Return the model that a string names.

    Args:
        spec: `provider:model` such as `openai:gpt-4o`, `local` for the embedded
            model, or a model, which is returned unchanged.

    Raises:
        UnknownModel: The string does not name a known provider and a model.
    """
    if not isinstance(spec, str):
        return spec
    if spec == "local":
        # Here: the embedded model needs an extra, and most programs never use it.
        from agentkit.models.local.model import LocalModel

        return LocalModel()
    provider, colon, model = spec.partition(":")
    if provider in PROFILES and model:
        return ChatModel(model, profile=provider)
    known = [*get_close_matches(provider, [*PROFILES, "local"], n=3, cutoff=0.5)]
    known += [name for name in (*PROFILES, "local") if name not in known]
    hint = "" if colon else f" Write it as provider:model, for example 'openai:{spec}'."
    raise UnknownModel(
        f"Unknown model {spec!r}.{hint} Known providers: {', '.join(known)}. For any other "
        "server, use ChatModel(model, base_url=…).",
        model=spec,
    )
