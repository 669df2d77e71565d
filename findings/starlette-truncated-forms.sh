#!/usr/bin/env bash
# A multipart form that ends in the middle of a file, as Starlette and python-multipart read it.
#
# Guess:   a body without its last boundary (RFC 2046, section 5.1.1) is an error.
# Truth:   Request.form() returns the parts that were complete, and leaves out the one that was cut off, without an
#          error. MultipartParser.finalize() takes every end, although its callback on_end was never called.
# Versions: starlette 1.10.0, python-multipart 0.0.34
# Matters: of an archive sent as a form, the last picture would be lost, and nobody would count it. The service takes the
#          callback on_end for the end of a form, and refuses a body without it.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q starlette==1.10.0 python-multipart==0.0.34
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys

import python_multipart
import starlette
from starlette.requests import Request

print(f"starlette {starlette.__version__}, python-multipart {python_multipart.__version__}")
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
WHOLE = HEAD % b"first.jpg" + b"1" * 100 + b"\r\n" + HEAD % b"second.jpg" + b"2" * 100 + b"\r\n--b--\r\n"


async def files(body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    async with Request(scope, receive).form() as form:
        return [(file.filename, len(await file.read())) for _, file in form.multi_items()]


whole, cut = (asyncio.run(files(body)) for body in (WHOLE, WHOLE[:-60]))
print("the whole form:", whole)
print("60 bytes less:", cut)
sys.exit(not (whole == [("first.jpg", 100), ("second.jpg", 100)] and cut == [("first.jpg", 100)]))
PYTHON
