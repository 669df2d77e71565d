"""``pranet health``: checks whether the server on this machine accepts new work; for container health checks."""

import argparse
import http.client
import ssl
import sys
import urllib.error
import urllib.request

from pranet_client.tls import load_identity
from service.access.tls import of_server
from service.configuration import from_command_line
from service.settings import Settings

TIMEOUT_SECONDS = 3.0


def run(arguments: argparse.Namespace) -> int:
    """Request ``/readyz``; return 0 if the server is ready, otherwise print the reason and return 1.

    Raises:
        SettingsError: a setting is unknown or invalid.
        TlsError: a certificate or key cannot be used.

    """
    settings = from_command_line(arguments)
    context = _context(settings)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    scheme = "https" if context else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}/readyz"
    direct = urllib.request.build_opener(  # the server is on this machine: no proxy
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        direct.open(url, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        with error:
            print(f"pranet: not ready: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except (OSError, http.client.HTTPException) as error:
        advice = "check that it runs, and give the port and --tls-cert that it has, or the same PRANET_ variables"
        print(f"pranet: {url} does not answer ({error}); {advice}", file=sys.stderr)
        return 1
    return 0


def _context(settings: Settings) -> ssl.SSLContext | None:
    """Return a TLS context that trusts any certificate; None if TLS is off.

    If the server requires client certificates (mTLS), the context presents the server's own certificate.
    """
    tls = of_server(settings)
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The answer of a local address is asked for, and no secret is sent. The file would not tell what to trust: from the
    # renewal of a certificate to SIGHUP, or if the new one cannot be used, the server works with the one before.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.client_ca:
        load_identity(context, tls.cert, tls.key)
    return context
