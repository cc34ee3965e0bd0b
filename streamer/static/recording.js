// What a person wants of the recorders, and what they do: one word for the button, one for the badge.

import { post } from "./api.js";
import { length } from "./dom.js";

const KNOWN_MS = 15000; // a wish the recorder has not carried out by then is forgotten: its own state says why

export class Recorders {
  constructor(page) {
    this.page = page;
    this.wishes = new Map(); // camera → {action, since}, from the press until the recorder's state says so
  }

  /** Forget wishes that have come true. */
  update(over) {
    for (const [name, { action, since, done }] of this.wishes) {
      const { state } = over.recordings[name] ?? {};
      const fulfilled = action === "start" ? state === "recording" : done && state !== "recording" && state !== "waiting";
      if (fulfilled || Date.now() - since > KNOWN_MS) this.wishes.delete(name);
    }
  }

  /** How a camera's recorder is: {state, button, badge, note, busy}. */
  of(name) {
    const recording = this.page.over?.recordings[name];
    const wish = this.wishes.get(name)?.action;
    const since = recording?.since_utc ? length((Date.now() - new Date(recording.since_utc)) / 1000) : "";
    if (wish === "stop") return { state: "stopping", button: "Stopping …", badge: "Stopping", busy: true };
    if (recording?.state === "recording") return { state: "recording", button: "Stop", badge: `REC ${since}`, note: `since ${since}, ${recording.frames} frames in ${recording.file}` };
    if (wish === "start" || recording?.state === "waiting") return { state: "waiting", button: "Cancel", badge: "Waiting for frames", note: recording?.reason || "the recording begins with the next frame" };
    if (recording?.state === "armed") return { state: "armed", button: "Record", badge: "Armed", note: "an event starts a clip" };
    if (!recording || !["idle", "live"].includes(recording.state)) {
      const isHub = this.page.over?.health.reasons.some((reason) => reason.startsWith("hub:"));
      return { state: "away", button: "Record", note: isHub ? "the hub does not answer" : `the recorder is ${recording?.state.toLowerCase() ?? "missing"}`, away: true };
    }
    return { state: "idle", button: "Record" };
  }

  toggle(name) {
    const now = this.of(name);
    if (now.busy) return null;
    return this.ask([name], now.state === "recording" || now.state === "waiting" ? "stop" : "start", `/cameras/${name}/record`);
  }

  /** All cameras at one instant; while any records, they all stop. */
  toggleAll() {
    const names = this.page.over?.cameras.map(({ name }) => name) ?? [];
    const running = names.some((name) => ["recording", "waiting"].includes(this.of(name).state));
    return this.ask(names, running ? "stop" : "start", "/record");
  }

  async ask(names, action, path) {
    for (const name of names) this.wishes.set(name, { action, since: Date.now() });
    this.page.redraw();
    const answer = await this.page.act(() => post(path, { action }), undefined, action === "start" ? "Starting the recording …" : "Stopping the recording …");
    for (const name of names) {
      const wish = this.wishes.get(name);
      if (wish?.action !== action) continue; // cancelled meanwhile
      if (!answer) this.wishes.delete(name); else wish.done = true;
    }
    this.page.redraw();
  }
}
