// Card "Camera": the controls people turn while they look at the picture. The others are in Settings, camera.controls.

import { get, post } from "./api.js";
import { h } from "./dom.js";

// name → what a person calls it, and the part of the range a slider covers; the whole range is in Settings.
const SLIDERS = {
  ExposureValue: ["Exposure compensation", -4, 4, 0.1], Brightness: ["Brightness", -1, 1, 0.05], Contrast: ["Contrast", 0, 3, 0.05],
  Saturation: ["Saturation", 0, 3, 0.05], Sharpness: ["Sharpness", 0, 4, 0.1],
};
const MIDDLE = { ExposureValue: 0, Brightness: 0 }; // of the others: 1, as it comes
const SWITCHES = { AeEnable: "Auto exposure", AwbEnable: "Auto white balance" };
const WHITE = ["Auto", "Incandescent", "Tungsten", "Fluorescent", "Indoor", "Daylight", "Cloudy"]; // libcamera's AwbMode

export class ControlsCard {
  constructor(page) {
    this.page = page;
    this.turns = 0;
    this.rows = h("div", { class: "controls" });
    this.note = h("p", { class: "soft" });
    this.element = h("details", { class: "card", ontoggle: () => this.load() }, h("summary", {}, h("h2", {}, "Camera")), this.note, this.rows,
      h("div", { class: "actions" }, h("button", { onclick: () => this.reset() }, "Back to defaults")));
  }

  async load() {
    if (!this.element.open) return;
    const { turns } = this;
    const found = await get(`/cameras/${this.page.camera}/controls`).catch((error) => ({ controls: [], problem: error.message }));
    if (turns !== this.turns) return; // turned since: the last turn shows what holds, and a slider in use stays as it is
    this.known = Object.fromEntries(found.controls.map((one) => [one.name, one]));
    this.note.textContent = found.problem ?? (found.mode === "still" || found.mode === "slow_video" ? `Mode ${found.mode.replace("_", " ")}: exposure and gain are the night's own.` : "");
    this.note.hidden = !this.note.textContent;
    const known = this.known;
    const focused = document.activeElement?.id;
    this.rows.replaceChildren(...[
      known.ExposureTime && this.number("ExposureTime", "Exposure, ms", 1000),
      known.AnalogueGain && this.number("AnalogueGain", "Gain", 1),
      ...Object.entries(SWITCHES).map(([name, title]) => known[name] && this.choice(name, title, [["Default", null], ["On", true], ["Off", false]])),
      known.AwbMode && this.choice("AwbMode", "White balance", [["Default", null], ...WHITE.map((text, at) => [text, at])]),
      ...Object.entries(SLIDERS).map(([name, shape]) => known[name] && this.slider(name, ...shape)),
    ].filter(Boolean));
    if (focused?.startsWith("control-")) document.getElementById(focused)?.focus(); // arrow keys go on turning
  }

  /** Set one control, null gives it back to the camera; then show what holds. */
  async turn(changes) {
    const turn = ++this.turns;
    await this.page.act(() => post(`/cameras/${this.page.camera}/controls`, { changes }));
    if (turn === this.turns) this.load();
  }

  reset() {
    const set = Object.values(this.known ?? {}).filter((one) => one.key.includes("controls.") && one.value !== null);
    if (set.length) this.turn(Object.fromEntries(set.map(({ name }) => [name, null])));
  }

  row(name, title, input, shown = "") {
    input.id = `control-${name}`;
    return h("div", { class: "control", "data-control": name }, h("label", { for: input.id, title: this.known[name].help }, title), input, h("output", {}, shown));
  }

  slider(name, title, low, high, step) {
    const { value } = this.known[name];
    const input = h("input", { type: "range", min: low, max: high, step, onchange: () => this.turn({ [name]: Number(input.value) }) });
    input.value = value ?? MIDDLE[name] ?? 1; // after min, max and step, which would round it
    const row = this.row(name, title, input, value ?? "–");
    input.addEventListener("input", () => { row.lastChild.textContent = input.value; });
    return row;
  }

  /** A number that may be left empty: then the camera decides, and what it has decided stands there in grey. */
  number(name, title, scale) {
    const { value, now } = this.known[name];
    const text = (one) => String(Math.round((one / scale) * 1000) / 1000);
    const input = h("input", { type: "number", min: 0, step: "any", value: value ? text(value) : "", placeholder: now ? `auto (${text(now)})` : "auto",
      onchange: () => this.turn({ [name]: input.value === "" ? null : scale === 1 ? Number(input.value) : Math.round(Number(input.value) * scale) }) });
    return this.row(name, title, input);
  }

  choice(name, title, options) {
    const { value } = this.known[name];
    const input = h("select", { onchange: () => this.turn({ [name]: options[input.selectedIndex][1] }) }, options.map(([text]) => h("option", {}, text)));
    input.selectedIndex = options.findIndex(([, one]) => one === value);
    return this.row(name, title, input);
  }
}
