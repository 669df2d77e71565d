"""``pranet health``: whether the server on this machine takes new work, for the health check of a container."""

import argparse
import ssl
import sys
import urllib.error
import urllib.request

from pranet_client.tls import load_authorities, load_identity
from service.access.tls import of_server
from service.settings import Settings, add_flags, from_command_line

TIMEOUT_SECONDS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet health``: where to ask, and what that server proves itself with."""
    add_flags(parser, ("host", "port", "tls_cert", "tls_key", "tls_client_ca"))


def run(arguments: argparse.Namespace) -> int:
    """Ask ``/readyz``; return 0 if it says yes, else 1 and why on standard error.

    Raises:
        SettingsError: a setting is unknown or invalid.
        TlsError: a certificate or key cannot be used.

    """
    settings = from_command_line(arguments)
    context = _context(settings)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    scheme = "https" if context else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}/readyz"
    direct = urllib.request.build_opener(  # a proxy is for elsewhere
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
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


def _context(settings: Settings) -> ssl.SSLContext | None:
    """Believe the very certificate of the settings, whatever name it is for; None where TLS is off.

    A server that wants certificates of its clients is shown its own: it must be one that it believes.
    """
    tls = of_server(settings)
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its authority need not be at hand
    load_authorities(context, tls.cert)
    if tls.client_ca:
        load_identity(context, tls.cert, tls.key)
    return context
