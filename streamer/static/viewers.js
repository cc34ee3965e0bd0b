// Tab Viewers: who is watching, and what they were sent.

import { get } from "./api.js";
import { clock, fill, h, length, size } from "./dom.js";

const KINDS = { mjpeg: "MJPEG", h264: "H.264", session: "WebSocket", short: "Short stream", events: "Events" };

export class ViewersTab {
  constructor(page) {
    this.page = page;
    this.rows = h("tbody", {});
    this.summary = h("p", { class: "soft" });
    this.agreed = h("tbody", {});
    const agreed = ["Session", "Camera", "Label", "Preset", "Mode", "State", "Sent", "Skipped", "Held back", "No frame", "Connections"];
    const table = (names, body) => h("div", { class: "scroll", hidden: true }, h("table", {}, h("thead", {}, h("tr", {}, names.map((text) => h("th", { scope: "col" }, text)))), body));
    const head = ["Kind", "Camera", "From", "As", "Since", "Sent", "Skipped", "Bytes", "Rate"];
    this.viewers = table(head, this.rows);
    this.sessions = table(agreed, this.agreed);
    this.none = h("p", { class: "soft" });
    this.element = h("div", { class: "side" },
      h("section", { class: "card" }, h("h2", {}, "Who is watching"), this.summary, this.viewers),
      h("section", { class: "card" }, h("h2", {}, "WebSocket sessions"), this.none, this.sessions));
  }

  async update() {
    const [found, sessions] = await Promise.all([get("/viewers"), get("/sessions")]).catch(() => []);
    if (!found) return;
    this.viewers.hidden = !found.viewers.length;
    this.sessions.hidden = !sessions.sessions.length;
    this.none.textContent = `${sessions.sessions.length || "None"} of ${sessions.most}`;
    fill(this.agreed, ...sessions.sessions.map((one) => h("tr", {}, [one.id, one.camera, one.label, one.preset, one.mode, one.connected ? "connected" : "may be resumed",
      one.statistics.sent, one.statistics.skipped, one.statistics.held_back, one.statistics.no_frame, one.statistics.connections].map((text) => h("td", {}, String(text))))));
    const served = Object.values(found.served).reduce((sum, count) => sum + count, 0);
    this.summary.textContent = `${found.viewers.length} of ${found.places} places taken; ${served} served since start${found.viewers.length ? "" : ". No viewer, no encoding."}`;
    fill(this.rows, ...found.viewers.map((one) => h("tr", {}, [
      KINDS[one.kind] ?? one.kind, one.camera, one.peer, one.variant, `${clock(one.since_utc)} (${length(one.seconds)})`, one.sent, one.skipped, size(one.bytes),
      one.seconds > 1 ? `${(one.sent / one.seconds).toFixed(1)}/s · ${size(one.bytes / one.seconds)}/s` : "",
    ].map((text) => h("td", {}, String(text))))));
  }
}
