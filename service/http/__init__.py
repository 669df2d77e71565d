"""HTTP itself: server, connections, request bodies, middleware and problem documents."""
