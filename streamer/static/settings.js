// Tab Settings: every key of config.toml from the schema, with unit, range, meaning, and when a change takes effect.

import { get, post } from "./api.js";
import { fill, h, toast } from "./dom.js";

// In the order people look for them; tables not named here, such as those of one's own programs, come last.
const TITLES = {
  camera: "Camera", ring: "Frames kept in memory", night: "Day and night", motion: "Motion", recorder: "Recording", export: "Pictures, stacks and films", library: "What is kept on disk",
  mjpeg_server: "Live picture", http: "Web server and who may in", webrtc: "Live picture by WebRTC", hooks: "What is done upon events", mqtt: "MQTT and Home Assistant", upload: "Copies elsewhere", rtsp_publish: "RTSP to another server", privacy: "Privacy", analyzer: "Analyzer", control: "Hub and watchdog", network: "Trigger over the network", logging: "Logs", paths: "Folders",
};
const place = (name) => { const at = Object.keys(TITLES).indexOf(name); return at < 0 ? 99 : at; };

const WHEN = { live: ["● live", "takes effect at once"], restart: ["○ restart", "takes effect when its process is restarted"], file: ["– file", "changes only in config.toml: it opens a port, runs a program or says where files go"] };

export class SettingsTab {
  constructor(page, word = "") {
    this.page = page;
    this.changes = new Map(); // path as in `set` → value
    this.refused = new Map(); // path → why
    const names = (page.over?.cameras ?? []).map(({ name }) => name);
    this.camera = h("select", { "aria-label": "Settings of", hidden: names.length < 2, onchange: () => this.draw() }, h("option", { value: "" }, "All cameras"), names.map((name) => h("option", { value: name }, `Only ${name}`)));
    this.state = h("p", { class: "soft", role: "status", hidden: true });
    this.tables = h("div", { class: "settings" });
    this.filter = h("input", { type: "search", value: word, placeholder: "Find a setting", "aria-label": "Find a setting", oninput: () => this.draw() });
    this.count = h("span", { class: "soft" });
    this.apply = h("button", { class: "primary", disabled: true, title: "Writes config.toml, and restarts the programs that read a changed setting only at their start", onclick: () => this.send("/settings/apply") }, "Apply and restart what is needed");
    this.trial = h("button", { disabled: true, title: "Until the service stops; what needs a restart waits", onclick: () => this.send("/settings") }, "Try without saving");
    this.undo = h("button", { disabled: true, onclick: () => { this.changes.clear(); this.refused.clear(); this.draw(); } }, "Undo");
    this.element = h("div", {}, h("div", { class: "filters" }, this.filter, this.camera, this.state), this.tables, h("div", { class: "card savebar" }, this.apply, this.trial, this.undo, this.count));
  }

  async open() {
    const found = await get("/settings").catch((error) => { toast(error.message, true); return { settings: [], unsaved: [], waiting: {} }; });
    Object.assign(this, found);
    const programs = [...new Set(Object.values(found.waiting).flat())];
    this.state.hidden = !found.unsaved.length && !programs.length;
    this.state.textContent = [found.unsaved.length && `${found.unsaved.length} not saved`, programs.length && `${programs.join(", ")} must be restarted`].filter(Boolean).join("; ");
    this.draw();
  }

  /** The path of a key for the chosen camera, as `set` takes it. */
  pathOf(one) { return this.camera.value ? `cameras.${this.camera.value}.${one.path}` : one.key; }

  valueOf(one) { return one.own[this.camera.value] ?? one.value; }

  draw() {
    const word = this.filter.value.trim().toLowerCase();
    const tables = new Map();
    for (const one of this.settings ?? []) {
      if (word && !`${one.key} ${one.help}`.toLowerCase().includes(word)) continue;
      if (this.camera.value && one.apply === "file") continue; // they are not a camera's
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
    const path = this.pathOf(one), changed = this.changes.has(path);
    const value = changed ? this.changes.get(path) : this.valueOf(one);
    const own = Object.keys(one.own), waits = this.waiting[path];
    const marks = [this.unsaved.includes(path) && ["unsaved", "not saved"], waits && ["waits", `waits for a restart of ${waits.join(", ")}`],
      this.camera.value ? one.own[this.camera.value] !== undefined && ["own", `${this.camera.value}'s own`] : own.length && ["own", `other values: ${own.map((name) => `${name} ${JSON.stringify(one.own[name])}`).join(", ")}`]].filter(Boolean);
    const range = one.minimum !== null || one.maximum !== null ? ` ${one.minimum ?? ""}…${one.maximum ?? ""}` : "";
    const about = [one.help, `${range} ${one.unit}`.trim(), `default ${JSON.stringify(one.default)}`].filter(Boolean).join(" · ");
    const reset = one.apply !== "file" && !one.secret && JSON.stringify(value) !== JSON.stringify(one.default);
    const input = this.input(one, value);
    if (this.refused.has(path)) { input.setAttribute("aria-invalid", "true"); input.setAttribute("aria-describedby", `why-${one.key}`); }
    return h("div", { class: `setting ${changed ? "changed" : ""}`, "data-key": one.key },
      h("div", {}, h("label", { for: `set-${one.key}`, class: "mono" }, one.key), marks.map(([kind, text]) => h("span", { class: `mark ${kind}` }, text)), h("div", { class: "about" }, about)),
      h("div", { class: "value" }, input, reset && h("button", { class: "quiet", "aria-label": `Default of ${one.key}`, title: `Default: ${JSON.stringify(one.default)}`, onclick: () => { this.changes.set(path, one.default); this.draw(); document.getElementById(`set-${one.key}`)?.focus(); } }, "↺"),
        this.refused.has(path) && h("p", { class: "problem", id: `why-${one.key}`, role: "alert" }, this.refused.get(path))),
      h("span", { class: `mark-${one.apply}`, title: WHEN[one.apply][1] }, WHEN[one.apply][0]));
  }

  input(one, value) {
    const id = `set-${one.key}`, disabled = one.apply === "file", path = this.pathOf(one);
    const changed = (next) => {
      const same = JSON.stringify(next) === JSON.stringify(this.valueOf(one));
      if (same) this.changes.delete(path); else this.changes.set(path, next);
      document.getElementById(id)?.closest(".setting").classList.toggle("changed", !same);
      this.counted();
    };
    if (one.secret) return h("input", { id, disabled, type: "text", class: "secret", spellcheck: "false", placeholder: one.value ? "set; type to replace" : "not set", autocomplete: "off", oninput: (event) => changed(event.target.value || one.value) });
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
    this.trial.disabled = this.undo.disabled = !this.changes.size;
    this.apply.disabled = !this.changes.size && !this.unsaved?.length && !Object.keys(this.waiting ?? {}).length;
  }

  async send(path) {
    const sent = Object.fromEntries(this.changes);
    this.refused.clear();
    let why = "";
    const answer = await this.page.act(() => post(path, { changes: sent }).catch((error) => { why = error.message; throw new Error(this.refuse(why) ? "Refused: see the marked setting" : why); }), path === "/settings" ? "Changed until the service stops" : undefined, "Applying …");
    if (!answer) return this.draw();
    this.changes.clear();
    this.open();
    this.lookAgain(path.endsWith("/apply") ? 5 : 1);
  }

  /** Reads the settings again until what was restarted is up; a busy machine takes its time. */
  lookAgain(times) {
    setTimeout(async () => {
      if (!this.element.isConnected || this.changes.size) return; // somebody types
      await this.open();
      if (times > 1 && Object.keys(this.waiting).length) this.lookAgain(times - 1);
    }, 4000);
  }

  /** Marks the row of a refused value, in words that fit there. Returns whether there is one. */
  refuse(reason) {
    const [, table, name, words] = reason.match(/\[([\w.-]+)\] (\w+) = (.*)$/s) ?? [];
    const path = table && (table.startsWith("cameras.") || table !== "camera" ? `${table}.${name}` : `camera.${name}`);
    if (!this.changes.has(path)) return false;
    this.refused.set(path, words.replace(/^.*?:? (?=must )/s, ""));
    return true;
  }
}
