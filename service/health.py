"""``pranet health``: whether the server on this machine takes new work, for the health check of a container."""

import argparse
import sys
import urllib.error
import urllib.request

from service.settings import add_flags, from_command_line

TIMEOUT_SECONDS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet health``: where to ask."""
    add_flags(parser, ("host", "port"))


def run(arguments: argparse.Namespace) -> int:
    """Ask ``/readyz``; return 0 if it says yes, else 1 and why on standard error.

    Raises:
        SettingsError: a setting is unknown or invalid.

    """
    settings = from_command_line(arguments)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/readyz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for elsewhere
    try:
        direct.open(url, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        with error:
            print(f"pranet: not ready: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"pranet: {url} does not answer: {error}", file=sys.stderr)
        return 1
    return 0
