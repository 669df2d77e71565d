// Playing <video> elements of a file or the camera; an abort of the signal ends them and frees what they hold.

const CAMERA_FAULTS = {
  NotAllowedError: "The browser does not allow the camera: allow it beside the address, then press Camera again.",
  NotFoundError: "No camera was found: connect one, then press Camera again.",
  NotReadableError: "The camera cannot be read: close the program that uses it, then press Camera again.",
};
const UNPLAYABLE =
  "This browser cannot play the video: it is damaged, or not H.264 or VP9; copy or convert it, or use pranet stream.";

/** Return a playing video, or undefined if the signal aborted. Throws an Error with a sentence. */
export async function fromFile(file, signal) {
  const video = document.createElement("video");
  video.src = URL.createObjectURL(file);
  video.loop = true;
  signal.addEventListener("abort", () => URL.revokeObjectURL(video.src));
  return playing(video, signal);
}

/** Return the playing camera, or undefined if the signal aborted. Throws an Error with a sentence. */
export async function fromCamera(signal) {
  // A smaller size, or one of another shape, is made by cropping in some browsers.
  const wanted = { video: { width: 1920, frameRate: 30, resizeMode: "none", facingMode: "environment" } };
  const media = await navigator.mediaDevices.getUserMedia(wanted).catch((error) => {
    throw CAMERA_FAULTS[error.name] ? new Error(CAMERA_FAULTS[error.name]) : error;
  });
  const release = () => media.getTracks().forEach((track) => track.stop());
  if (signal.aborted) return release();
  signal.addEventListener("abort", release);
  const video = document.createElement("video");
  video.srcObject = media;
  return playing(video, signal);
}

async function playing(video, signal) {
  video.muted = video.playsInline = true;
  signal.addEventListener("abort", () => video.pause());
  try {
    await video.play();
  } catch {
    if (signal.aborted) return undefined;
    throw new Error(UNPLAYABLE);
  }
  if (signal.aborted) return undefined;
  if (!video.srcObject && !video.videoWidth) { // of a file whose pictures it cannot decode, a browser plays the sound
    video.pause();
    throw new Error(UNPLAYABLE);
  }
  return video;
}
