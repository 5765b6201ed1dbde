"""A model behind the chat-completions wire format."""
