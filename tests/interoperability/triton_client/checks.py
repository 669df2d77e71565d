"""Triton's own clients against a running service; prints what became of each check as JSON.

Runs in an environment of its own, because tritonclient needs an older protobuf than the service:

    checks.py HTTP_ADDRESS GRPC_ADDRESS PICTURES.npz serving|network|stream|draining
"""

import asyncio
import base64
import functools
import json
import queue
import re
import sys
import traceback

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

KINDS = {"http": http_client, "http.aio": http_aio, "grpc": grpc_client, "grpc.aio": grpc_aio}
STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED", 422: "INVALID_ARGUMENT",
            503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}  # fmt: skip
PHASES = {
    "serving": "check_",
    "network": "check_(one_encoded|four_arrays)",  # with answers that take their time
    "stream": "check_a_stream_of_50",
    "draining": "draining_",
}
FRAMES = 50
PATIENCE = 60  # seconds


class Checks:
    """Each method whose name begins with ``check`` or ``draining`` is one."""

    def __init__(self, http: str, grpc: str, pictures: dict) -> None:
        self.addresses = {"http": http, "grpc": grpc}
        self.pixels = pictures["pixels"]  # (4, H, W, 3)
        self.masks = pictures["masks"]  # (4, H, W)
        self.encoded = [pictures[f"encoded{number}"].tobytes() for number in range(4)]
        self.other_size = pictures["other_size"].tobytes()

    def ask(self, kind: str, method: str, *arguments: object, **named: object) -> object:
        """Call a method of one of the four clients."""
        return self.use(kind, lambda client: getattr(client, method)(*arguments, **named))

    def use(self, kind: str, call: object) -> object:
        address = self.addresses[kind.partition(".")[0]]
        make = functools.partial(KINDS[kind].InferenceServerClient, address)
        if not kind.endswith("aio"):
            with make() as client:
                return call(client)

        async def asking() -> object:
            async with make() as client:
                return await call(client)

        return asyncio.run(asking())

    def inputs(self, kind: str, data: np.ndarray, datatype: str, **how: object) -> list:
        tensor = KINDS[kind].InferInput("image", list(data.shape), datatype)
        tensor.set_data_from_numpy(data, **how)
        return [tensor]

    def encoded_inputs(self, kind: str, *pictures: bytes) -> list:
        return self.inputs(kind, np.array([*pictures, None], object)[:-1], "BYTES")

    def infer(self, kind: str, inputs: list | None = None, model: str = "pranet", **named: object) -> object:
        return self.ask(kind, "infer", model, inputs or self.encoded_inputs(kind, self.encoded[0]), **named)

    def failure(self, kind: str, **named: object) -> InferenceServerException:
        try:
            self.infer(kind, **named)
        except InferenceServerException as error:
            return error
        raise AssertionError("it was not refused")

    def refused(self, status: int, kind: str, words: str, **named: object) -> None:
        error = self.failure(kind, **named)
        expected = str(status) if kind.startswith("http") else f"StatusCode.{STATUSES[status]}"
        assert (error.status(), words in error.message()) == (expected, True), (error.status(), error.message())

    def agrees(self, result: object, count: int) -> None:
        mask, probability = result.as_numpy("mask"), result.as_numpy("probability")
        assert (mask.dtype, probability.dtype) == (np.uint8, np.float32)
        assert mask.shape == probability.shape == self.masks[:count].shape
        assert set(np.unique(mask)) <= {0, 255}
        assert ((probability > 0.5) == (mask == 255)).mean() > 0.999  # the float sigmoid and the threshold may round
        assert ((mask == 255) == self.masks[:count]).mean() > 0.99

    def check_live(self, kind: str) -> None:
        assert self.ask(kind, "is_server_live") is True

    def check_ready(self, kind: str) -> None:
        assert self.ask(kind, "is_server_ready") is True
        assert self.ask(kind, "is_model_ready", "pranet") is True
        assert self.ask(kind, "is_model_ready", "pranet", "1") is True

    def check_metadata(self, kind: str) -> None:
        named = {"as_json": True} if kind.startswith("grpc") else {}
        server = self.ask(kind, "get_server_metadata", **named)
        assert server["name"] == "pranet-service"
        assert "binary_tensor_data" in server["extensions"]
        model = self.ask(kind, "get_model_metadata", "pranet", **named)
        assert (model["name"], model["versions"]) == ("pranet", ["1"])
        assert [(each["name"], each["datatype"]) for each in model["inputs"]] == [("image", "BYTES")]
        assert {each["name"]: each["datatype"] for each in model["outputs"]} == {"mask": "UINT8", "probability": "FP32"}

    def check_config(self, kind: str) -> None:
        if kind.startswith("grpc"):
            config = self.ask(kind, "get_model_config", "pranet", as_json=True)["config"]
        else:
            config = self.ask(kind, "get_model_config", "pranet")
        assert config["name"] == "pranet"
        assert config["max_batch_size"] >= 4
        assert int(config["dynamic_batching"]["priority_levels"]) == 3
        assert [each["data_type"] for each in config["output"]] == ["TYPE_UINT8", "TYPE_FP32"]

    def check_statistics(self, kind: str) -> None:
        named = {"as_json": True} if kind.startswith("grpc") else {}

        def count() -> dict:
            (model,) = self.ask(kind, "get_inference_statistics", "pranet", **named)["model_stats"]
            return model

        self.infer(kind)
        before = count()
        self.infer(kind, self.encoded_inputs(kind, *self.encoded))
        after = count()
        assert int(after["inference_count"]) - int(before["inference_count"]) == 4
        assert int(after["last_inference"]) > int(before["last_inference"])
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            early, late = before["inference_stats"][part], after["inference_stats"][part]
            assert int(late["count"]) - int(early["count"]) == 4, part
            assert int(late["ns"]) > int(early["ns"]), part

    def check_statistics_of_every_model(self, kind: str) -> None:
        named = {"as_json": True} if kind.startswith("grpc") else {}
        (model,) = self.ask(kind, "get_inference_statistics", **named)["model_stats"]
        assert (model["name"], model["version"]) == ("pranet", "1")

    def check_repository_index(self, kind: str) -> None:
        named = {"as_json": True} if kind.startswith("grpc") else {}
        index = self.ask(kind, "get_model_repository_index", **named)
        (model,) = index["models"] if kind.startswith("grpc") else index
        assert (model["name"], model["version"], model["state"]) == ("pranet", "1", "READY")

    def check_what_is_not_supported_is_named(self, kind: str) -> None:
        for method, arguments, words in (
            ("get_trace_settings", (), "trace settings"),
            ("get_log_settings", (), "log settings"),
            ("get_system_shared_memory_status", (), "shared memory"),
            ("get_cuda_shared_memory_status", (), "shared memory"),
            ("load_model", ("pranet",), "loading and unloading of models"),
        ):
            message = ""
            try:
                self.ask(kind, method, *arguments)
            except InferenceServerException as error:
                message = error.message()
            assert f"does not support {words}" in message, (method, message)

    def check_packed_json(self, kind: str) -> None:
        for packed in ("gzip", "deflate"):
            named = {"request_compression_algorithm": packed, "response_compression_algorithm": packed}
            self.agrees(self.infer(kind, **named), 1)
            self.agrees(self.infer(kind, self.inputs(kind, self.pixels, "UINT8"), **named), 4)

    def check_one_encoded_picture(self, kind: str) -> None:
        self.agrees(self.infer(kind), 1)

    def check_four_encoded_pictures(self, kind: str) -> None:
        self.agrees(self.infer(kind, self.encoded_inputs(kind, *self.encoded)), 4)

    def check_one_array(self, kind: str) -> None:
        self.agrees(self.infer(kind, self.inputs(kind, self.pixels[:1], "UINT8")), 1)

    def check_four_arrays(self, kind: str) -> None:
        self.agrees(self.infer(kind, self.inputs(kind, self.pixels, "UINT8")), 4)

    def check_json_tensors(self, kind: str) -> None:
        outputs = [KINDS[kind].InferRequestedOutput(name, binary_data=False) for name in ("mask", "probability")]
        arrays = self.inputs(kind, self.pixels[:1], "UINT8", binary_data=False)
        self.agrees(self.infer(kind, arrays, outputs=outputs), 1)
        texts = np.array([[base64.b64encode(each)] for each in self.encoded], object)
        pictures = self.inputs(kind, texts, "BYTES", binary_data=False)
        self.agrees(self.infer(kind, pictures, outputs=outputs), 4)
        mixed = [KINDS[kind].InferRequestedOutput(name, binary_data=name == "mask") for name in ("mask", "probability")]
        self.agrees(self.infer(kind, pictures, outputs=mixed), 4)

    def check_requested_outputs(self, kind: str) -> None:
        result = self.infer(kind, outputs=[KINDS[kind].InferRequestedOutput("probability")])
        assert result.as_numpy("mask") is None
        assert result.as_numpy("probability") is not None
        self.refused(400, kind, "'depth'", outputs=[KINDS[kind].InferRequestedOutput("depth")])

    def check_id_is_echoed(self, kind: str) -> None:
        response = self.infer(kind, request_id="frame 7").get_response()
        assert (response.id if kind.startswith("grpc") else response["id"]) == "frame 7"

    def check_version_is_named(self, kind: str) -> None:
        self.agrees(self.infer(kind, model_version="1"), 1)

    def check_wrong_shape(self, kind: str) -> None:
        self.refused(400, kind, "[N, H, W, 3]", inputs=self.inputs(kind, self.pixels[0], "UINT8"))
        self.refused(400, kind, "[N] or [N, 1]", inputs=self.inputs(kind, np.array([[b"a", b"b"]], object), "BYTES"))

    def check_wrong_type(self, kind: str) -> None:
        numbers = self.pixels[:1, :8, :8].astype(np.float32)
        self.refused(400, kind, "'image' is FP32", inputs=self.inputs(kind, numbers, "FP32"))

    def check_pictures_of_different_sizes(self, kind: str) -> None:
        pair = self.encoded_inputs(kind, self.encoded[0], self.other_size)
        self.refused(400, kind, "do not fit into one tensor", inputs=pair)

    def check_undecodable(self, kind: str) -> None:
        self.refused(422, kind, "damaged", inputs=self.encoded_inputs(kind, self.encoded[0][:200]))

    def check_unknown_model(self, kind: str) -> None:
        self.refused(404, kind, "'resnet' does not exist", model="resnet")

    def check_unknown_version(self, kind: str) -> None:
        self.refused(404, kind, "version 2 of", model_version="2")

    def check_timeout(self, kind: str) -> None:
        self.refused(504, kind, "in time", timeout=1)  # microsecond
        self.agrees(self.infer(kind, timeout=PATIENCE * 1_000_000), 1)

    def check_priority(self, kind: str) -> None:
        for priority in (1, 2, 3):
            self.agrees(self.infer(kind, priority=priority), 1)
        self.refused(422, kind, "priority is 4", priority=4)

    def check_sequences_are_refused(self, kind: str) -> None:
        self.refused(422, kind, "sequences are not supported", sequence_id=7, sequence_start=True)

    def check_parameters(self, kind: str) -> None:
        assert not self.infer(kind, parameters={"threshold": 1.0}).as_numpy("mask").any()
        height, width = self.masks.shape[1:]
        outside = self.infer(kind, parameters={"roi": f"0,0,{width // 2},{height}"}).as_numpy("probability")
        assert not outside[:, :, width // 2 + 1 :].any()
        self.refused(422, kind, "'colour'", parameters={"colour": "red"})

    def check_oversize(self, kind: str) -> None:
        large = np.zeros((1, 3400, 3400, 3), np.uint8)  # 33 MiB
        error = self.failure(kind, inputs=self.inputs(kind, large, "UINT8"))
        assert error.status() in ("413", "StatusCode.RESOURCE_EXHAUSTED"), error
        assert self.ask(kind, "is_server_ready") is True

    def check_shared_memory_is_refused(self, kind: str) -> None:
        tensor = KINDS[kind].InferInput("image", [1], "BYTES")
        tensor.set_shared_memory("region", 10)
        self.refused(422, kind, "'shared_memory_byte_size'", inputs=[tensor])

    def check_a_stream_of_50_frames(self, kind: str) -> None:
        answers = self.streamed(kind, [self.encoded[number % 4] for number in range(FRAMES)])
        assert [error for _, error in answers] == [None] * FRAMES, answers
        assert [result.get_response().id for result, _ in answers] == [str(number) for number in range(FRAMES)]
        for number, (result, _) in enumerate(answers):
            assert ((result.as_numpy("mask")[0] == 255) == self.masks[number % 4]).mean() > 0.99
            assert result.get_response().parameters["triton_final_response"].bool_param

    def check_a_bad_frame_of_a_stream_harms_no_other(self, kind: str) -> None:
        answers = self.streamed(kind, [self.encoded[0], b"no picture", self.encoded[1]])
        assert [error is None for _, error in answers] == [True, False, True]
        assert "not a supported image" in answers[1][1].message()

    def streamed(self, kind: str, pictures: list[bytes]) -> list:
        """Send pictures over one ModelStreamInfer; return a pair (result, error) for each answer."""
        requests = [
            {"model_name": "pranet", "inputs": self.encoded_inputs(kind, picture), "request_id": str(number)}
            for number, picture in enumerate(pictures)
        ]
        if kind == "grpc.aio":
            return self.use(kind, lambda client: _streamed(client, requests))
        answers: queue.Queue = queue.Queue()

        def stream(client: object) -> list:
            client.start_stream(lambda result, error: answers.put((result, error)))
            for request in requests:
                client.async_stream_infer(**request, enable_empty_final_response=True)
            return [answers.get(timeout=PATIENCE) for _ in requests]

        return self.use(kind, stream)

    def draining_is_live_but_not_ready(self, kind: str) -> None:
        assert self.ask(kind, "is_server_live") is True
        assert self.ask(kind, "is_server_ready") is False
        assert self.ask(kind, "is_model_ready", "pranet") is False

    def draining_refuses_work(self, kind: str) -> None:
        self.refused(503, kind, "shutting down")


async def _streamed(client: object, requests: list[dict]) -> list:
    async def sent() -> object:
        for request in requests:
            yield request

    return [answer async for answer in client.stream_infer(sent())]


def main() -> None:
    """Run every check with every client that has it."""
    http, grpc, pictures, phase = sys.argv[1:]
    checks = Checks(http, grpc, dict(np.load(pictures)))
    outcomes = {}
    for name in dir(checks):
        if not re.match(PHASES[phase], name):
            continue
        for kind in KINDS:
            if ("stream" in name and kind.startswith("http")) or ("json" in name and kind.startswith("grpc")):
                continue  # the protocol has none
            try:
                getattr(checks, name)(kind)
                outcomes[f"{name} {kind}"] = "passed"
            except Exception:
                outcomes[f"{name} {kind}"] = traceback.format_exc()
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
