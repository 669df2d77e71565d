// Streams 100 frames under EVERY and counts the answers: npm install && node stream.mjs HOST:PORT PICTURE
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const FRAMES = 100;
const [target, picture] = process.argv.slice(2);
const root = fileURLToPath(new URL("../../../proto", import.meta.url));
const definition = loader.loadSync("pranet/v1/segmentation.proto", { includeDirs: [root], longs: Number });
const { SegmentationService } = grpc.loadPackageDefinition(definition).pranet.v1;

const call = new SegmentationService(target, grpc.credentials.createInsecure()).SegmentStream();
const answers = [];
call.on("data", (answer) => answers.push(answer));
call.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
call.on("end", () => {
  const inOrder = answers.every((answer, number) => Number(answer.frameId ?? 0) === number);
  const masks = answers.filter((answer) => answer.mask).length;
  console.log(`${answers.length} answers, ${masks} masks, order ${inOrder ? "kept" : "BROKEN"}`);
  process.exit(masks === FRAMES && inOrder ? 0 : 1);
});
const image = readFileSync(picture);
call.write({ config: { policy: "POLICY_EVERY" } });
for (let number = 0; number < FRAMES; number += 1) call.write({ frame: { frameId: number, image } });
call.end();
