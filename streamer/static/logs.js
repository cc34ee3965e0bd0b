// Tab Logs: the last lines of each process, coloured by how bad they are.

import { get } from "./api.js";
import { fill, h } from "./dom.js";

export class LogsTab {
  constructor(page, process = "") {
    this.page = page;
    this.process = h("select", { "aria-label": "Process", onchange: () => this.load() }, h("option", { value: "" }, "All, by time"), process && h("option", { value: process }, process));
    this.process.value = process;
    this.level = h("select", { "aria-label": "Least severe", onchange: () => this.load() }, ["DEBUG", "INFO", "WARNING", "ERROR"].map((name) => h("option", {}, name)));
    this.level.value = "INFO";
    this.follow = h("input", { type: "checkbox", checked: true });
    this.lines = h("pre", { class: "logs", tabindex: 0, "aria-label": "Log lines" });
    this.element = h("div", {}, h("div", { class: "filters" }, this.process, this.level, h("label", {}, this.follow, " follow")), h("section", { class: "card" }, this.lines));
  }

  open() { this.load(); }

  update(over) {
    const names = ["hub", ...over.health.processes.map((one) => one.program)];
    for (const name of names) if (![...this.process.options].some((option) => option.value === name)) this.process.append(h("option", { value: name }, name));
    if (this.follow.checked) this.load();
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      const { data } = await get(`/logs?lines=300&process=${this.process.value}`);
      const order = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
      const least = order.indexOf(this.level.value);
      const rows = data.lines.map((line) => [line, order.find((name) => line.includes(` ${name} `)) ?? "INFO"]).filter(([, level]) => order.indexOf(level) >= least);
      const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 40;
      fill(this.lines, ...rows.map(([line, level]) => h("div", { class: level }, line))); // left alone, with what is selected, while nothing is new
      if (atEnd) this.lines.scrollTop = this.lines.scrollHeight;
    } catch (error) {
      fill(this.lines, h("div", { class: "WARNING" }, error.message));
    } finally { this.loading = false; }
  }
}
