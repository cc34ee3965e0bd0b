// Tab Night: brightness now, the day as a keogram, and who decides between day and night.

import { get, post } from "./api.js";
import { fill, h, toast } from "./dom.js";

export class NightTab {
  constructor(page) {
    this.page = page;
    this.figures = h("dl", { class: "figures" });
    this.state = h("h2", {});
    this.keogram = h("img", { class: "strip", alt: "Keogram of today: one column of the picture a minute" });
    this.brightness = h("img", { class: "strip", alt: "Brightness of today with both thresholds" });
    this.missing = h("p", { class: "soft" });
    for (const image of [this.keogram, this.brightness]) {
      image.onerror = () => { image.hidden = true; this.missing.textContent = "The strips of today are drawn once the analyzer has run for some minutes."; };
      image.onload = () => { image.hidden = false; this.missing.textContent = ""; };
    }
    const force = (action, text) => h("button", { onclick: () => page.act(() => post(`/cameras/${page.camera}/night`, { action })) }, text);
    this.element = h("div", { class: "side" },
      h("section", { class: "card" }, this.state, this.figures,
        h("div", { class: "actions" }, force("auto", "Decide by itself"), force("on", "Night now"), force("off", "Day now"),
          h("button", { onclick: () => page.act(() => post(`/cameras/${page.camera}/keogram`)).then(() => this.strips()) }, "Save keogram"))),
      h("section", { class: "card" }, h("h3", {}, "Keogram of today"), this.keogram, this.missing),
      h("section", { class: "card" }, h("h3", {}, "Brightness of today"), this.brightness));
  }

  open() { this.strips(); this.timer = setInterval(() => this.strips(), 30000); }
  close() { clearInterval(this.timer); }
  chosen() { this.strips(); }

  strips() {
    this.keogram.src = `/cam/${this.page.camera}/keogram.png?t=${Date.now()}`;
    this.brightness.src = `/cam/${this.page.camera}/brightness.png?t=${Date.now()}`;
  }

  async update(over) {
    const night = over.nights[this.page.camera];
    this.state.textContent = night ? (night.night ? "It is night" : "It is day") : "No analyzer runs";
    const rows = night ? [["Level (decides)", night.level.toFixed(2)], ["Night below", night.dark_threshold], ["Day above", night.bright_threshold], ["Mean luma of the frame", night.dark_score.toFixed(2)],
      ["Next switch", night.locked_s ? `locked for ${Math.round(night.locked_s)} s` : "any time"], ["Decided by", night.forced ? "hand" : "brightness"]] : [];
    fill(this.figures, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
  }
}
