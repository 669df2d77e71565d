"""Everything that happens to a service, at once and for an hour, with books that must balance to the last frame.

python -m tools.endurance --minutes 60        on an idle machine, from the root of the repository

A server with TLS, tokens and a weights file runs under a supervisor. It is loaded at 90 % of the capacity that is
measured first, by every kind of request and eight streams. Meanwhile weights, certificate and token are renewed,
clients leave, trickle or do not read, inference fails and hangs, and the process is stopped and killed. The exit code
is 1 if a promise is broken; each one is a line on standard error.
"""
