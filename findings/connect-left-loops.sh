#!/usr/bin/env bash
# Leaving the loop over the answers of a stream, in connect-node, which speaks gRPC in Node, and in nice-grpc.
#
# Guess:   `break` in `for await (const answer of client.stream(frames()))` ends the call, as the end of any loop over
#          something that a program is done with: the server is told, and the generator of the frames is closed.
# Truth:   in nice-grpc it does. In connect-node nothing ends: its iterators of answers have no return(), by which a loop
#          tells that it was left. The call stays open, the generator goes on, and its messages are still sent. So it
#          is after an exception in the loop, too. Only aborting the `signal` that was given with the call ends it.
# Versions: @connectrpc/connect-node 2.1.2, @connectrpc/connect 2.1.2, @bufbuild/protobuf 2.17.0, nice-grpc 2.1.18,
#          grpcio 1.85.1, Node 20
# Matters: who leaves such a loop leaves a camera sending, a service segmenting its frames for nobody, and one of its
#          PRANET_MAX_STREAMS taken, until the answers that nobody reads fill what the network takes up and the service
#          gives such a client up. docs/grpc.md says what to write instead.
#
# Exit code 0: as described. 1: something changed. 2: Node or npm is not installed.
set -euo pipefail
command -v node npm > /dev/null || { echo "this needs Node and npm"; exit 2; }
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q grpcio==1.85.1
npm install --silent --no-audit --no-fund --prefix "$folder" @connectrpc/connect@2.1.2 @connectrpc/connect-node@2.1.2 \
    @bufbuild/protobuf@2.17.0 nice-grpc@2.1.18
cat > "$folder/server.py" <<'PYTHON'
import asyncio
import json

import grpc

seen = {"messages": 0, "open": 0}


async def stream(requests, context):
    seen["open"] += 1
    try:
        async for request in requests:
            seen["messages"] += 1
            yield request
    finally:
        seen["open"] -= 1


async def books(request, context):
    told = json.dumps(seen).encode()
    return bytes([10, len(told)]) + told


async def main():
    server = grpc.aio.server()
    handlers = {
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
        "Books": grpc.unary_unary_rpc_method_handler(books),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Frames", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
PYTHON
cat > "$folder/run.mjs" <<'JS'
import { createFileRegistry, fromJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient as createConnect } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createChannel, createClient as createNice } from "nice-grpc";

const address = `127.0.0.1:${process.argv[2]}`;
const method = (name, streams) => ({
  name, inputType: ".test.Text", outputType: ".test.Text", clientStreaming: streams, serverStreaming: streams,
});
const field = { name: "text", number: 1, type: "TYPE_STRING", label: "LABEL_OPTIONAL", jsonName: "text" };
const registry = createFileRegistry(fromJson(FileDescriptorSetSchema, { file: [{
  name: "test.proto", package: "test", syntax: "proto3",
  messageType: [{ name: "Text", field: [field] }],
  service: [{ name: "Frames", method: [method("Stream", true), method("Books", false)] }],
}] }));
const connect = createConnect(registry.getService("test.Frames"), createGrpcTransport({ baseUrl: `http://${address}` }));
const call = (path, streams) => ({
  path, requestStream: streams, responseStream: streams, options: {},
  requestSerialize: ({ text }) => Buffer.from([10, text.length, ...Buffer.from(text)]), requestDeserialize: (it) => it,
  responseSerialize: (it) => it, responseDeserialize: (it) => it,
});
const nice = createNice({ stream: call("/test.Frames/Stream", true) }, createChannel(address));
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const books = async () => JSON.parse((await connect.books({ text: "" })).text);

async function left(name, stream, leave) {
  const before = await books();
  let closed = false;
  const ending = new AbortController();
  async function* frames() {
    try {
      for (;;) { yield { text: "frame" }; await pause(20); }
    } finally { closed = true; }
  }
  try {
    for await (const _ of stream(frames(), { signal: ending.signal })) { leave(ending); break; }
  } catch (error) { if (error.message !== "of the loop" && !ending.signal.aborted) throw error; }
  await pause(1000);
  const middle = await books();
  await pause(1000);
  const after = await books();
  const told = { open: after.open > before.open, sends: after.messages > middle.messages, closed };
  console.log(`${name}: ${JSON.stringify(told)}`);
  ending.abort();
  await pause(500);
  return JSON.stringify(told);
}

const fails = () => { throw new Error("of the loop"); };
const [goesOn, ended] = [{ open: true, sends: true, closed: false }, { open: false, sends: false, closed: true }];
const asDescribed = [
  await left("connect-node, break", connect.stream, () => {}) === JSON.stringify(goesOn),
  await left("connect-node, exception", connect.stream, fails) === JSON.stringify(goesOn),
  await left("connect-node, abort", connect.stream, (ending) => ending.abort()) === JSON.stringify(ended),
  await left("nice-grpc, break", nice.stream, () => {}) === JSON.stringify(ended),
];
process.exit(asDescribed.every(Boolean) ? 0 : 1);
JS
coproc "$folder/venv/bin/python" "$folder/server.py"
read -r port <&"${COPROC[0]}"
echo "Node $(node --version)"
cd "$folder"
node run.mjs "$port"
