"""A minimal FastAPI server: one picture at a time, with all work on the event loop."""

import os

import segmentation
from fastapi import FastAPI, Response, UploadFile

app = FastAPI()
engine = segmentation.Engine(os.environ["MODEL"], threads=0, max_batch=1)


@app.get("/health")
async def health() -> bool:
    return True


@app.post("/predict")
async def predict(request: UploadFile) -> Response:
    (png,) = segmentation.segment(engine, [await request.read()])
    return Response(png, media_type="image/png")
