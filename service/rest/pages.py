"""The web pages: the live demo and the documentation; all their files are part of the package."""

from importlib.resources import files

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles

from service.rest import reference

# No content from other hosts and no inline scripts; blob: lets the page show pictures that it holds in memory.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {"content-security-policy": PAGE_POLICY, "cache-control": "no-cache"}


def add_pages(app: FastAPI) -> None:
    """Add the routes of the pages and their static files."""
    app.get("/", include_in_schema=False)(live)
    app.get("/docs", include_in_schema=False)(docs)
    app.get("/docs/try", include_in_schema=False)(try_requests)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    app.mount("/pages", StaticFiles(packages=[("service", "rest/static")]))
    app.mount("/samples", StaticFiles(packages=[("service", "samples")]))


async def live() -> Response:
    """Return the live page: segments a picture, a video file or the camera in the browser."""
    return Response(_page("live.html"), media_type="text/html", headers=PAGE_HEADERS)


def docs(request: Request) -> Response:
    """Return the reference of all routes; made in a thread, since it takes some milliseconds."""
    page = reference.page(request.app, str(request.base_url))
    return Response(page, media_type="text/html", headers=PAGE_HEADERS)


async def try_requests() -> Response:
    """Return Swagger UI, which sends requests; it works without internet access."""
    return Response(_page("swagger.html"), media_type="text/html", headers=PAGE_HEADERS)


def _page(name: str) -> str:
    return (files("service.rest") / "static" / name).read_text()
