"""The REST interface and the WebSocket stream: routes, messages and the pages."""
