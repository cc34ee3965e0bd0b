// Tab Live: the picture, what to do with it, and what is known about it.

import { get, post } from "./api.js";
import { cameraBadges, fullness, room } from "./badges.js";
import { ControlsCard } from "./controls.js";
import { clock, fill, h, length, size, toast } from "./dom.js";
import { Snapshots } from "./snapshots.js";
import { recall, remember } from "./storage.js";
import { Video } from "./video.js";
import { Zoom } from "./zoom.js";

const MODES = ["auto", "webrtc", "h264", "mjpeg"];
const STREAMS_MAX = 3; // streams of MJPEG at once: each takes one of the browser's six connections
const MODE_NAMES = { auto: "Automatic", webrtc: "WebRTC", h264: "H.264", mjpeg: "MJPEG" };

export class LiveTab {
  constructor(page) {
    this.page = page;
    this.stage = h("div", {});
    this.screens = [];
    this.inGrid = false;
    this.watching = true;
    this.long = false;
    this.mode = recall("mode") ?? "auto";
    this.recordButton = this.button("Record", "R", () => this.record(), "changes");
    this.recordNote = h("p", { class: "soft", role: "status", hidden: true });
    this.all = [this.recordAll = this.button("Record all", "r", () => page.recorders.toggleAll(), "changes"), this.button("Snapshot all", "s", () => page.snapshot(), "changes")];
    this.modeSelect = h("select", { "aria-label": "How the picture comes", onchange: (event) => this.setMode(event.target.value) },
      MODES.map((mode) => h("option", { value: mode }, MODE_NAMES[mode])));
    this.modeSelect.value = this.mode;
    this.figures = h("dl", { class: "figures" });
    this.meter = h("div", {});
    this.system = h("div", {});
    this.events = h("ul", { class: "events", tabindex: 0, "aria-label": "Events" });
    this.controls = new ControlsCard(page);
    const actions = h("div", { class: "actions" },
      this.recordButton,
      this.saveButton = this.button("Save", "S", () => page.save(), "primary changes"),
      this.button("Past stack", "p", () => page.stack(), "changes"),
      ...this.all,
      h("span", { class: "space" }),
      this.longButton = this.button("Long exposure", "x", () => this.toggleLong()),
      this.gridButton = this.button("Grid", "g", () => this.grid()),
      this.button("Full", "f", () => this.full()),
      this.quitButton = this.button("Stop watching", "q", () => this.quit()),
      this.modeSelect);
    const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), ...content);
    this.element = h("div", { class: "live" },
      h("div", {}, this.stage, actions, this.recordNote),
      h("aside", { class: "side" },
        card("Brightness", this.meter), card("Newest frame", this.figures), this.controls.element, card("Machine", this.system), card("Events", this.events)));
  }

  button(text, key, onclick, kind = "") {
    return h("button", { class: kind, onclick, "data-key": key }, h("span", {}, text), h("kbd", {}, key));
  }

  open() {
    this.build();
    this.onVisible = () => this.visible();
    document.addEventListener("visibilitychange", this.onVisible);
    this.aging = setInterval(() => this.showAges(), 250);
  }

  close() { clearInterval(this.aging); this.screens.forEach((screen) => screen.stop()); document.removeEventListener("visibilitychange", this.onVisible); }
  chosen() { this.inGrid = false; this.build(); this.controls.load(); }

  /** A hidden page needs no pictures: a phone in a pocket should not cost the camera anything. */
  visible() {
    if (document.hidden) this.hiding = setTimeout(() => this.screens.forEach((screen) => screen.stop()), 5000);
    else { clearTimeout(this.hiding); this.screens.forEach((screen) => { if (!screen.kind && this.watching) screen.start(); }); }
  }

  build() {
    this.screens.forEach((screen) => screen.stop());
    const names = this.page.over?.cameras.map((camera) => camera.name) ?? [this.page.camera];
    const shown = this.inGrid ? names : [this.page.camera || names[0]];
    const snapshots = shown.length > STREAMS_MAX ? new Snapshots() : null;
    this.screens = shown.map((name) => new Video(name, this.mode, this.inGrid ? 640 : 0, this.long, snapshots, !this.inGrid && this.page.over?.no_webrtc === "")); // in a grid the delay matters less than the work
    for (const screen of this.screens) {
      screen.over = h("div", { class: "over" });
      screen.ageBadge = h("span", { class: "badge plain", hidden: true, title: "Time from the capture of this frame until it stands here" });
      screen.notice = h("div", { class: "notice", hidden: true });
      screen.element.append(h("div", { class: "lower" }, screen.over, screen.ageBadge), screen.notice);
      if (!this.inGrid) screen.zoom = new Zoom(screen.element, (step) => this.page.turn(step));
    }
    if (this.inGrid) {
      this.stage.replaceChildren(h("div", { class: "grid" }, this.screens.map((screen) => {
        Object.assign(screen.element, { tabIndex: 0, role: "button", ariaLabel: `Show ${screen.camera}` });
        screen.element.addEventListener("click", () => this.page.choose(screen.camera));
        screen.element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.page.choose(screen.camera); } });
        screen.caption = h("span", {});
        return h("figure", {}, screen.element, h("figcaption", {}, h("b", {}, screen.camera), screen.caption));
      })));
    } else this.stage.replaceChildren(this.screens[0].element);
    for (const button of [this.gridButton, ...this.all]) button.hidden = names.length < 2;
    for (const button of [this.recordButton, this.saveButton]) button.lastChild.textContent = names.length < 2 ? button.dataset.key.toLowerCase() : button.dataset.key;
    this.gridButton.setAttribute("aria-pressed", String(this.inGrid));
    if (this.watching) this.screens.forEach((screen) => screen.start());
    if (this.page.over) this.update(this.page.over);
  }

  grid() { this.inGrid = !this.inGrid; this.build(); }
  full() { const element = this.inGrid ? this.stage : this.screens[0].element; document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen?.(); }
  quit() { this.watching = !this.watching; this.quitButton.firstChild.textContent = this.watching ? "Stop watching" : "Watch"; this.build(); }
  zoom(factor) { const { zoom } = this.screens[0]; if (zoom) factor ? zoom.by(factor) : zoom.reset(); }
  key(name) { return Boolean(this.screens[0]?.zoom?.key(name)); }

  showAges() {
    for (const screen of this.screens) {
      const { age_s } = screen;
      screen.ageBadge.hidden = age_s === null;
      if (age_s !== null) screen.ageBadge.textContent = `${age_s.toFixed(2)} s old`;
    }
  }

  /** One that is off can still be pressed: a disabled button could tell the keyboard no reason. */
  toggleLong() {
    const reason = this.page.over ? front(this.page).no_long_exposure : "";
    if (reason && !this.long) return toast(`No long exposure: ${reason}`, true);
    this.long = !this.long;
    this.build();
  }

  nextMode() { this.setMode(MODES[(MODES.indexOf(this.mode) + 1) % MODES.length]); }
  setMode(mode) { this.mode = this.modeSelect.value = mode; remember("mode", mode); this.build(); }

  record() { this.page.recorders.toggle(this.page.camera); }

  showRecorder(camera, over) {
    const now = this.page.recorders.of(camera.name);
    const button = this.recordButton;
    button.dataset.state = now.state;
    button.classList.toggle("recording", now.state === "recording");
    button.firstChild.textContent = now.button;
    button.setAttribute("aria-pressed", String(now.state === "recording"));
    button.setAttribute("aria-disabled", String(Boolean(now.busy || now.away)));
    button.title = now.note ?? "";
    this.recordNote.hidden = !["waiting", "away", "armed", "recording"].includes(now.state);
    this.recordNote.textContent = `${now.badge ?? "Recording is not possible"}: ${now.note}`;
    const any = over.cameras.some(({ name }) => ["recording", "waiting"].includes(this.page.recorders.of(name).state));
    this.recordAll.firstChild.textContent = any ? "Stop all" : "Record all";
  }

  update(over) {
    const camera = front(this.page);
    for (const screen of this.screens) this.overlay(screen, over.cameras.find((one) => one.name === screen.camera), over);
    const recording = over.recordings[camera.name];
    this.showRecorder(camera, over);
    this.longButton.setAttribute("aria-pressed", String(this.long));
    this.longButton.setAttribute("aria-disabled", String(Boolean(camera.no_long_exposure) && !this.long));
    this.longButton.title = camera.no_long_exposure || "The last seconds as one picture";
    this.showMeter(over.nights[camera.name], camera);
    this.showFigures(camera, recording);
    this.showMachine(over);
    if (over.last_event !== this.lastEvent) { this.lastEvent = over.last_event; this.showEvents(); }
  }

  /** The server is away: what stands there is old. */
  offline() {
    for (const screen of this.screens) {
      fill(screen.over);
      screen.notice.hidden = false;
      fill(screen.notice, h("b", {}, "No connection"), h("span", {}, "trying again"));
    }
  }

  overlay(screen, camera, over) {
    if (!camera) return;
    screen.exposes((camera.frame?.exposure_us ?? 0) / 1000);
    if (screen.kind === "webrtc") screen.age = camera.h264_age_s;
    const stale = !camera.live && this.watching;
    screen.element.classList.toggle("stale", stale && screen.isFilm);
    const alone = this.inGrid || document.fullscreenElement; // else the top of the page says it
    fill(screen.over, ...(alone ? cameraBadges(camera, this.page).slice(0, 2) : []), screen.kind && h("span", { class: "badge plain" }, screen.long ? "Long exposure" : MODE_NAMES[screen.kind] ?? ""));
    const said = notice(this.watching, stale, screen, camera, over.no_webrtc);
    screen.notice.hidden = !said;
    if (said) fill(screen.notice, h("b", {}, said[0]), h("span", {}, said[1]));
    if (screen.caption) screen.caption.textContent = `${camera.width}×${camera.height} · ${camera.fps.toFixed(camera.fps < 10 ? 1 : 0)} fps`;
  }

  showMeter(night, camera) {
    if (!night) return fill(this.meter, h("p", { class: "soft" }, camera.live ? "No analyzer runs." : "No picture comes."));
    const at = (value) => `left:${Math.max(0, Math.min(100, (value / 255) * 100)).toFixed(1)}%`;
    const mark = (value, name) => h("span", { class: "mark", "data-name": name, "data-at": at(value) });
    fill(this.meter,
      h("div", { class: "meter" }, h("span", { class: "scale" }), mark(night.dark_threshold, `night ${night.dark_threshold}`),
        mark(night.bright_threshold, `day ${night.bright_threshold}`), h("span", { class: "level", "data-at": at(night.level) })),
      h("p", { class: "soft" }, `${night.night ? "Night" : "Day"}: scene brightness ${night.level.toFixed(0)} of 255, which decides; mean luma of this frame ${night.dark_score.toFixed(0)}${night.forced ? ", set by hand" : ""}${night.locked_s ? `, locked ${Math.round(night.locked_s)} s` : ""}`));
    for (const element of this.meter.querySelectorAll("[data-at]")) element.style.left = element.dataset.at.slice(5); // CSP allows no style attributes
  }

  showFigures(camera, recording) {
    const frame = camera.frame;
    const rows = [["Frame", frame?.frame_id ?? "–"], ["Size", `${camera.width}×${camera.height}`], ["Rate", `${camera.fps.toFixed(1)} fps`],
      ["Exposure", frame?.exposure_us ? `${(frame.exposure_us / 1000).toFixed(1)} ms` : "–"], ["Gain", frame?.analogue_gain?.toFixed(2) ?? "–"],
      ["Dropped", frame?.total_dropped ?? 0], ["Watching", camera.viewers]];
    if (recording?.state === "recording") rows.push(["File", recording.file], ["Recorded", `${recording.frames} frames`], ["Missing", recording.drops]);
    fill(this.figures, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
  }

  showMachine(over) {
    const disk = over.health.disk;
    const used = disk.total_bytes ? 1 - disk.free_bytes / disk.total_bytes : 0;
    const bar = (share, kind) => h("div", { class: `bar ${kind}` }, h("span", { "data-width": `${(share * 100).toFixed(1)}%` }));
    fill(this.system, h("div", {}, `CPU ${Math.round(over.cpu_percent)} %`), bar(over.cpu_percent / 100, over.cpu_percent > 95 ? "bad" : over.cpu_percent > 85 ? "warn" : ""), h("div", {}, `Disk: ${room(disk)}${disk.total_bytes ? ` of ${size(disk.total_bytes)}` : ""}`), bar(used, fullness(disk)), ...over.health.processes.filter(({ program }) => !CORE.test(program)).map(showProgram));
    for (const element of this.system.querySelectorAll("[data-width]")) element.style.width = element.dataset.width;
  }

  async showEvents() {
    const events = (await get("/events").catch(() => ({ events: [] }))).events.filter(({ event }) => event !== "progressed");
    fill(this.events, ...(events.length ? events.slice(-30).reverse().map((one) => h("li", {}, h("time", {}, clock(one.time_utc)), h("span", {}, told(one)))) : [h("li", { class: "soft" }, "Nothing yet")]));
  }
}

/** The programs that every service has; all others are optional ones, or the owner's own. */
const CORE = /^(capture|analyzer|exporter|recorder|streamer|watchdog)(-|$)/;

/** One line about an optional program: its counts, and what is wrong. */
function showProgram({ program, state, reason, figures }) {
  const counts = Object.entries(figures).filter(([, value]) => typeof value === "number").map(([name, value]) => `${value} ${name.replaceAll("_", " ")}`);
  const words = [state === "running" || state === "idle" ? counts.join(", ") : state, reason].filter(Boolean).join(": ");
  return h("div", { class: reason ? "program" : "program soft", "data-program": program }, `${program} ${words}`);
}

/** What is known about the camera in front. */
const front = ({ camera, over }) => over.cameras.find((one) => one.name === camera) ?? over.cameras[0];

/** What stands over the picture: title and detail; nothing while it says everything itself (MJPEG's "No signal" does). */
function notice(watching, stale, screen, camera, no_webrtc) {
  if (!watching) return ["Not watching", "press Watch to go on"];
  if (stale && screen.isFilm) return ["No signal", camera.age_s === null ? "no picture yet" : `last picture ${length(camera.age_s)} ago`];
  if (screen.kind) return null;
  return screen.mode === "webrtc" && no_webrtc ? ["No WebRTC", no_webrtc] : ["Waiting for H.264", "the recorder delivers it; press m for MJPEG"];
}

function told({ event, data }) {
  const where = data.camera ? `${data.camera}: ` : "";
  const file = data.name || data.path ? ` ${data.name ?? String(data.path).split("/").pop()}` : ""; // an archive has a name
  const more = (data.old && data.new && `${data.old} → ${data.new}`) || data.reason || data.what || data.program || (data.share !== undefined ? `${Math.round(data.share * 100)} %` : "");
  return `${where}${event.replaceAll("_", " ")}${file}${more ? ` (${more})` : ""}`;
}
