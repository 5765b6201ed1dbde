"""The loop, driven by hand: effects out, outcomes in, no event loop anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import pytest
from pydantic import BaseModel, model_validator

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Failure,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    SkippedCall,
    ToolBatch,
    ToolOutcome,
    Value,
)
from agentkit.core.loop import conversation
from agentkit.core.spec import AgentSpec, Finish, OfferedTool
from agentkit.messages import (
    AssistantMessage,
    ForcedTool,
    Message,
    ModelResponse,
    SystemMessage,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models.profiles import Profile
from agentkit.output.build import output_spec
from agentkit.settings import Limits

ECHO = OfferedTool(
    definition=ToolDefinition(name="echo", description="", parameters={"type": "object"})
)
PROMPT = UserMessage(content="hello")


def spec(output: Any = str, mode: Any = "native", **fields: Any) -> AgentSpec[Any]:
    """An agent with one tool."""
    limits = fields.pop("limits", Limits(repeats=3))
    return AgentSpec(
        at=Address.root("agent"),
        model="test",
        output=output_spec(output, Profile(), mode),
        tools=fields.pop("tools", (ECHO,)),
        limits=limits,
        **fields,
    )


def says(text: str | None, **fields: Any) -> ModelResponse:
    """An answer of text."""
    return ModelResponse(
        message=AssistantMessage(content=text), usage=Usage(requests=1, output_tokens=1), **fields
    )


def calls(*arguments: str, name: str = "echo", finish: Any = "tool_calls") -> ModelResponse:
    """An answer that calls a tool once for each of `arguments`."""
    made = tuple(
        ToolCall(id=f"c{index}", name=name, arguments=text) for index, text in enumerate(arguments)
    )
    return ModelResponse(message=AssistantMessage(tool_calls=made), finish=finish)


def done(batch: Effect, **fields: Any) -> tuple[ToolOutcome, ...]:
    """Every call of a batch answered with `ok`."""
    assert isinstance(batch, ToolBatch)
    return tuple(
        ToolOutcome(
            at=invocation.at,
            status="ok",
            message=ToolMessage(call_id=invocation.call.id, content="ok"),
            **fields,
        )
        for invocation in batch.calls
    )


class Driven:
    """A conversation and the effects it has asked for."""

    def __init__(self, agent: AgentSpec[Any], messages: Sequence[Message] = (PROMPT,)) -> None:
        self.effects: list[Effect] = []
        self.skipped: list[SkippedCall] = []
        self.finish: Finish[Any] | None = None
        self._loop = conversation(agent, messages)
        self.send(None)

    def send(self, outcome: Outcome | None) -> None:
        """Answer the last effect."""
        try:
            effect = self._loop.send(outcome)
            while isinstance(effect, SkippedCall):
                self.skipped.append(effect)
                effect = self._loop.send(None)
            self.effects.append(effect)
        except StopIteration as stop:
            self.finish = stop.value

    def run_tools(self) -> None:
        """Answer the last effect, a batch, with results."""
        self.send(done(self.effects[-1]))

    @property
    def ended(self) -> Finish[Any]:
        """How it ended; fails if it has not."""
        assert self.finish is not None, f"still asks for {self.effects[-1]}"
        return self.finish

    @property
    def asked(self) -> ModelCall:
        """The last effect, which is a model call."""
        assert isinstance(self.effects[-1], ModelCall)
        return self.effects[-1]


def test_text_answer_ends_the_run() -> None:
    """A plain answer is the output, and the history holds prompt and answer."""
    run = Driven(spec())
    run.send(says("hi"))
    assert run.ended.status == "ok"
    assert run.ended.output == "hi"
    assert run.ended.messages == (PROMPT, AssistantMessage(content="hi"))


def test_addresses_come_from_step_and_index() -> None:
    """Model calls are numbered by step, tool calls by their place in the response."""
    run = Driven(spec())
    run.send(calls('{"a":1}', '{"a":2}'))
    batch = run.effects[-1]
    assert isinstance(batch, ToolBatch)
    assert [invocation.at for invocation in batch.calls] == ["/agent/m0/t0", "/agent/m0/t1"]
    run.run_tools()
    assert run.asked.at == "/agent/m1"


def test_instructions_lead_every_request_and_stay_out_of_the_history() -> None:
    """The system message belongs to the request, not to the conversation."""
    run = Driven(spec(instructions="Be brief."))
    assert run.asked.request.messages == (SystemMessage(content="Be brief."), PROMPT)
    run.send(says("hi"))
    assert run.ended.messages[0] is PROMPT


def test_dynamic_instructions_are_an_effect() -> None:
    """Computed instructions have an address, and their value leads the request."""
    run = Driven(spec(dynamic=True))
    assert run.effects == [Compute(at=Address("/agent/instructions"), name="instructions")]
    run.send(Value(value="Be kind."))
    assert run.asked.request.messages[0] == SystemMessage(content="Be kind.")


def test_failed_instructions_end_the_run() -> None:
    """When the instructions cannot be computed, no model is asked."""
    run = Driven(spec(dynamic=True))
    run.send(Failure(type="KeyError", message="'name'"))
    assert run.ended.status == "error"
    assert run.ended.error is not None
    assert run.ended.error.type == "KeyError"


def test_usage_adds_up_over_steps() -> None:
    """Tokens of all steps are counted."""
    run = Driven(spec())
    run.send(calls("{}"))
    run.run_tools()
    run.send(says("hi"))
    assert run.ended.usage == Usage(requests=2, output_tokens=1, tool_calls=1, tool_bytes=2)


def test_output_that_does_not_fit_is_asked_for_again_with_the_reason() -> None:
    """The model reads what was wrong, and a corrected output ends the run."""
    run = Driven(spec(int))
    run.send(says('{"value": "many"}'))
    told = run.asked.request.messages[-1]
    assert isinstance(told, UserMessage)
    assert "value" in str(told.content)
    assert "many" not in str(told.content)
    run.send(says('{"value": 3}'))
    assert run.ended.output == 3


def test_output_that_never_fits_is_an_error_with_all_attempts() -> None:
    """After the re-asks the error lists each text and its problem."""
    run = Driven(spec(int))
    run.send(says("one"))
    run.send(says("two"))
    error = run.ended.error
    assert error is not None
    assert error.type == "OutputInvalid"
    assert [attempt["text"] for attempt in error.data["attempts"]] == ["one", "two"]


def test_output_tool_ends_the_run_and_answers_every_call() -> None:
    """In tool mode the final call is accepted and its siblings are answered, not run."""
    run = Driven(spec(int, "tool"))
    assert run.asked.request.tool_choice == "required"
    made = (
        ToolCall(id="a", name="echo", arguments="{}"),
        ToolCall(id="b", name="final_output", arguments='{"value": 7}'),
    )
    run.send(ModelResponse(message=AssistantMessage(tool_calls=made), finish="tool_calls"))
    assert run.ended.output == 7
    assert [m.call_id for m in run.ended.messages if isinstance(m, ToolMessage)] == ["a", "b"]


def test_rejected_output_call_is_answered_beside_the_tools_that_ran() -> None:
    """A wrong final call is told why in its own answer; the other call of the batch runs."""
    run = Driven(spec(int, "tool"))
    made = (
        ToolCall(id="a", name="final_output", arguments='{"value": "x"}'),
        ToolCall(id="b", name="echo", arguments="{}"),
    )
    run.send(ModelResponse(message=AssistantMessage(tool_calls=made), finish="tool_calls"))
    run.run_tools()
    answers = run.asked.request.messages[-2:]
    assert [m.call_id for m in answers if isinstance(m, ToolMessage)] == ["a", "b"]
    assert "does not match" in answers[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["json", "prompt"])
def test_schema_is_told_where_the_server_does_not_enforce_it(mode: str) -> None:
    """In the json and prompt modes the system message holds the schema."""
    run = Driven(spec(int, mode))
    head = run.asked.request.messages[0]
    assert isinstance(head, SystemMessage)
    assert '"value"' in str(head.content)


def test_truncated_answer_runs_nothing() -> None:
    """`finish_reason: length` ends the run, even when the calls happen to parse."""
    run = Driven(spec())
    run.send(calls("{}", finish="length"))
    assert run.ended.error is not None
    assert run.ended.error.type == "OutputTruncated"
    assert run.ended.messages == (PROMPT,)


def test_content_filter_and_refusal_are_refusals() -> None:
    """A filtered or refused answer is never a success."""
    filtered = Driven(spec())
    filtered.send(says("par", finish="content_filter"))
    refused = Driven(spec())
    refused.send(ModelResponse(message=AssistantMessage(refusal="I cannot.")))
    for run in (filtered, refused):
        assert run.ended.error is not None
        assert run.ended.error.type == "ModelRefusal"


def test_empty_answer_is_asked_again_once() -> None:
    """One empty answer is forgiven and not kept; a second is an error."""
    run = Driven(spec())
    run.send(says(""))
    assert run.asked.request.messages == (PROMPT,)
    run.send(says(None))
    assert run.ended.error is not None
    assert run.ended.error.type == "InvalidResponse"


def test_step_limit_is_checked_before_the_next_request() -> None:
    """The run ends when the next step would be one too many."""
    run = Driven(spec(limits=Limits(steps=1, repeats=3)))
    run.send(calls("{}"))
    run.run_tools()
    assert run.ended.status == "limit"
    assert run.ended.error is not None
    assert run.ended.error.data == {"limit": "steps", "value": 1, "maximum": 1}


def test_tool_call_limit_answers_the_calls_without_running_them() -> None:
    """The history stays valid when a batch is refused."""
    run = Driven(spec(limits=Limits(tool_calls=1, repeats=3)))
    run.send(calls('{"a":1}', '{"a":2}'))
    assert run.ended.status == "limit"
    assert [m.call_id for m in run.ended.messages if isinstance(m, ToolMessage)] == ["c0", "c1"]


def test_token_limit() -> None:
    """Tokens are checked before the next request."""
    run = Driven(spec(limits=Limits(output_tokens=1, repeats=3)))
    run.send(says(None))
    assert run.ended.error is not None
    assert run.ended.error.data["limit"] == "output_tokens"


def test_repeated_batch_is_not_executed_and_the_model_is_asked_without_tools() -> None:
    """With repeats=0 the second identical batch is left out and the answer is asked for."""
    run = Driven(spec(limits=Limits(repeats=0)))
    run.send(calls("{}"))
    run.run_tools()
    before = run.asked.request
    run.send(calls("{}"))
    assert run.asked.request.messages == before.messages
    assert run.asked.request.tool_choice == "none"
    run.send(says("hi"))
    assert run.ended.output == "hi"


def test_model_that_calls_tools_after_all_ends_at_the_limit() -> None:
    """Asked without tools and calling again: LimitExceeded names repeats."""
    run = Driven(spec(limits=Limits(repeats=0)))
    run.send(calls("{}"))
    run.run_tools()
    run.send(calls("{}"))
    run.send(calls("{}"))
    assert run.ended.error is not None
    assert run.ended.error.data["limit"] == "repeats"


def test_polling_is_not_repetition_until_the_limit() -> None:
    """The same batch may come again `repeats` times in a row; another batch starts over."""
    run = Driven(spec(limits=Limits(repeats=1)))
    for arguments in ("{}", "{}", '{"a":1}', "{}", "{}"):
        run.send(calls(arguments))
        run.run_tools()
    run.send(calls("{}"))
    assert run.asked.request.tool_choice == "none"


def test_forced_tool_choice_is_free_again_after_its_call() -> None:
    """Else the loop could not end; `keep_tool_choice` forces it at every step."""
    forced = ForcedTool(name="echo")
    run, kept = (
        Driven(spec(tool_choice=forced)),
        Driven(spec(tool_choice=forced, keep_tool_choice=True)),
    )
    for driven in (run, kept):
        assert driven.asked.request.tool_choice == forced
        driven.send(calls("{}"))
        driven.run_tools()
    assert run.asked.request.tool_choice == "auto"
    assert kept.asked.request.tool_choice == forced


def test_polling_with_other_results_is_no_repetition() -> None:
    """Only calls with the same arguments and the same results count."""
    run = Driven(spec(limits=Limits(repeats=1)))
    for state in ("queued", "running", "half done", "done", "done"):
        run.send(calls("{}"))
        (outcome,) = done(run.effects[-1])
        message = ToolMessage(call_id="c0", content=state)
        run.send((replace(outcome, message=message),))
        assert run.asked.request.tool_choice is None
    run.send(calls("{}"))
    assert [one.reason for one in run.skipped] == ["repeated"]


def test_forced_tool_choice_is_free_again_after_a_denial() -> None:
    """The model has called what it had to; whether the call ran is another matter."""
    asking = replace(ECHO, approval="always")
    run = Driven(spec(tool_choice="required", tools=(asking,)))
    run.send(calls("{}"))
    assert isinstance(run.effects[-1], Compute)
    run.send(Value(value={"arguments": "{}", "needed": True}))
    assert isinstance(run.effects[-1], Pause)
    run.send((Decision.deny("no"),))
    assert run.asked.request.tool_choice == "auto"


def test_forced_tool_choice_is_not_used_up_by_other_calls() -> None:
    """Those of an agent before, and those that computed instructions have made."""
    used = Usage(requests=1, tool_calls=3)
    started = conversation(spec(tool_choice="required"), (PROMPT,), used)
    asked = next(started)
    assert isinstance(asked, ModelCall)
    assert asked.request.tool_choice == "required"
    run = Driven(spec(tool_choice="required", dynamic=True))
    run.send(Value(value="Be kind.", usage=used))
    assert run.asked.request.tool_choice == "required"


def test_only_the_first_of_two_handoffs_happens() -> None:
    """The second is told so, and the history has no answer that is not true."""
    tools = tuple(
        OfferedTool(
            definition=ToolDefinition(name=name, description="", parameters={"type": "object"}),
            handoff=name,
        )
        for name in ("sales", "support")
    )
    run = Driven(spec(tools=tools))
    made = tuple(ToolCall(id=name, name=name, arguments="{}") for name in ("sales", "support"))
    run.send(ModelResponse(message=AssistantMessage(tool_calls=made), finish="tool_calls"))
    assert run.ended.handoff is not None
    assert run.ended.handoff[0] == "sales"
    assert [message.text for message in run.ended.messages[-2:]] == [
        "Handed over to sales.",
        "Not executed: the conversation was handed over to sales.",
    ]
    assert [one.reason for one in run.skipped] == ["handoff", "refused"]


def test_a_bug_in_the_type_of_the_output_is_an_end_with_a_result() -> None:
    """A validator may raise anything; what was used and said so far is kept."""

    class Buggy(BaseModel):
        @model_validator(mode="after")
        def checked(self) -> Self:
            raise KeyError("a bug of ours")

    run = Driven(spec(Buggy))
    run.send(says("{}"))
    assert run.ended.status == "error"
    assert run.ended.error is not None
    assert isinstance(run.ended.error.exception, KeyError)
    assert run.ended.messages == (PROMPT,)
    assert run.ended.usage.output_tokens == 1


def test_repetition_in_tool_mode_forces_the_output_tool() -> None:
    """Without tools, the output tool is the only one left."""
    run = Driven(spec(int, "tool", limits=Limits(repeats=0)))
    run.send(calls("{}"))
    run.run_tools()
    run.send(calls("{}"))
    assert run.asked.request.tool_choice == ForcedTool(name="final_output")


def test_fatal_tool_ends_the_run_with_a_valid_history() -> None:
    """`on_error="raise"` surfaces the error; both calls are answered."""
    run = Driven(spec())
    run.send(calls('{"a":1}', '{"a":2}'))
    first, second = done(run.effects[-1])
    failed = ToolOutcome(
        at=second.at,
        status="error",
        message=second.message,
        error=Failure(type="ValueError", message="no"),
        fatal=True,
    )
    run.send((first, failed))
    assert run.ended.error is not None
    assert run.ended.error.type == "ToolsFailed"
    assert run.ended.error.parts == (Failure(type="ValueError", message="no"),)
    assert len(run.ended.messages) == 4


def test_interrupt_during_tools_keeps_what_finished() -> None:
    """The interrupt's outcomes answer every call, and nothing more is asked."""
    run = Driven(spec())
    run.send(calls("{}"))
    outcomes = done(run.effects[-1])
    error = Failure(type="RunCancelled", message="stop")
    run.send(Interrupt(status="cancelled", error=error, outcomes=outcomes))
    assert run.ended.status == "cancelled"
    assert run.ended.messages[-1] == ToolMessage(call_id="c0", content="ok")


def test_model_failure_ends_the_run() -> None:
    """A failure of the model is the run's error."""
    run = Driven(spec())
    run.send(Failure(type="ModelUnreachable", message="refused"))
    assert run.ended.status == "error"
    assert run.ended.messages == (PROMPT,)
