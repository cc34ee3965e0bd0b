// Tab Settings: every key of config.toml from the schema, with unit, range, meaning, and when a change takes effect.

import { get, post } from "./api.js";
import { fill, h, toast } from "./dom.js";

// In the order people look for them; tables not named here, such as those of one's own programs, come last.
const TITLES = {
  camera: "Camera", ring: "Frames kept in memory", night: "Day and night", motion: "Motion", recorder: "Recording", export: "Pictures, stacks and films", library: "What is kept on disk",
  mjpeg_server: "Live picture", http: "Web server and who may in", privacy: "Privacy", analyzer: "Analyzer", control: "Hub and watchdog", network: "Trigger over the network", logging: "Logs", paths: "Folders",
};
const place = (name) => { const at = Object.keys(TITLES).indexOf(name); return at < 0 ? 99 : at; };

const WHEN = { live: ["● live", "takes effect at once"], restart: ["○ restart", "takes effect when its process is restarted"], file: ["– file", "changes only in config.toml: it opens a port, runs a program or says where files go"] };

export class SettingsTab {
  constructor(page) {
    this.page = page;
    this.changes = new Map();
    this.tables = h("div", { class: "settings" });
    this.filter = h("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: () => this.draw() });
    this.count = h("span", { class: "soft" });
    this.save = h("input", { type: "checkbox", id: "keep" });
    this.apply = h("button", { class: "primary", disabled: true, onclick: () => this.send() }, "Apply");
    this.undo = h("button", { disabled: true, onclick: () => { this.changes.clear(); this.draw(); } }, "Undo");
    this.element = h("div", {}, h("div", { class: "filters" }, this.filter, h("button", { title: "Changes last until the service stops, unless they are written to the file", onclick: () => page.act(() => post("/settings/save")) }, "Write all changes to config.toml")), this.tables,
      h("div", { class: "card savebar" }, this.apply, this.undo, h("label", {}, this.save, " also write to config.toml"), this.count));
  }

  async open() {
    const found = await get("/settings").catch((error) => { toast(error.message, true); return { settings: [] }; });
    this.settings = found.settings;
    this.draw();
  }

  draw() {
    const word = this.filter.value.trim().toLowerCase();
    const tables = new Map();
    for (const one of this.settings ?? []) {
      if (word && !`${one.key} ${one.help}`.toLowerCase().includes(word)) continue;
      const name = one.key.split(".")[0];
      tables.set(name, [...(tables.get(name) ?? []), one]);
    }
    const open = new Set([...this.tables.querySelectorAll("details[open]")].map((one) => one.dataset.table));
    this.tables.replaceChildren(...[...tables].sort(([one], [other]) => place(one) - place(other)).map(([name, keys]) => h("details", { class: "card", "data-table": name, open: Boolean(word) || open.has(name) },
      h("summary", {}, `${TITLES[name] ?? name} `, h("span", { class: "soft" }, `[${name}] ${keys.length} setting${keys.length > 1 ? "s" : ""}`)), keys.map((one) => this.row(one)))));
    if (!tables.size) this.tables.replaceChildren(h("p", { class: "empty" }, "No setting of that name"));
    this.counted();
  }

  row(one) {
    const value = this.changes.has(one.key) ? this.changes.get(one.key) : one.value;
    const range = one.minimum !== null || one.maximum !== null ? ` ${one.minimum ?? ""}…${one.maximum ?? ""}` : "";
    const about = [one.help, `${range} ${one.unit}`.trim(), `default ${JSON.stringify(one.default)}`].filter(Boolean).join(" · ");
    return h("div", { class: `setting ${this.changes.has(one.key) ? "changed" : ""}`, "data-key": one.key },
      h("div", {}, h("label", { for: `set-${one.key}`, class: "mono" }, one.key), h("div", { class: "about" }, about)),
      this.input(one, value),
      h("span", { class: `mark-${one.apply}`, title: WHEN[one.apply][1] }, WHEN[one.apply][0]));
  }

  input(one, value) {
    const id = `set-${one.key}`, disabled = one.apply === "file";
    const changed = (next) => {
      const same = JSON.stringify(next) === JSON.stringify(one.value);
      if (same) this.changes.delete(one.key); else this.changes.set(one.key, next);
      document.getElementById(id)?.closest(".setting").classList.toggle("changed", !same);
      this.counted();
    };
    if (one.secret) return h("input", { id, disabled, type: "password", placeholder: one.value ? "set; type to replace" : "not set", autocomplete: "new-password", oninput: (event) => changed(event.target.value || one.value) });
    if (typeof one.default === "boolean") return h("input", { id, disabled, type: "checkbox", checked: Boolean(value), onchange: (event) => changed(event.target.checked) });
    const plain = one.type === "true or false" ? [true, false] : one.choices;
    const choices = one.default === null && plain.length ? [null, ...plain] : plain; // null: left out
    if (choices.length) {
      const select = h("select", { id, disabled, onchange: (event) => changed(choices[event.target.selectedIndex]) }, choices.map((choice) => h("option", {}, String(choice ?? "left out"))));
      select.selectedIndex = choices.indexOf(value);
      return select;
    }
    if (one.type === "integer" || one.type === "number") {
      return h("input", { id, disabled, type: "number", value: value ?? "", min: one.minimum ?? undefined, max: one.maximum ?? undefined, step: one.type === "integer" ? 1 : "any",
        oninput: (event) => changed(event.target.value === "" ? one.default : Number(event.target.value)) });
    }
    if (one.type === "list" || one.type === "table" || one.type === "value") {
      return h("input", { id, disabled, value: JSON.stringify(value), class: "mono", onchange: (event) => {
        try { changed(JSON.parse(event.target.value)); event.target.setCustomValidity(""); } catch { event.target.setCustomValidity("must be JSON"); event.target.reportValidity(); }
      } });
    }
    return h("input", { id, disabled, value: value ?? "", oninput: (event) => changed(event.target.value) });
  }

  counted() {
    this.count.textContent = this.changes.size ? `${this.changes.size} changed` : "";
    this.apply.disabled = this.undo.disabled = !this.changes.size;
  }

  async send() {
    const answer = await this.page.act(() => post("/settings", { changes: Object.fromEntries(this.changes), save: this.save.checked }));
    if (!answer) return;
    this.changes.clear();
    const restart = answer.data.restart ?? [];
    if (restart.length) toast(`To take effect: supervisorctl restart ${restart.join(" ")}`);
    this.open();
  }
}
