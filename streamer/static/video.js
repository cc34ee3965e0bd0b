// One live picture: MJPEG at once, then H.264 through Media Source where a recorder delivers it; chosen by itself.
// iPhones have ManagedMediaSource only (https://www.w3.org/TR/media-source-2/#managedmediasource-interface).

import { h } from "./dom.js";
import { socket } from "./api.js";

const Source = window.ManagedMediaSource ?? window.MediaSource;
const BEHIND_S = 1.2; // further behind the live edge than this: jump
const KEPT_S = 10; // seconds of played video the browser keeps
const SILENT_MS = 6000; // no data for so long: the recorder is away
const RETRY_MS = 15000; // H.264 is tried again this often while MJPEG plays

export class Video {
  /**
   * @param camera name; @param mode "auto", "h264" or "mjpeg"; @param width of the MJPEG picture, 0: as captured; @param long shows the long exposure, as MJPEG
   * @param snapshots in turn instead of a stream of MJPEG; null: a stream
   */
  constructor(camera, mode = "auto", width = 0, long = false, snapshots = null) {
    this.snapshots = snapshots;
    this.camera = camera;
    this.mode = long ? "mjpeg" : mode;
    this.long = long;
    this.width = width;
    this.kind = "";
    this.video = h("video", { muted: true, playsinline: true, disableremoteplayback: true, autoplay: true, hidden: true, "aria-label": `Live picture of ${camera}` });
    this.image = h("img", { alt: `Live picture of ${camera}`, hidden: true });
    this.element = h("div", { class: "screen" }, this.video, this.image);
    this.queue = [];
    this.ended = false;
    this.silentMs = SILENT_MS;
    this.timers = {};
    this.image.addEventListener("error", () => this.later("image", () => this.startMjpeg(), 2000));
    this.image.addEventListener("load", () => this.shaped(this.image.naturalWidth, this.image.naturalHeight));
    this.video.addEventListener("loadedmetadata", () => this.shaped(this.video.videoWidth, this.video.videoHeight));
    this.video.addEventListener("playing", () => this.shown("h264"));
  }

  /** How long one exposure takes: at night it may be seconds until there is anything to send. */
  exposes(ms) { this.silentMs = Math.max(SILENT_MS, 3 * ms); }

  start() {
    this.ended = false;
    const films = this.mode !== "mjpeg" && Boolean(Source);
    if (this.mode !== "h264" || !films) this.startMjpeg(); // a recorder may need seconds to begin, or not be there
    if (films) this.startH264();
  }

  stop() {
    this.ended = true;
    Object.values(this.timers).forEach(clearTimeout);
    this.closeH264();
    this.endImage();
    this.kind = "";
  }

  shown(kind) {
    this.kind = kind;
    this.video.hidden = kind !== "h264";
    this.image.hidden = kind !== "mjpeg";
    if (kind === "h264") this.endImage();
    this.element.dataset.kind = kind;
  }

  endImage() {
    this.snapshots?.remove(this.image);
    this.image.removeAttribute("src"); // else the browser keeps the stream open
  }

  shaped(width, height) {
    if (width && height) this.element.style.aspectRatio = `${width} / ${height}`;
  }

  later(what, work, ms) {
    clearTimeout(this.timers[what]);
    if (!this.ended) this.timers[what] = setTimeout(work, ms);
  }

  // ---- MJPEG

  startMjpeg() {
    if (this.ended || this.kind === "h264") return;
    this.shown("mjpeg");
    const width = this.width ? `&width=${this.width}` : "";
    const exposure = this.long ? "&exposure=long" : "";
    if (this.snapshots) this.snapshots.add(this.image, `cam/${this.camera}/snapshot.jpg?t=0${width}${exposure}`);
    else this.image.src = `cam/${this.camera}/stream?advance_headers=1${width}${exposure}&t=${Date.now()}`;
  }

  // ---- H.264

  startH264() {
    if (this.ended || document.hidden && this.kind) return this.later("film", () => this.startH264(), RETRY_MS);
    this.closeH264();
    const link = socket(`ws/live?cam=${this.camera}`);
    link.binaryType = "arraybuffer";
    this.link = link;
    clearInterval(this.watch);
    this.heard = Date.now();
    this.watch = setInterval(() => this.link === link && Date.now() - this.heard > this.silentMs && this.fallBack(), 1000);
    link.onmessage = ({ data }) => {
      this.heard = Date.now();
      if (typeof data === "string") this.open(JSON.parse(data));
      else this.append(data);
    };
    link.onclose = () => this.link === link && this.fallBack();
  }

  open(film) {
    if (!Source.isTypeSupported(film.mime)) return this.fallBack();
    this.queue = [];
    this.source = new Source();
    URL.revokeObjectURL(this.video.src);
    this.video.src = URL.createObjectURL(this.source);
    this.buffer = null;
    const source = this.source;
    source.addEventListener("sourceopen", () => {
      if (source !== this.source) return;
      this.buffer = source.addSourceBuffer(film.mime);
      this.buffer.addEventListener("updateend", () => this.feed());
      this.feed();
    }, { once: true });
    this.video.onerror = () => this.fallBack();
  }

  append(data) {
    this.queue.push(data);
    this.feed();
  }

  feed() {
    const buffer = this.buffer;
    if (!buffer || buffer.updating || this.source.readyState !== "open") return;
    const ranges = this.video.buffered;
    if (ranges.length) {
      const edge = ranges.end(ranges.length - 1);
      const behind = edge - this.video.currentTime;
      if (behind > BEHIND_S || this.video.currentTime < ranges.start(ranges.length - 1)) this.video.currentTime = Math.max(edge - 0.1, ranges.start(ranges.length - 1));
      if (edge - ranges.start(0) > 2 * KEPT_S) return buffer.remove(0, edge - KEPT_S);
    }
    const next = this.queue.shift();
    if (!next) return;
    try { buffer.appendBuffer(next); } catch { this.fallBack(); }
    if (this.video.paused && !this.ended) this.video.play().catch(() => {});
  }

  /** No H.264, or no more: MJPEG meanwhile, unless only H.264 is wanted; then try again. */
  fallBack() {
    this.closeH264();
    if (this.kind === "h264") this.kind = "";
    if (this.mode !== "h264" && !this.kind) this.startMjpeg();
    this.later("film", () => this.startH264(), this.mode === "h264" ? 2000 : RETRY_MS);
  }

  closeH264() {
    clearInterval(this.watch);
    const link = this.link;
    this.link = null;
    link?.close();
    this.source = this.buffer = null;
    this.queue = [];
    if (this.video.src) { URL.revokeObjectURL(this.video.src); this.video.onerror = null; this.video.removeAttribute("src"); this.video.load(); }
  }
}
