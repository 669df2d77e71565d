"""A LitServe server: batches of up to eight pictures, two workers with one thread each."""

import os

import litserve
import segmentation
from fastapi import Response, UploadFile


class Api(litserve.LitAPI):
    def setup(self, device):
        self.engine = segmentation.Engine(os.environ["MODEL"], threads=1)

    def decode_request(self, request: UploadFile):
        return segmentation.to_input(request.file.read())

    def batch(self, inputs):
        return inputs

    def predict(self, batch):
        frames, sizes = zip(*batch, strict=True)
        return list(zip(self.engine.infer(list(frames)), sizes, strict=True))

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return Response(segmentation.to_png(*output), media_type="image/png")


if __name__ == "__main__":
    api = Api(max_batch_size=segmentation.MAX_BATCH, batch_timeout=segmentation.MAX_WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2, timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
