// Tab Timeline: a strip for each camera with recordings, events, pictures and nights of a day; drag to scrub, click to play.

import { get } from "./api.js";
import { clock, fill, h } from "./dom.js";

const DAY_MS = 86_400_000;
const SPANS = [["Day", 24], ["6 hours", 6], ["Hour", 1]];
const EDGE_MS = 3000; // so near to now it is live
const FRAME_S = 1 / 30; // a step where the rate is not known
const ROWS = { nights: [0, 6], footage: [8, 20], uploads: [28, 2], events: [30, 8], pictures: [40, 8] }; // y and height of what a strip shows

export class TimelineTab {
  constructor(page) {
    this.page = page;
    this.hours = 24;
    this.day = h("input", { type: "date", "aria-label": "Day", onchange: () => this.goTo(new Date(`${this.day.value}T12:00`).getTime() || Date.now()) });
    this.span = h("select", { "aria-label": "Span", onchange: () => { this.hours = SPANS[this.span.selectedIndex][1]; this.goTo(this.at ?? Date.now()); } }, SPANS.map(([text]) => h("option", {}, text)));
    const step = (text, label, by) => h("button", { "aria-label": label, title: label, onclick: () => this.goTo((this.since + this.until) / 2 + by * this.hours * 3_600_000) }, text);
    this.said = h("span", { class: "soft", role: "status" });
    this.stage = h("div", { class: "screen player" }, h("p", { class: "notice" }, "Click a strip to play from there; drag to scrub"));
    this.strips = h("div", { class: "strips" });
    this.preview = h("div", { class: "preview", hidden: true }, h("img", { alt: "" }), h("span", {}));
    const button = (text, run, key) => h("button", { onclick: run }, h("span", {}, text), h("kbd", {}, key));
    this.element = h("div", {},
      h("div", { class: "filters" }, step("‹", "Earlier", -1), this.day, step("›", "Later", 1), this.span, h("button", { onclick: () => this.seek(Date.now()) }, "Live"), this.said),
      h("section", { class: "card" }, this.strips, h("p", { class: "soft legend" }, Object.keys(COLOURS).map((name) => h("span", { class: `mark-${name}` }, LEGEND[name])))),
      this.stage,
      h("div", { class: "actions" }, button("Play or pause", () => this.key("Enter"), "Enter"), button("Frame back", () => this.key(","), ","), button("Frame on", () => this.key("."), "."),
        button("Event before", () => this.key("["), "["), button("Next event", () => this.key("]"), "]")), this.preview);
  }

  open() { this.goTo(Date.now()); this.timer = setInterval(() => this.tick(), 500); this.onSize = () => this.draw(); addEventListener("resize", this.onSize); }
  close() { clearInterval(this.timer); removeEventListener("resize", this.onSize); this.stage.replaceChildren(); }

  update(over) {
    if (over.last_event !== this.lastEvent) { if (this.lastEvent !== undefined) this.load(); this.lastEvent = over.last_event; }
    if (this.found) this.draw();
  }

  /** Show the span around an instant: the day, or some hours that end with it at the latest now. */
  goTo(ms) {
    if (this.hours === 24) { this.since = new Date(ms).setHours(0, 0, 0, 0); this.until = this.since + DAY_MS; }
    else { this.until = Math.min(ms + this.hours * 1_800_000, Date.now() + this.hours * 60_000); this.since = this.until - this.hours * 3_600_000; }
    this.holdsNow = Date.now() < this.until;
    const day = new Date((this.since + this.until) / 2);
    this.day.value = `${day.getFullYear()}-${String(day.getMonth() + 1).padStart(2, "0")}-${String(day.getDate()).padStart(2, "0")}`;
    this.load();
  }

  async load() {
    const turn = this.turn = (this.turn ?? 0) + 1;
    const query = new URLSearchParams({ since: iso(this.since), until: iso(Math.min(this.until, Math.max(Date.now(), this.since))), step_s: this.hours === 24 ? 120 : this.hours === 6 ? 30 : 5 });
    const found = await get(`/library/timeline?${query}`).catch((error) => { this.said.textContent = error.message; return null; });
    if (!found || turn !== this.turn) return;
    this.found = Object.fromEntries(found.cameras.map((one) => [one.camera, one]));
    this.step_ms = found.step_s * 1000;
    const names = this.page.over?.cameras.map(({ name }) => name) ?? found.cameras.map(({ camera }) => camera);
    if (this.names?.join() !== names.join()) {
      this.names = names;
      this.strips.replaceChildren(...names.map((name) => this.strip(name)));
    }
    this.draw();
  }

  strip(name) {
    const canvas = h("canvas", { height: 50, tabindex: 0, role: "slider", "data-camera": name, "aria-label": `Time of ${name}`, "aria-valuemin": 0, "aria-valuemax": 86400 });
    const at = (event) => { const box = canvas.getBoundingClientRect(); return this.since + ((event.clientX - box.left) / box.width) * (this.until - this.since); };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.dragging = true;
      if (event.pointerType === "mouse") this.seek(at(event), name); // a finger may begin to scroll the page
    });
    canvas.addEventListener("pointermove", (event) => { if (this.dragging) this.scrub(at(event), name); this.hover(at(event), name, event); });
    canvas.addEventListener("pointerup", (event) => {
      if (this.dragging && event.pointerType !== "mouse") this.seek(at(event), name);
      this.dragging = false;
    });
    canvas.addEventListener("pointercancel", () => { this.dragging = false; clearTimeout(this.resting); }); // it scrolls
    canvas.addEventListener("pointerleave", () => { this.preview.hidden = true; });
    return h("div", { class: "strip-row" }, h("b", {}, name), canvas);
  }

  draw() {
    for (const canvas of this.strips.querySelectorAll("canvas")) {
      const name = canvas.dataset.camera, found = this.found?.[name], width = canvas.clientWidth;
      if (!width) continue;
      const scale = devicePixelRatio || 1;
      if (canvas.width !== Math.round(width * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(50 * scale); }
      const paint = canvas.getContext("2d");
      paint.setTransform(scale, 0, 0, scale, 0, 0);
      paint.clearRect(0, 0, width, 50);
      const style = getComputedStyle(document.documentElement);
      const x = (ms) => ((ms - this.since) / (this.until - this.since)) * width;
      const bar = (row, begin, end, colour = row) => { paint.fillStyle = style.getPropertyValue(COLOURS[colour]); paint.fillRect(x(begin), ROWS[row][0], Math.max(2, x(end) - x(begin)), ROWS[row][1]); };
      paint.fillStyle = style.getPropertyValue("--raised");
      paint.fillRect(0, 8, width, 20);
      paint.fillStyle = style.getPropertyValue("--soft");
      paint.font = "10px sans-serif";
      const hour = this.hours === 24 ? (width < 600 ? 6 : 2) : this.hours / 6;
      for (let ms = Math.ceil(this.since / 60_000) * 60_000; ms < this.until; ms += 60_000) {
        const time = new Date(ms);
        if ((time.getHours() * 60 + time.getMinutes()) % (hour * 60) === 0) { paint.fillRect(x(ms), 0, 1, 50); paint.fillText(clock(ms).slice(0, 5), x(ms) + 3, 49); }
      }
      for (const one of found?.nights ?? []) bar("nights", utc(one.begin_utc), utc(one.end_utc));
      for (const one of found?.footage ?? []) bar("footage", utc(one.begin_utc), utc(one.end_utc));
      for (const one of found?.uploads ?? []) bar("uploads", utc(one.begin_utc), utc(one.end_utc));
      const recording = this.page.over?.recordings[name];
      if (recording?.since_utc) bar("footage", Math.max(utc(recording.since_utc), this.since), Math.min(Date.now(), this.until), "recording");
      for (const one of found?.events ?? []) bar("events", utc(one.utc), utc(one.utc) + one.duration_s * 1000);
      for (const one of found?.cells ?? []) if (one.pictures + one.films) bar("pictures", utc(one.utc), utc(one.utc));
      if (this.at !== undefined && name === this.camera) { paint.fillStyle = style.getPropertyValue("--text"); paint.fillRect(x(this.at) - 1, 0, 2, 50); }
      canvas.setAttribute("aria-valuenow", Math.round(((this.at ?? Date.now()) - this.since) / 1000));
      canvas.setAttribute("aria-valuetext", clock(this.at ?? Date.now()));
    }
  }

  /** A small picture of what the instant under the pointer holds. */
  hover(ms, name, event) {
    const cell = this.found?.[name]?.cells.findLast((one) => utc(one.utc) <= ms && ms < utc(one.utc) + this.step_ms);
    const [image, text] = this.preview.children;
    this.preview.hidden = event.pointerType === "touch";
    this.preview.style.left = `${Math.min(event.clientX + 8, innerWidth - 200)}px`;
    this.preview.style.top = `${event.clientY + 16}px`;
    text.textContent = clock(ms);
    image.hidden = !cell;
    if (cell && image.dataset.row !== String(cell.row)) { image.dataset.row = cell.row; image.src = `api/v1/library/${cell.row}/thumbnail`; }
  }

  /** While dragging: within the clip that is shown at once, to another one when the pointer rests. */
  scrub(ms, name) {
    clearTimeout(this.resting);
    if (name === this.camera && this.within(ms)) return this.place(ms);
    this.at = ms;
    this.camera = name;
    this.draw();
    this.resting = setTimeout(() => this.seek(ms, name), 150);
  }

  within(ms) { return this.clip && ms >= this.clip.since && ms < this.clip.until && this.stage.querySelector("video"); }

  place(ms) {
    const video = this.stage.querySelector("video");
    this.at = ms;
    video.currentTime = (ms - this.clip.since) / 1000;
    this.draw();
  }

  /** Play a camera from an instant on: its clip, the recording that is being written, a picture, or live. */
  async seek(ms, name = this.camera ?? this.page.camera) {
    clearTimeout(this.resting);
    if (name === this.camera && this.within(ms)) { this.place(ms); return this.stage.querySelector("video").play(); }
    this.camera = name;
    this.at = Math.min(ms, Date.now());
    this.clip = null;
    this.draw();
    const turn = this.playing = (this.playing ?? 0) + 1;
    const recording = this.page.over?.recordings[name];
    if (ms > Date.now() - EDGE_MS) return this.show(h("img", { alt: `Live picture of ${name}`, src: `cam/${name}/stream?width=960&t=${Date.now()}` }), `${name} live`);
    if (recording?.since_utc && ms >= utc(recording.since_utc)) return this.play(`api/v1/cameras/${name}/recording`, utc(recording.since_utc), Date.now(), ms, recording.file);
    const span = { camera: name, since: iso(ms), until: iso(ms + 1), order: "latest", limit: 1 };
    const found = await get(`/library?${new URLSearchParams({ ...span, group: "clips" })}`).catch((error) => { this.said.textContent = error.message; return { rows: [] }; });
    if (turn !== this.playing) return;
    const [row] = found.rows;
    if (row?.media === "video/mp4") return this.play(`api/v1/library/${row.id}/file`, utc(row.started_utc), utc(row.started_utc) + row.duration_s * 1000, ms, row.name);
    const near = this.found?.[name]?.cells.find((one) => Math.abs(utc(one.utc) + this.step_ms / 2 - ms) <= this.step_ms && one.pictures + one.films);
    if (near) {
      const image = h("img", { alt: "", src: `api/v1/library/${near.row}/thumbnail` }), whole = new Image();
      whole.addEventListener("load", () => { image.src = whole.src; }); // of a video there is the thumbnail only
      whole.src = `api/v1/library/${near.row}/file`;
      return this.show(image, `${name} picture of about ${clock(near.utc)}`);
    }
    this.show(h("p", { class: "notice" }, `Nothing of ${name} at ${clock(ms)}`), `${name} ${clock(ms)}: nothing`);
  }

  show(element, text) { this.stage.replaceChildren(element); this.said.textContent = text; }

  play(source, since, until, ms, text) {
    this.clip = { since, until };
    const video = h("video", { src: source, muted: true, playsinline: true, controls: true, autoplay: true, "aria-label": text });
    video.addEventListener("loadedmetadata", () => { video.currentTime = (ms - since) / 1000; }, { once: true });
    video.addEventListener("error", () => {
      if (source.endsWith("/recording")) { this.show(h("p", { class: "notice" }, "The recording has just ended …"), text); this.resting = setTimeout(() => this.seek(ms), 2000); return; } // the library has it in a moment
      this.show(h("p", { class: "notice" }, `${text} cannot be played here; Library has it`), text);
    });
    video.addEventListener("ended", () => this.seek(until + 500, this.camera));
    this.show(video, text);
  }

  tick() {
    if (this.holdsNow && Date.now() > this.until) this.goTo(Date.now()); // the right end is live
    const video = this.stage.querySelector("video");
    if (video && this.clip && !this.dragging && video.readyState) { this.at = this.clip.since + video.currentTime * 1000; this.said.textContent = `${this.camera} ${clock(this.at)}`; this.draw(); }
  }

  /** Frames, events, seconds. Returns whether the key meant something. */
  key(name) {
    const video = this.stage.querySelector("video"), now = this.at ?? Date.now();
    const found = this.found?.[this.camera ?? this.page.camera];
    const events = [...(found?.events ?? []).map((one) => utc(one.utc)), ...(found?.footage ?? []).map((one) => utc(one.begin_utc))].sort((one, other) => one - other);
    const jump = { ArrowLeft: -10_000, ArrowRight: 10_000, PageUp: -60_000, PageDown: 60_000 }[name];
    if (jump) this.seek(now + jump);
    else if (name === "Home" || name === "End") this.seek(name === "Home" ? this.since : Math.min(this.until, Date.now()));
    else if (name === "," || name === ".") { if (video) { video.pause(); video.currentTime += name === "." ? FRAME_S : -FRAME_S; } }
    else if (name === "Enter") { if (!video) this.seek(now); else if (video.paused) video.play(); else video.pause(); }
    else if (name === "[" || name === "]") {
      const next = name === "]" ? events.find((ms) => ms > now + 1500) : events.findLast((ms) => ms < now - 1500);
      if (next === undefined) this.said.textContent = name === "]" ? "No later event" : "No earlier event"; else this.seek(next);
    } else return false;
    return true;
  }
}

const COLOURS = { footage: "--accent", recording: "--rec", events: "--warn", pictures: "--good", nights: "--soft", uploads: "--text" };
const LEGEND = { footage: "Recordings", recording: "Recording now", events: "Motion and other events", pictures: "Pictures and videos made of them", nights: "Nights", uploads: "Uploaded" };
const utc = (text) => new Date(text).getTime();
const iso = (ms) => new Date(ms).toISOString();
