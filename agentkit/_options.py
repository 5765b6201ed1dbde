"""Wrong keywords: the option that was meant, by its name here.

`options` goes around what users pass options to: `Agent`, the ways to run it, settings,
tools, models. It acts only after Python has refused a call, so that signatures, `help` and
type checkers see the function itself.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_WORDS = {
    "Agent.instructions": "system system_prompt system_message system_instruction prompt persona "
    "system_instructions system_template developer_message prompt_template prompt_templates role "
    "goal backstory state_modifier messages_modifier",
    "Agent.output": "output_type result_type output_schema output_model output_class output_cls "
    "output_format output_pydantic output_json output_content_type response_format response_model "
    "response_schema response_type return_type structured_output schema text_format",
    "Agent.model": "llm model_name model_id model_client engine function_calling_llm chat_model",
    "Agent.tools": "functions toolset toolsets toolkit toolkits builtin_tools tool_list",
    "Agent.settings": "model_settings model_config model_kwargs llm_config generation_config "
    "sampling_params completion_params",
    "Agent.limits": "usage_limits",
    "Agent.output_retries": "retries max_retries max_retry_limit result_retries retry num_retries",
    "Agent.output_validators": "output_guardrails result_validators final_answer_checks guardrail "
    "guardrails validators output_validator validator",
    "Agent.middleware": "hooks input_guardrails middlewares",
    "Agent.deps_type": "context_schema context_type dependencies_type deps_schema state_schema",
    "Agent.compact": "history_processors history_processor pre_model_hook compaction",
    "Agent.trace": "tracing trace_path instrument log_file",
    "Agent.as_tool.description": "description handoff_description tool_description",
    "Agent.run.prompt": "user_prompt input inputs task query question message user_message text",
    "Agent.run.deps": "context dependencies context_variables additional_args state ctx dep",
    "Agent.run.history": "messages message_history chat_history conversation_history conversation",
    "Agent.run.on_event": "callback callbacks event_handler event_stream_handler stream_handler "
    "step_callback step_callbacks listener",
    "Agent.run.approver": "approve human_input ask_human on_approval",
    "Agent.resume.decisions": "deferred_tool_results approvals tool_results",
    "Limits.steps": "max_steps max_turns max_iterations max_iter max_iters max_loops iterations "
    "request_limit max_requests requests recursion_limit max_tool_iterations turns step_limit",
    "Limits.tool_calls": "max_tool_calls tool_calls_limit tool_call_limit max_calls",
    "Limits.input_tokens": "max_input_tokens input_tokens_limit request_tokens_limit "
    "request_tokens prompt_tokens",
    "ChatSettings.max_completion_tokens": "max_output_tokens max_new_tokens max_tokens",
    "Limits.output_tokens": "max_output_tokens output_tokens_limit response_tokens_limit "
    "response_tokens max_completion_tokens completion_tokens",
    "Limits.total_tokens": "max_total_tokens total_tokens_limit max_tokens tokens token_limit "
    "token_budget",
    "Limits.cost": "max_cost budget max_budget budget_usd max_budget_usd cost_limit max_price "
    "max_usd usd",
    "Limits.parallel": "max_parallel max_parallel_calls max_tool_threads parallel_calls "
    "max_concurrency concurrency",
    "Limits.repeats": "max_repeats",
    "Tool.timeout": "tool_timeout time_limit timeout_seconds max_seconds seconds",
    "ChatModel.timeout": "request_timeout timeouts timeout_seconds",
    "Limits.seconds": "timeout time_limit max_execution_time max_time max_seconds max_duration "
    "deadline run_timeout timeout_seconds time",
    "ChatSettings.stop": "stop_sequences stop_words stop_tokens",
    "ChatSettings.reasoning_effort": "thinking reasoning effort thinking_budget",
    "ChatModel.base_url": "api_base openai_api_base azure_endpoint endpoint url server_url host",
    "ChatModel.api_key": "key token auth_token openai_api_key apikey",
    "ChatModel.headers": "default_headers extra_headers http_headers",
    "ChatModel.http_client": "client http_async_client session transport async_client",
    "ChatModel.profile": "provider custom_llm_provider model_provider",
    "ChatModel.organization": "org openai_organization",
    "ChatModel.retries": "max_retries num_retries retry",
    "ChatModel.price": "prices pricing cost input_cost_per_token output_cost_per_token",
    "Price.input": "prompt input_cost input_price input_cost_per_token",
    "Price.output": "completion output_cost output_price output_cost_per_token",
    "Price.cached": "cache cache_read cached_input",
    "Tool.name": "name_override tool_name func_name",
    "Tool.description": "description_override tool_description desc doc docstring",
    "Tool.strict": "strict_mode",
    "Tool.retries": "max_retries retry retry_limit",
    "Tool.approval": "requires_approval needs_approval require_approval requires_confirmation "
    "approve confirm human_in_the_loop interrupt_before",
    "Tool.on_error": "failure_error_function handle_tool_error handle_error error_handler",
    "Tool.effect": "read_only readonly side_effects side_effect idempotent destructive",
    "Tool.max_output": "max_chars max_length max_result_size truncate max_bytes",
    "Tool.concurrency": "max_concurrency parallel max_parallel",
}
"""Options by what other frameworks and libraries call them; the first that fits counts."""
_SESSION = "keep the conversation in a Session(agent)"
_TOOLSET = "a Toolset decides at each step which tools there are"
_DOCSTRING = "it is not needed: docstrings are read, in every common style"
_ADVICE = {
    **dict.fromkeys("memory session_id thread_id checkpointer conversation_id".split(), _SESSION),
    **dict.fromkeys("prepare prepare_tools is_enabled enabled".split(), _TOOLSET),
    **dict.fromkeys("docstring_format docstring_style parse_docstring".split(), _DOCSTRING),
    "stream": "call agent.stream(…) instead",
    "streaming": "call agent.stream(…) instead",
    "handoffs": "put Handoff(agent) into tools=[…]",
    "managed_agents": "put agent.as_tool() into tools=[…]",
    "sub_agents": "put agent.as_tool() into tools=[…]",
    "verbose": "pass on_event=print to a run, or look at its trace with `agentkit show`",
    "debug": "pass on_event=print to a run, or look at its trace with `agentkit show`",
    "takes_ctx": "annotate a parameter with RunContext instead",
    "args_schema": "use Tool.from_schema(…) for a raw JSON Schema",
    "parameters": "use Tool.from_schema(…) for a raw JSON Schema",
    "return_direct": "make the function the agent's output=…",
}
"""Words of others for what is no option here."""
_PART = {"ChatSettings": "settings", "Limits": "limits", "ChatModel": "model", "Price": "price"}
"""The options that take these objects."""
_OWNERS = ("ChatSettings", "Limits", "Agent", "Agent.run", "ChatModel", "Tool")
_functions: dict[str, Callable[..., Any]] = {}  # those of this package, by their names


def options(function: FunctionT) -> FunctionT:
    """Have a keyword that a function or class does not take refused by the name it has here."""
    if inspect.isclass(function):
        cls: Any = function
        cls.__init__ = options(cls.__init__)
        return cls
    _functions[_label(function)] = function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            if (error := _wrong(function, args, kwargs)) is not None:
                raise error from None
            raise

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        try:
            coroutine = function(*args, **kwargs)
        except TypeError:
            if (error := _wrong(function, args, kwargs)) is not None:
                raise error from None
            raise
        return await coroutine

    return cast("FunctionT", call_async if inspect.iscoroutinefunction(function) else call)


def _label(function: Callable[..., Any]) -> str:
    return function.__qualname__.removesuffix(".__init__").replace("AgentConfig", "Agent")


def _wrong(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]
) -> TypeError | None:
    """Return the error for a call that the signature does not allow; None if it is another one."""
    parameters = inspect.signature(function).parameters
    kinds = {one.kind for one in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    if wrong := kwargs.keys() - parameters.keys():
        names = [name for name in parameters if name != "self"]
        return wrong_options(_label(function), [name for name in kwargs if name in wrong], names)
    first = [
        name
        for name, one in parameters.items()
        if one.kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL)
    ]
    if len(args) <= len(first) or inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    rest = ", ".join(f"{name}=…" for name in parameters if name not in first)
    allowed = " and ".join(name for name in first if name != "self") or "nothing"
    count = len(args) - ("self" in first)
    text = f"{_label(function)} takes {allowed} by position, not {count} values."
    return TypeError(f"{text} Pass the rest by name: {rest}." if rest else text)


def wrong_options(label: str, wrong: Collection[str], known: Collection[str]) -> TypeError:
    """Return the error for options that do not exist: what each is here, or which there are."""
    texts = [f"{label} has no option {name!r}{_meant(name, label, known)}." for name in wrong]
    return TypeError(" ".join(texts))


def _meant(word: str, label: str, known: Collection[str]) -> str:
    if text := _here(word, label, known):
        return text
    others = {one for words in _WORDS.values() for one in words.split()}
    for close in difflib.get_close_matches(word, {*known, *others}, n=3, cutoff=0.7):
        if close in known:
            return f"; use {close}=…"
        if text := _here(close, label, known):
            return text
    return f". Its options: {', '.join(known)}"


def _here(word: str, label: str, known: Collection[str]) -> str:
    """Return what to use for a word of another framework, or for an option of something else."""
    targets = [target.rpartition(".") for target, words in _WORDS.items() if word in words.split()]
    for _, _, option in targets:
        if option in known:
            return f"; use {option}=…"
    if word in _ADVICE:
        return f"; {_ADVICE[word]}"
    targets += [
        (owner, "", word)
        for owner in _OWNERS
        if owner != label and word in inspect.signature(_functions[owner]).parameters
    ]
    # What an option of this function takes is nearer than what stands elsewhere.
    targets.sort(key=lambda target: _PART.get(target[0]) not in known)
    for owner, _, option in targets:
        more = "" if owner in ("ChatSettings", "Limits", "Price", "Tool") else "…, "
        if (part := _PART.get(owner)) in known:
            return f"; use {part}={owner}({more}{option}=…)"
        named = owner.replace("Agent.", "agent.").replace("Tool", "@tool")
        return f"; it is an option of {named}({more}{option}=…)"
    return ""
