// Tab Night: brightness now, the day as a keogram, and who decides between day and night.

import { get, post } from "./api.js";
import { fill, h, toast } from "./dom.js";

export class NightTab {
  constructor(page) {
    this.page = page;
    this.figures = h("dl", { class: "figures" });
    this.state = h("h2", {});
    this.keogram = h("img", { class: "strip", alt: "Keogram of today: one column of the picture a minute, with hours" });
    this.brightness = h("img", { class: "strip", alt: "Brightness of today, day and night by colour, with hours" });
    this.missing = h("p", { class: "empty" }, "Keogram and brightness of today are drawn once the analyzer has run for some minutes.");
    for (const image of [this.keogram, this.brightness]) {
      image.hidden = true;
      image.addEventListener("load", () => { image.hidden = image.previousSibling.hidden = false; });
    }
    this.deciders = {};
    const force = (action, text) => this.deciders[action] = h("button", { "aria-pressed": "false", onclick: () => page.act(() => post(`/cameras/${page.camera}/night`, { action })) }, text);
    this.element = h("div", { class: "side night" },
      h("section", { class: "card" }, this.state, this.figures,
        h("div", { class: "actions" }, force("auto", "Decide by itself"), force("on", "Night now"), force("off", "Day now"),
          h("button", { onclick: () => page.act(() => post(`/cameras/${page.camera}/keogram`)).then(() => this.strips()) }, "Save keogram"))),
      h("section", { class: "card" }, h("h2", { hidden: true }, "Keogram of today"), this.keogram, h("h2", { hidden: true }, "Brightness of today"), this.brightness, this.missing));
  }

  open() { this.strips(); this.timer = setInterval(() => this.strips(), 30000); }
  close() { clearInterval(this.timer); }
  chosen() { this.strips(); }

  strips() {
    const drawn = this.page.over?.strips.includes(this.page.camera);
    this.missing.hidden = drawn;
    for (const image of [this.keogram, this.brightness]) image.hidden = image.previousSibling.hidden = !drawn;
    if (!drawn) return;
    this.keogram.src = `cam/${this.page.camera}/keogram.png?t=${Date.now()}`;
    this.brightness.src = `cam/${this.page.camera}/brightness.png?t=${Date.now()}`;
  }

  async update(over, camera) {
    const night = over.nights[this.page.camera];
    const unknown = camera.live ? "No analyzer runs: nobody decides between day and night" : "No picture comes: nobody knows whether it is day or night";
    this.state.textContent = night ? (night.night ? "It is night" : "It is day") : unknown;
    const decider = night && (night.forced ? (night.night ? "on" : "off") : "auto");
    for (const [action, button] of Object.entries(this.deciders)) button.setAttribute("aria-pressed", String(action === decider));
    const rows = night ? [["Scene brightness (decides)", night.level.toFixed(2)], ["Night below", night.dark_threshold], ["Day above", night.bright_threshold], ["Mean luma of the frame", night.dark_score.toFixed(2)],
      ["Next switch", night.forced ? "by hand only" : night.locked_s ? `locked for ${Math.round(night.locked_s)} s` : "any time"], ["Decided by", night.forced ? "hand, until “Decide by itself” or a restart of the analyzer" : "brightness"]] : [];
    if (over.startrails[this.page.camera]) rows.push(["Startrails", over.startrails[this.page.camera]]);
    fill(this.figures, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
  }
}
