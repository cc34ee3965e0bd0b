// Tab Library: what has been saved; play, zoom, protect, delete, archive.

import { get, post } from "./api.js";
import { confirmed, day, fill, h, length, show, size, toast } from "./dom.js";

const GROUPS = [["", "Everything"], ["clips", "Clips"], ["pictures", "Pictures"], ["films", "Films"], ["archives", "Archives"]];
const BARE = { clips: "Clip", films: "Film", archives: "Archive" }; // where there is no thumbnail
const MORE = 120; // rows shown, and how many more are each time
const LIMIT = 500; // rows the service gives at once
const SINCE = [["", "All time"], ["1h", "Last hour"], ["24h", "Last day"], ["7d", "Last week"], ["30d", "Last month"]];

export class LibraryTab {
  constructor(page) {
    this.page = page;
    const choice = (label, options) => h("select", { "aria-label": label, onchange: () => this.load(MORE) }, options.map(([value, text]) => h("option", { value }, text)));
    this.group = choice("What", GROUPS);
    this.since = choice("When", SINCE);
    this.camera = choice("Camera", [["", "All cameras"], ...(page.over?.cameras ?? []).map(({ name }) => [name, name])]);
    this.shown = MORE;
    this.total = h("span", { class: "soft" });
    this.shelf = h("div", { class: "shelf" });
    this.older = h("button", { class: "older", hidden: true, onclick: () => this.load(this.shown + MORE) }, "Show older");
    this.element = h("div", {},
      h("div", { class: "filters" }, this.group, this.since, this.camera, h("button", { onclick: () => { this.rows = ""; this.load(); } }, "Refresh"),
        h("button", { onclick: () => this.archive() }, "Archive…"), this.total),
      this.shelf, this.older);
  }

  open() { this.load(MORE); }

  update(over) {
    if (this.lastEvent !== undefined && over.last_event !== this.lastEvent) this.load();
    this.lastEvent = over.last_event;
  }

  async load(shown = this.shown) {
    this.shown = shown;
    const turn = this.turn = (this.turn ?? 0) + 1;
    const found = await this.found(shown).catch((error) => { toast(error.message, true); return null; });
    if (!found || turn !== this.turn) return; // something else has been asked for meanwhile
    this.older.hidden = found.rows.length < shown;
    const bytes = Object.values(found.totals).reduce((sum, one) => sum + one.bytes, 0);
    const files = Object.values(found.totals).reduce((sum, one) => sum + one.files, 0);
    this.total.textContent = `${files} files, ${size(bytes)}${this.older.hidden ? "" : `; the newest ${shown} are shown`}`;
    const rows = JSON.stringify(found.rows);
    if (rows === this.rows) return; // most events change nothing here, and focus and thumbnails stay
    this.rows = rows;
    if (found.rows.length) this.shelf.replaceChildren(...found.rows.map((row) => this.item(row)));
    else this.shelf.replaceChildren(h("p", { class: "empty" }, "Nothing here yet. Save a picture with s, or record with r."));
  }

  async found(wanted) { // rows come in pages
    const query = new URLSearchParams({ group: this.group.value, since: this.since.value, camera: this.camera.value });
    const rows = [];
    for (;;) {
      const limit = Math.min(LIMIT, wanted - rows.length);
      query.set("limit", limit);
      const page = await get(`/library?${query}`);
      rows.push(...page.rows);
      if (page.rows.length < limit || rows.length >= wanted) return { rows, totals: page.totals };
      query.set("before", rows.at(-1).id);
    }
  }

  item(row) {
    const image = h("img", { src: `api/v1/library/${row.id}/thumbnail`, alt: "", loading: "lazy", onerror: () => image.replaceWith(h("span", { class: "none" }, BARE[row.group] ?? "File")) });
    const shown = row.group === "archives" ? h("span", { class: "none" }, BARE.archives) : image;
    const thumb = h("button", { class: "thumb", "aria-label": `Open ${row.name}`, onclick: () => this.view(row) }, shown, row.duration_s > 0 && h("span", { class: "length" }, length(row.duration_s)));
    const facts = [row.group === "archives" ? row.label || row.name : row.camera, row.kind, row.trigger !== row.kind && row.trigger, size(row.bytes), row.drops > 0 && `${row.drops} missing`];
    return h("article", { class: "card item", "data-id": row.id }, thumb,
      h("div", { class: "text" }, h("div", {}, day(row.started_utc)), h("div", { class: "soft" }, facts.filter(Boolean).map((fact) => h("span", {}, fact)))),
      h("div", { class: "buttons" },
        h("button", { class: "quiet", "aria-pressed": String(row.protected), title: "Never deleted by itself", onclick: () => this.change(row, row.protected ? "unprotect" : "protect") }, row.protected ? "🔒 Protected" : "Protect"),
        row.media && h("a", { class: "button", href: `api/v1/library/${row.id}/file`, download: row.name }, "Download"),
        h("button", { class: "quiet danger", disabled: row.protected, onclick: () => this.remove(row) }, "Delete")));
  }

  view(row) {
    const source = `api/v1/library/${row.id}/file`;
    const frames = row.last_frame > row.first_frame ? `frames ${row.first_frame}–${row.last_frame}` : `frame ${row.first_frame}`;
    const facts = [`${row.camera}, ${row.kind}`, day(row.started_utc), row.first_frame >= 0 && frames, size(row.bytes)].filter(Boolean).join(" · ");
    let content = h("p", { class: "empty" }, "This kind of file can only be downloaded.");
    if (row.media === "video/mp4") content = h("video", { src: source, controls: true, autoplay: true, muted: true });
    else if (row.media === "image/jpeg" || row.media === "image/png") {
      content = h("a", { href: source, target: "_blank", title: "Full size in a new tab" }, h("img", { src: source, alt: row.name }));
    }
    show(h("h2", {}, row.name), content, h("p", { class: "soft" }, facts));
  }

  async change(row, word) { await this.page.act(() => post(`/library/${row.id}/${word}`)); this.load(); }

  async remove(row) {
    if (await confirmed(`Delete ${row.name}?`, "Delete for good")) this.change(row, "delete");
  }

  archive() {
    const name = h("input", { pattern: "[A-Za-z0-9_-]{1,32}", required: true, placeholder: "trial_7", "aria-label": "Name" });
    const since = h("input", { value: "2h", "aria-label": "From", placeholder: "2h, or 2026-11-21T08:00" });
    const form = h("form", { class: "side form", onsubmit: (event) => {
      event.preventDefault();
      document.getElementById("dialog").close();
      this.page.act(() => post("/archives", { name: name.value, since: since.value })).then(() => this.load());
    } }, h("h2", {}, "Copy a time span into an archive"), h("label", {}, "Name ", name), h("label", {}, "From ", since), h("div", { class: "actions" }, h("button", { class: "primary" }, "Archive")));
    show(form);
    name.focus();
  }
}
