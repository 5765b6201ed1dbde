"""Model names such as `openai:gpt-4o`, and the models they stand for.

An agent resolves its `model=` here, when it is made.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from agentkit.errors import UnknownModel
from agentkit.models.base import Model
from agentkit.models.chat.model import ChatModel
from agentkit.models.profiles import PROFILES

_ALIASES = {
    "gemini": "google google_gla google_genai google_vertex genai vertex vertexai vertex_ai",
    "azure": "azure_openai azure_ai",
    "together": "together_ai togetherai",
    "fireworks": "fireworks_ai",
    "mistral": "mistralai",
    "llamacpp": "llama_cpp",
    "lmstudio": "lm_studio",
    "vllm": "hosted_vllm",
    "ollama": "ollama_chat",
    "openai": "openai_chat openai_responses open_ai",
    "anthropic": "claude",
}
"""What other frameworks call the providers."""
_FAMILIES = (
    ("openai", r"(chat)?gpt(?!-oss)|o[1-9]\b|text-embedding|davinci"),
    ("anthropic", r"claude|opus|sonnet|haiku"),
    ("gemini", r"gemini"),
    ("mistral", r"(open-)?mi[sx]tral|(pix|code|mini|magi|dev)stral"),
    ("deepseek", r"deepseek"),
    ("ollama", r"gpt-oss|llama|qwen|phi|gemma|smollm|granite|olmo"),
)
"""Where models are served whose names begin so."""


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
    provider, _, model = spec.partition(":")
    if provider in PROFILES and model:
        return ChatModel(model, profile=provider)
    known = [*get_close_matches(provider, [*PROFILES, "local"], n=3, cutoff=0.5)]
    known += [name for name in (*PROFILES, "local") if name not in known]
    meant = _meant(spec)
    form = "Write it as provider:model, such as 'openai:gpt-4o'."
    if spec.rstrip(":") in PROFILES:
        form = f"Name the model too: '{spec.rstrip(':')}:…'."
    hint = f"Did you mean {meant!r}?" if meant else form
    raise UnknownModel(
        f"Unknown model {spec!r}. {hint} Known providers: {', '.join(known)}. For any other "
        "server, use ChatModel(model, base_url=…).",
        model=spec,
    )


def _meant(spec: str) -> str | None:
    """Return the model string that was probably meant."""
    text = spec.strip()
    vendor, slash, rest = text.partition("/")
    if vendor.lower() in ("litellm", "litellm_proxy") and slash:
        return _meant(rest)
    word = separator = model = ""
    if found := re.match(r"([\w .-]+?)\s*([:/])\s*(.+)", text):
        word, separator, model = found.groups()
    if separator and (provider := _provider(word)):
        return f"{provider}:{model}"
    if separator == "/" and "/" not in model:  # a vendor and its model, as model hubs write it
        return f"openrouter:{text}"
    if text.lower() in ("local", "embedded"):
        return "local"
    named = (
        (provider, name)
        for name in (text, model)
        for provider, names in _FAMILIES
        if re.match(names, name, re.IGNORECASE)
    )
    return next((f"{provider}:{name}" for provider, name in named), None)


def _provider(word: str) -> str | None:
    """Return the provider that a word means, however it is written."""
    word = word.lower().replace("-", "_").replace(" ", "_")
    for provider in PROFILES:
        if word.replace("_", "") == provider or word in _ALIASES.get(provider, "").split():
            return provider
    return next(iter(get_close_matches(word, PROFILES, n=1, cutoff=0.8)), None)
