"""The REST interface and the WebSocket stream: routes, messages and web pages."""
