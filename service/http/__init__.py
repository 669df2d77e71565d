"""HTTP below the routes: server, connections, limits on requests, request bodies and middleware."""
