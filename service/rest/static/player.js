// The controls of a video file: pause, one frame back or forward, seek, and when a polyp was first seen.

const FRAME_SECONDS = 1 / 30; // browsers do not tell a video's rate

export class Player {
  constructor({ bar, pause, back, forward, seek, time, first }) {
    Object.assign(this, { bar, pauseButton: pause, seekBar: seek, timeText: time, firstText: first });
    pause.addEventListener("click", () => (this.video.paused ? this.video.play() : this.video.pause()));
    back.addEventListener("click", () => this.step(-FRAME_SECONDS));
    forward.addEventListener("click", () => this.step(FRAME_SECONDS));
    seek.addEventListener("input", () => (this.video.currentTime = Number(seek.value)));
  }

  /** Control a video until the signal aborts; a camera has no controls. */
  open(video, signal) {
    this.video = video;
    this.firstText.textContent = "";
    this.began = null;
    this.earliest = Infinity; // seconds
    this.bar.hidden = !Number.isFinite(video.duration);
    if (this.bar.hidden) return;
    this.seekBar.max = video.duration;
    for (const kind of ["play", "pause", "timeupdate", "seeked"]) video.addEventListener(kind, () => this.show(), { signal });
    signal.addEventListener("abort", () => (this.bar.hidden = true));
    this.show();
  }

  step(seconds) {
    this.video.pause();
    this.video.currentTime = Math.min(this.video.duration, Math.max(0, this.video.currentTime + seconds));
  }

  show() {
    const { currentTime, duration, paused } = this.video;
    this.pauseButton.textContent = paused ? "Play" : "Pause";
    this.seekBar.value = currentTime;
    this.seekBar.ariaValueText = `${currentTime.toFixed(1)} of ${duration.toFixed(1)} seconds`;
    this.timeText.textContent = `${currentTime.toFixed(1)} / ${duration.toFixed(1)} s`;
  }

  /** Note the time in the source (seconds) of an answered frame, and whether it shows a polyp. */
  saw(polyp, time) {
    this.began ??= this.bar.hidden ? time : 0; // of a camera the time since its first answer
    if (!polyp || time - this.began >= this.earliest) return;
    this.earliest = time - this.began;
    this.firstText.textContent = this.earliest.toFixed(1);
  }
}
