"""What people see in a browser: the live page, the documentation, and what both are made of, all from the package."""

from importlib.resources import files

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

# Nothing from other hosts, nothing inline; blob: is how a page shows a picture that it has itself.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {"content-security-policy": PAGE_POLICY, "cache-control": "no-cache"}


def add_pages(app: FastAPI) -> None:
    """Add the routes of the pages."""
    app.get("/", include_in_schema=False)(live)
    app.get("/docs", include_in_schema=False)(docs)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    app.mount("/pages", StaticFiles(packages=[("service", "rest/static")]))
    app.mount("/samples", StaticFiles(packages=[("service", "samples")]))


async def live() -> Response:
    """Serve the page on which one can watch the service work."""
    return Response(_page("live.html"), media_type="text/html", headers=PAGE_HEADERS)


async def docs() -> Response:
    """Serve the interactive documentation; its assets come from the package, not from a CDN."""
    return Response(_page("docs.html"), media_type="text/html", headers=PAGE_HEADERS)


def _page(name: str) -> str:
    return (files("service.rest") / "static" / name).read_text()
