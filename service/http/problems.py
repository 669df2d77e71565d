"""Errors of REST as ``application/problem+json`` (RFC 9457), whoever raised them."""

from typing import get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.errors import InvalidParameter, MethodNotAllowed, ServiceError, UnknownRoute
from service.http.request import error_headers
from service.oip import rest as oip
from service.rest.archive_routes import PROBLEM_TYPE
from service.runtime import Service
from service.validation import said


def add_handlers(app: FastAPI) -> None:
    """Let an application answer every error in this form."""
    app.add_exception_handler(ServiceError, answer_service_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_parameter)
    app.add_exception_handler(HTTPException, _answer_http_exception)


async def answer_service_error(request: Request, error: Exception) -> Response:
    """Answer an error as a problem of RFC 9457."""
    assert isinstance(error, ServiceError)
    service: Service = request.app.state.service
    service.metrics.rejected.labels(error.slug).inc()
    problem = error.problem(request.state.request_id)
    return JSONResponse(problem, error.status, headers=error_headers(error), media_type=PROBLEM_TYPE)


async def refuse(request: Request, error: ServiceError) -> Response:
    """Answer what the gate does not let in, in the language of the protocol that it speaks."""
    of_protocol = f"{request.url.path}/".startswith(f"{oip.PREFIX}/")
    return await (oip.answer_error if of_protocol else answer_service_error)(request, error)


async def _answer_invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    query = get_type_hints(request.scope["endpoint"])["query"]
    faults = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]  # places begin with "query"
    return await answer_service_error(request, InvalidParameter(f"{said(faults, query)}. See /docs for the parameters"))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == MethodNotAllowed.status:
        known: ServiceError = MethodNotAllowed(f"{request.method} is not served here; see /docs")
    else:
        known = UnknownRoute("nothing is served under this path; images go to POST /segment, see /docs")
    answer = await answer_service_error(request, known)
    answer.headers.update(error.headers or {})
    return answer
