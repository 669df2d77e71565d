"""KServe's own inference clients, with their defaults, against a running service; writes the masks they get.

Runs in an environment of its own, because kserve needs other versions than the service:

    checks.py HTTP_URL GRPC_ADDRESS PICTURES.npz ANSWERS.npz
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

MODEL = "pranet"


def array(pixels: np.ndarray, binary: bool = True) -> InferInput:
    made = InferInput("image", list(pixels.shape), "UINT8")
    made.set_data_from_numpy(pixels, binary_data=binary)
    return made


def picture(content: bytes) -> InferInput:
    made = InferInput("image", [1], "BYTES")
    made.set_data_from_numpy(np.array([content, None], object)[:-1])
    return made


def requests(pixels: np.ndarray, content: bytes) -> dict[str, InferRequest]:
    """Return requests by their names."""
    whole = [RequestedOutput("mask"), RequestedOutput("probability")]
    binary = {"binary_data_output": True}
    return {
        "array": InferRequest(MODEL, [array(pixels)]),
        "array_as_list": InferRequest(MODEL, [array(pixels, binary=False)]),
        "array_to_binary": InferRequest(MODEL, [array(pixels)], parameters=binary),
        "picture": InferRequest(MODEL, [picture(content)]),
        "picture_to_binary": InferRequest(MODEL, [picture(content)], parameters=binary, request_id="7"),
        "outputs": InferRequest(MODEL, [picture(content)], request_outputs=whole),
    }


def values(outputs: list[InferOutput]) -> np.ndarray:
    (mask,) = [each for each in outputs if each.name == "mask"]
    return mask.as_numpy()


async def by_rest(url: str, asked: dict[str, InferRequest]) -> dict[str, np.ndarray]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, MODEL) is True
    answers = {name: await client.infer(url, request, model_name=MODEL) for name, request in asked.items()}
    await client.close()
    return {f"rest {name}": values(answer.outputs) for name, answer in answers.items()}


async def by_grpc(address: str, asked: dict[str, InferRequest]) -> dict[str, np.ndarray]:
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live() is True
        assert await client.is_server_ready() is True
        assert await client.is_model_ready(MODEL) is True
        answers = {name: await client.infer(request) for name, request in asked.items()}
    return {f"grpc {name}": values(answer.outputs) for name, answer in answers.items()}


async def main(url: str, address: str, pictures: str, answers: str) -> None:
    given = dict(np.load(pictures))
    content = given["encoded"].tobytes()
    masks = await by_rest(url, requests(given["pixels"], content))
    masks |= await by_grpc(address, requests(given["pixels"], content))
    np.savez(answers, **masks)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
