// One live picture: MJPEG at once, then H.264 where a recorder delivers it: by WebRTC, else through Media Source; chosen by itself.
// iPhones have ManagedMediaSource only (https://www.w3.org/TR/media-source-2/#managedmediasource-interface).

import { h } from "./dom.js";
import { answerTo, leave, socket } from "./api.js";

const Source = window.ManagedMediaSource ?? window.MediaSource;
const BEHIND_S = 0.5; // further behind the live edge than this: jump
const RESERVE_S = 0.03; // what may wait in the browser: less stalls, and each stall adds delay
const STEER_MS = 100;
const FASTER = 1.3; // at most, while it catches up
const KEPT_S = 10; // seconds of played video the browser keeps
const WAITING_BYTES = 24 * 1024 * 1024; // what may wait for the decoder; a group of pictures, which comes at once, has 8 MiB at most
const SILENT_MS = 6000; // no data for so long: the recorder is away
const RETRY_MS = 15000; // H.264 is tried again this often while MJPEG plays

/** Whether this browser shows H.264 by WebRTC. Firefox does not until it has fetched its decoder from elsewhere. */
function takesWebRtc() {
  const codecs = window.RTCRtpReceiver?.getCapabilities?.("video")?.codecs;
  return Boolean(window.RTCPeerConnection) && (!codecs || codecs.some(({ mimeType }) => /h264/i.test(mimeType)));
}

export class Video {
  /**
   * @param camera name; @param mode "auto", "webrtc", "h264" or "mjpeg"; @param webrtc whether "auto" tries WebRTC; @param width of the MJPEG picture, 0: as captured; @param long shows the long exposure, as MJPEG
   * @param snapshots in turn instead of a stream of MJPEG; null: a stream
   */
  constructor(camera, mode = "auto", width = 0, long = false, snapshots = null, webrtc = false) {
    this.snapshots = snapshots;
    this.camera = camera;
    this.mode = long ? "mjpeg" : mode;
    this.webrtc = takesWebRtc() && "requestVideoFrameCallback" in HTMLVideoElement.prototype && (mode === "webrtc" || webrtc && mode === "auto");
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
    this.reserves = []; // seconds that waited in the browser, over the last second
    this.age = null; // of the newest fragment when it was sent
    this.image.addEventListener("error", () => this.later("image", () => this.startMjpeg(), 2000));
    this.image.addEventListener("load", () => this.shaped(this.image.naturalWidth, this.image.naturalHeight));
    this.video.addEventListener("loadedmetadata", () => this.shaped(this.video.videoWidth, this.video.videoHeight));
    this.video.addEventListener("playing", () => this.shown(this.peer ? "webrtc" : "h264"));
    this.video.addEventListener("error", () => { if (this.source) this.fallBack(); });
  }

  /** How long one exposure takes: at night it may be seconds until there is anything to send. */
  exposes(ms) { this.silentMs = Math.max(SILENT_MS, 3 * ms); }

  start() {
    this.ended = false;
    const films = this.mode !== "mjpeg" && Boolean(this.webrtc || Source);
    if (["auto", "mjpeg"].includes(this.mode) || !films) this.startMjpeg(); // a recorder may need seconds to begin, or not be there
    if (films) this.startFilm();
  }

  /** Whether it is H.264 that is shown. */
  get isFilm() { return this.kind === "h264" || this.kind === "webrtc"; }

  /** How old the picture on the screen is, seconds; null: unknown. */
  get age_s() { return this.isFilm && this.age !== null && this.reserves.length ? this.age + this.reserves.at(-1) : null; }

  /** Keeps H.264 near the live edge: a little faster while too much waits in the browser, a jump where it is far behind. */
  steer() {
    const { video } = this;
    const ranges = video.buffered;
    if (!ranges.length || video.paused || document.hidden) return;
    const last = ranges.length - 1, edge = ranges.end(last), behind = edge - video.currentTime;
    if (behind > BEHIND_S || video.currentTime < ranges.start(last)) {
      video.currentTime = Math.max(edge - RESERVE_S, ranges.start(last));
      this.reserves = [];
      return;
    }
    this.reserves.push(behind);
    if (this.reserves.length > 1000 / STEER_MS) this.reserves.shift();
    const excess = Math.min(...this.reserves) - RESERVE_S; // between two frames it falls by a frame's time
    video.playbackRate = excess > 0.015 ? Math.min(FASTER, 1.05 + 2 * excess) : 1;
  }

  stop() {
    this.ended = true;
    Object.values(this.timers).forEach(clearTimeout);
    this.closeFilm();
    this.endImage();
    this.kind = "";
  }

  shown(kind) {
    this.kind = kind;
    this.video.hidden = !this.isFilm;
    this.image.hidden = kind !== "mjpeg";
    if (this.isFilm) this.endImage();
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
    if (this.ended || this.isFilm) return;
    this.shown("mjpeg");
    const width = this.width ? `&width=${this.width}` : "";
    const exposure = this.long ? "&exposure=long" : "";
    if (this.snapshots) this.snapshots.add(this.image, `cam/${this.camera}/snapshot.jpg?t=0${width}${exposure}`);
    else this.image.src = `cam/${this.camera}/stream?advance_headers=1${width}${exposure}&t=${Date.now()}`;
  }

  // ---- H.264

  startFilm() {
    if (this.ended || document.hidden && this.kind) return this.later("film", () => this.startFilm(), RETRY_MS);
    this.closeFilm();
    if (this.webrtc || !Source) this.startWebRtc(); else this.startH264();
  }

  startH264() {
    const link = socket(`ws/live?cam=${this.camera}`);
    link.binaryType = "arraybuffer";
    this.link = link;
    clearInterval(this.watch);
    this.heard = Date.now();
    this.watch = setInterval(() => {
      if (document.hidden) this.heard = Date.now(); // no frame is shown then, so none is heard of
      if (this.link !== link) return;
      if (Date.now() - this.heard > this.silentMs) this.fallBack(); else this.steer();
    }, STEER_MS);
    link.addEventListener("message", ({ data }) => {
      if (typeof data !== "string" && !this.source) return; // nothing can be shown before its description
      this.heard = Date.now();
      if (typeof data !== "string") return this.append(data);
      const message = JSON.parse(data);
      if (message.type === "age") this.age = message.age_s; else this.open(message);
    });
    link.addEventListener("close", () => { if (this.link === link) this.fallBack(); });
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
  }

  append(data) {
    this.queue.push(data);
    if (this.queue.reduce((bytes, one) => bytes + one.byteLength, 0) > WAITING_BYTES) return this.fallBack();
    this.feed();
  }

  feed() {
    const buffer = this.buffer;
    if (!buffer || buffer.updating || this.source.readyState !== "open") return;
    const ranges = this.video.buffered;
    if (ranges.length) {
      const edge = ranges.end(ranges.length - 1);
      if (edge - ranges.start(0) > 2 * KEPT_S) return buffer.remove(0, edge - KEPT_S);
    }
    const next = this.queue.shift();
    if (!next) return;
    try { buffer.appendBuffer(next); } catch { this.fallBack(); }
    if (this.video.paused && !this.ended) this.video.play().catch(() => {});
  }

  // ---- H.264 by WebRTC (WHEP)

  async startWebRtc() {
    const peer = this.peer = new RTCPeerConnection();
    const { receiver } = peer.addTransceiver("video", { direction: "recvonly" });
    receiver.jitterBufferTarget = 0; // milliseconds that wait in the browser
    this.video.srcObject = new MediaStream([receiver.track]);
    peer.addEventListener("connectionstatechange", () => {
      if (peer !== this.peer) return;
      this.heard = Date.now();
      if (["failed", "disconnected"].includes(peer.connectionState)) this.fallBack();
    });
    this.heard = Date.now();
    this.watch = setInterval(() => {
      const begins = this.kind !== "webrtc" && peer.connectionState === "connected"; // a busy machine may need a while for the first picture
      if (Date.now() - this.heard > (begins ? 2 : 1) * this.silentMs) this.fallBack();
    }, 1000);
    this.hear(peer);
    try {
      await peer.setLocalDescription();
      const { sdp, session } = await answerTo(`cam/${this.camera}/whep`, peer.localDescription.sdp);
      if (peer !== this.peer) return leave(session);
      this.session = session;
      await peer.setRemoteDescription({ type: "answer", sdp });
      await this.video.play();
    } catch { if (peer === this.peer) this.fallBack(); }
  }

  /** Notes each frame that is shown, and how long it was in the browser. */
  hear(peer) {
    this.video.requestVideoFrameCallback((_, frame) => {
      if (peer !== this.peer) return;
      this.heard = Date.now();
      if (frame.receiveTime) this.reserves = [Math.max(0, frame.expectedDisplayTime - frame.receiveTime) / 1000];
      this.hear(peer);
    });
  }

  /** No H.264, or no more: after WebRTC the way through TCP, else MJPEG meanwhile, unless only H.264 is wanted; then try again. */
  fallBack() {
    const lost = this.kind === "webrtc", unseen = this.peer && !lost && Source;
    this.closeFilm();
    if (this.isFilm) this.kind = "";
    if (this.mode === "auto") {
      if (!this.kind) this.startMjpeg();
      if (unseen) this.webrtc = false; // this network does not let it through
    }
    this.later("film", () => this.startFilm(), this.mode !== "auto" || lost ? 2000 : unseen ? 0 : RETRY_MS);
  }

  closeFilm() {
    clearInterval(this.watch);
    const { link, peer, session } = this;
    this.link = this.peer = this.session = null;
    link?.close();
    if (session) leave(session).finally(() => peer?.close()); else peer?.close(); // the server forgets a closed one by itself: 404
    this.video.srcObject = null;
    this.source = this.buffer = null;
    this.queue = [];
    this.reserves = [];
    this.age = null;
    if (this.video.src) { URL.revokeObjectURL(this.video.src); this.video.removeAttribute("src"); this.video.load(); }
  }
}
