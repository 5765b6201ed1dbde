"""agentkit: agents that call tools, and traces that run again.

from agentkit import Agent, tool

@tool
def get_weather(city: str) -> str:
    "Current weather in a city."
    return "18 °C, cloudy"

agent = Agent("openai:gpt-4o", tools=[get_weather], instructions="Be brief.")
result = await agent.run("Do I need an umbrella in Paris?")
"""

from agentkit.agent import Agent
from agentkit.core.effects import Decision
from agentkit.errors import AgentKitError, ToolError
from agentkit.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ModelRequest,
    ModelResponse,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models import ChatModel, Model
from agentkit.output.build import JsonSchema
from agentkit.redaction import Redactor
from agentkit.runtime.config import Handoff
from agentkit.runtime.result import RunResult, result_of
from agentkit.session import Session
from agentkit.settings import ChatSettings, Limits
from agentkit.tools import RunContext, Tool, Toolset, tool
from agentkit.trace import Trace, use_structlog

__all__ = [
    "Agent",
    "AgentKitError",
    "AssistantMessage",
    "AudioPart",
    "ChatModel",
    "ChatSettings",
    "Decision",
    "FilePart",
    "Handoff",
    "ImagePart",
    "JsonSchema",
    "Limits",
    "Message",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "Redactor",
    "RunContext",
    "RunResult",
    "Session",
    "SystemMessage",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolMessage",
    "Toolset",
    "Trace",
    "Usage",
    "UserMessage",
    "result_of",
    "tool",
    "use_structlog",
]
