"""Encodes errors: for REST as ``application/problem+json`` (RFC 9457), for OIP as ``{"error": "..."}``."""

from typing import Any, NoReturn, get_type_hints

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service.errors import (
    CodedBody,
    InvalidParameter,
    InvalidRequest,
    MethodNotAllowed,
    ServiceError,
    Unauthenticated,
    UnknownRoute,
    UpgradeRequired,
)
from service.http.content_encoding import READABLE_CODINGS
from service.oip import rest as oip
from service.validation import describe_errors

PROBLEM_TYPE = "application/problem+json"


def add_handlers(app: FastAPI) -> None:
    """Translate the errors of FastAPI and Starlette into ``ServiceError``."""
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(HTTPException, _refuse_route)


async def encode(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the error that ended a request, in the format of the protocol to which its path belongs."""
    error: ServiceError = scope["state"]["error"]
    if oip.is_below(_path(scope)):
        answer = JSONResponse({"error": error.detail}, error.status, headers=headers_of(error))
    else:
        problem = error.problem(scope["state"]["call"].request_id)
        answer = JSONResponse(problem, error.status, headers=headers_of(error), media_type=PROBLEM_TYPE)
    await answer(scope, receive, send)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("app_root_path", scope.get("root_path", "")))  # a mount lengthens the latter


def headers_of(error: ServiceError) -> dict[str, str]:
    """Return the headers of an error's response, such as ``Retry-After`` and ``Allow``."""
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    match error:
        case Unauthenticated():
            headers["www-authenticate"] = 'Bearer realm="pranet"'  # RFC 6750, section 3
        case CodedBody():
            headers["accept-encoding"] = READABLE_CODINGS  # RFC 9110, section 12.5.3
        case UpgradeRequired():
            headers |= {"upgrade": "websocket", "connection": "upgrade"}  # RFC 9110, sections 7.8 and 15.5.22
        case MethodNotAllowed(allow=allow) if allow:
            headers["allow"] = allow  # RFC 9110, section 15.5.6
    return headers


async def _refuse_parameters(request: Request, error: Exception) -> NoReturn:
    assert isinstance(error, RequestValidationError)
    query = get_type_hints(request.scope["endpoint"])["query"]
    faults = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]  # locations begin with "query"
    raise InvalidParameter(f"{describe_errors(faults, query)}. See /docs for the parameters") from None


async def _refuse_route(request: Request, error: Exception) -> Any:
    assert isinstance(error, HTTPException)
    if error.status_code == MethodNotAllowed.status:
        allowed = (error.headers or {}).get("Allow", "")
        refusal = MethodNotAllowed(f"this path does not accept {request.method}; send {allowed or 'another method'}")
        refusal.allow = allowed
        raise refusal from None
    if error.status_code != UnknownRoute.status:
        raise InvalidRequest(f"the request cannot be read ({error.detail}); see /docs") from None
    if oip.is_below(path := _path(request.scope)):
        raise UnknownRoute(
            f"the Open Inference Protocol has no path {path}; the model is at {oip.PREFIX}/models/pranet"
        ) from None
    raise UnknownRoute("this path does not exist; send images to POST /segment, see /docs") from None
