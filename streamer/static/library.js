// Tab Library: what has been saved; search, play, zoom, protect, delete, archive, download, one or several at once.

import { get, post } from "./api.js";
import { confirmed, day, fill, h, length, show, size, toast } from "./dom.js";

const GROUPS = [["", "Everything"], ["clips", "Clips"], ["pictures", "Pictures"], ["films", "Videos of pictures"], ["archives", "Archives"]];
const BARE = { clips: "Clip", films: "Video", archives: "Archive" }; // where there is no thumbnail
const MORE = 120; // rows shown, and how many more are each time
const LIMIT = 500; // rows the service gives at once
const DONE = { protect: "Protected", unprotect: "Unprotected", delete: "Deleted" };
const ZIP_MAX = 200; // files of one zip
const SINCE = [["", "All time"], ["1h", "Last hour"], ["24h", "Last day"], ["7d", "Last week"], ["30d", "Last month"]];
const ORDERS = [["newest", "Newest first"], ["oldest", "Oldest first"], ["largest", "Largest first"], ["longest", "Longest first"]];

/** How uploads are, in words. */
function uploadsOf({ state, reason, figures }) {
  const { waiting = 0, waiting_bytes = 0, percent = 0 } = figures;
  const rest = waiting ? `${waiting} files, ${size(waiting_bytes)} to upload` : state === "running" || state === "uploading" ? "everything is uploaded" : "";
  const now = state === "uploading" ? `uploading, ${percent} %` : state === "running" ? "" : `uploads: ${state}`;
  return [rest, now, bare(reason)].filter(Boolean).join("; ");
}

/** A text with file names without their folders. */
const bare = (text) => text.replace(/\/\S*\/(?=\S)/g, "");

export class LibraryTab {
  constructor(page) {
    this.page = page;
    const choice = (label, options) => h("select", { "aria-label": label, onchange: () => this.load(MORE) }, options.map(([value, text]) => h("option", { value }, text)));
    this.group = choice("What", GROUPS);
    this.since = choice("When", SINCE);
    this.order = choice("Order", ORDERS);
    this.camera = choice("Camera", [["", "All cameras"], ...(page.over?.cameras ?? []).map(({ name }) => [name, name])]);
    this.text = h("input", { type: "search", placeholder: "Search: label, file, event", "aria-label": "Search", maxlength: 200, oninput: () => { clearTimeout(this.typing); this.typing = setTimeout(() => this.load(MORE), 250); } });
    this.all = h("button", { onclick: () => this.choose(this.rows) }, "Select all");
    this.shown = MORE;
    this.rows = [];
    this.chosen_ids = new Set();
    this.total = h("span", { class: "soft", role: "status" });
    this.uploads = h("span", { class: "soft uploads", hidden: true });
    this.shelf = h("div", { class: "shelf" });
    this.older = h("button", { class: "older", hidden: true, onclick: () => this.load(this.shown + MORE) }, "Show older");
    this.several = h("div", { class: "card savebar", hidden: true });
    this.element = h("div", {},
      h("div", { class: "filters" }, this.text, this.group, this.since, this.camera, this.order, h("button", { onclick: () => { this.drawn = ""; this.load(); } }, "Refresh"),
        h("button", { class: "changes", onclick: () => this.archive() }, "Archive…"), this.all, this.total, this.uploads),
      this.shelf, this.older, this.several);
  }

  open() { this.load(MORE); }

  update(over) {
    if (this.lastEvent !== undefined && over.last_event !== this.lastEvent) this.load();
    this.lastEvent = over.last_event;
    const upload = over.health.processes.find(({ program }) => program === "upload");
    this.uploads.hidden = !upload;
    if (upload) this.uploads.textContent = uploadsOf(upload);
  }

  async load(shown = this.shown) {
    this.shown = shown;
    const turn = this.turn = (this.turn ?? 0) + 1;
    const found = await this.find(shown).catch((error) => { toast(error.message, true); return null; });
    if (!found || turn !== this.turn) return; // something else has been asked for meanwhile
    this.older.hidden = !found.next;
    this.all.textContent = found.next ? "Select all shown" : "Select all";
    const sum = (name) => Object.values(found.totals).reduce((total, one) => total + one[name], 0);
    const part = found.found.files < sum("files") ? ` of ${sum("files")}, ${size(sum("bytes"))}` : "";
    this.total.textContent = `${found.found.files} files, ${size(found.found.bytes)}${part}${this.older.hidden ? "" : `; the newest ${found.rows.length} are shown`}`.replace("newest", this.order.value === "newest" ? "newest" : "first");
    this.rows = found.rows;
    const drawn = JSON.stringify(found.rows);
    if (drawn === this.drawn) return; // most events change nothing here, and focus and thumbnails stay
    this.drawn = drawn;
    const focused = document.activeElement?.closest(".item")?.dataset.id;
    this.chosen_ids = new Set(found.rows.map(({ id }) => id).filter((id) => this.chosen_ids.has(id)));
    if (found.rows.length) this.shelf.replaceChildren(...found.rows.map((row) => this.item(row)));
    else this.shelf.replaceChildren(h("p", { class: "empty" }, this.text.value ? "Nothing of that kind" : "Nothing here yet. Save a picture with s, or record with r."));
    if (focused) this.shelf.querySelector(`[data-id="${focused}"] .thumb`)?.focus();
    this.showSeveral();
  }

  async find(wanted) { // rows come in pages
    const query = new URLSearchParams({ text: this.text.value, group: this.group.value, since: this.since.value, camera: this.camera.value, order: this.order.value });
    const rows = [];
    for (;;) {
      query.set("limit", Math.min(LIMIT, wanted - rows.length));
      const page = await get(`/library?${query}`);
      rows.push(...page.rows);
      if (!page.next || rows.length >= wanted) return { ...page, rows };
      query.set("cursor", page.next);
    }
  }

  item(row) {
    const image = h("img", { src: `api/v1/library/${row.id}/thumbnail`, alt: "", loading: "lazy" });
    image.addEventListener("error", () => image.replaceWith(h("span", { class: "none", "aria-hidden": "true" }, BARE[row.group] ?? "File")));
    const shown = !/^(image|video)\//.test(row.media) ? h("span", { class: "none", "aria-hidden": "true" }, BARE[row.group] ?? "File") : image;
    const thumb = h("button", { class: "thumb", "aria-label": `Open ${row.group === "archives" ? `Archive ${row.label || row.name}` : row.name}${row.duration_s > 0 && row.group !== "archives" ? `, ${length(row.duration_s)}` : ""}`, onclick: () => this.view(row) }, shown, row.duration_s > 0 && row.group !== "archives" && h("span", { class: "length" }, length(row.duration_s)));
    const facts = [row.group === "archives" ? row.label || row.name : row.camera, row.kind, row.trigger !== row.kind && row.trigger, size(row.bytes), row.drops > 0 && `${row.drops} missing`, row.uploaded && "uploaded"];
    const box = h("input", { type: "checkbox", checked: this.chosen_ids.has(row.id), "aria-label": `Select ${row.name}`, onchange: () => { box.checked ? this.chosen_ids.add(row.id) : this.chosen_ids.delete(row.id); this.showSeveral(); } });
    return h("article", { class: "card item", "data-id": row.id }, h("label", { class: "select" }, box), thumb,
      h("div", { class: "text" }, h("div", {}, day(row.started_utc)), row.label && row.group !== "archives" && h("div", { class: "label" }, row.label), h("div", { class: "soft" }, facts.filter(Boolean).map((fact) => h("span", {}, fact)))),
      h("div", { class: "buttons" },
        h("button", { class: "quiet", "aria-pressed": String(row.protected), title: "Never deleted by itself", onclick: () => this.change(row, row.protected ? "unprotect" : "protect") }, row.protected ? "🔒 Protected" : "Protect"),
        row.group === "archives" ? h("a", { class: "button", href: `api/v1/archives/${row.label || row.name}/zip` }, "Zip") : row.media && h("a", { class: "button", href: `api/v1/library/${row.id}/file`, download: row.name }, "Download"),
        h("button", { class: "quiet danger", disabled: row.protected, onclick: () => this.remove(row) }, "Delete")));
  }

  // ---- one in front

  view(row) {
    if (row.group === "archives") return this.viewArchive(row);
    const source = `api/v1/library/${row.id}/file`;
    const frames = row.last_frame > row.first_frame ? `frames ${row.first_frame}–${row.last_frame}` : `frame ${row.first_frame}`;
    const facts = [`${row.camera}, ${row.kind}`, row.label, day(row.started_utc), row.first_frame >= 0 && frames, size(row.bytes), row.uploaded && `uploaded to ${row.uploaded}`].filter(Boolean).join(" · ");
    let content = h("p", { class: "empty" }, "This kind of file can only be downloaded.");
    if (row.media === "video/mp4") content = h("video", { src: source, controls: true, autoplay: true, muted: true, playsinline: true, "aria-label": row.name });
    else if (row.media === "image/jpeg" || row.media === "image/png") content = h("img", { src: source, alt: row.name });
    const at = this.rows.findIndex(({ id }) => id === row.id);
    const step = (by, text, key) => h("button", { disabled: !this.rows[at + by], onclick: () => this.view(this.rows[at + by]) }, h("span", {}, text), h("kbd", {}, key));
    const dialog = show(h("h2", {}, row.name), content, h("p", { class: "soft" }, facts),
      h("div", { class: "actions" }, step(-1, "Previous", "←"), step(1, "Next", "→"), row.media.startsWith("image/") && h("a", { class: "button", href: source, target: "_blank" }, "Full size"), h("a", { class: "button", href: source, download: row.name }, "Download")));
    this.keys?.abort();
    this.keys = new AbortController();
    const { signal } = this.keys;
    dialog.addEventListener("close", () => this.keys.abort(), { signal });
    dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.target.matches("video") || !this.rows[at + by]) return;
      event.preventDefault();
      this.view(this.rows[at + by]);
    }, { signal });
  }

  async viewArchive(row) {
    const name = row.label || row.name; // its row is that of its manifest
    const found = await get(`/archives/${name}`).catch((error) => { toast(error.message, true); return null; });
    if (!found) return;
    const verdict = h("p", { class: "soft", role: "status" });
    const verify = async () => {
      verdict.textContent = "Comparing every file with its checksum …";
      const answer = await this.page.act(() => post(`/archives/${name}/verify`), undefined, "Verifying …");
      verdict.textContent = answer ? bare(answer.text) : "It could not be verified";
    };
    show(h("h2", {}, `Archive ${name}`), h("p", { class: "soft" }, `${found.files.length} files, ${size(found.bytes)}, ${day(row.started_utc)}`),
      h("div", { class: "scroll list" }, h("table", {}, h("tbody", {}, found.files.map((file) => h("tr", {}, h("td", {}, h("a", { href: `api/v1/archives/${name}/file?${new URLSearchParams({ file: file.file })}`, download: file.file.split("/").pop() }, file.file)), h("td", {}, size(file.bytes)), h("td", { class: "mono" }, file.sha256.slice(0, 12))))))),
      verdict, h("div", { class: "actions" }, h("button", { class: "changes", onclick: verify }, "Verify"), h("a", { class: "button", href: `api/v1/archives/${name}/zip` }, "Download as zip")));
  }

  async change(row, word) { await this.page.act(() => post(`/library/${row.id}/${word}`)); this.load(); }

  async remove(row) {
    if (await confirmed(`Delete ${row.name}?`, "Delete for good")) this.change(row, "delete");
  }

  // ---- several at once

  get chosen_rows() { return this.rows.filter(({ id }) => this.chosen_ids.has(id)); }

  choose(rows) {
    this.chosen_ids = new Set(this.chosen_ids.size ? [] : rows.map(({ id }) => id));
    for (const box of this.shelf.querySelectorAll(".select input")) box.checked = this.chosen_ids.has(Number(box.closest(".item").dataset.id));
    this.showSeveral();
  }

  showSeveral() {
    const rows = this.chosen_rows, files = rows.filter((row) => row.media && row.group !== "archives").slice(0, ZIP_MAX);
    this.several.hidden = !rows.length;
    const open = rows.filter((row) => !row.protected);
    fill(this.several, h("b", {}, `${rows.length} selected, ${size(rows.reduce((sum, row) => sum + row.bytes, 0))}`),
      h("a", { class: "button", hidden: !files.length, href: `api/v1/library/zip?ids=${files.map(({ id }) => id).join(",")}` }, `Download ${files.length} as zip`),
      h("button", { class: "changes", onclick: () => this.changeAll("protect") }, "Protect"), h("button", { class: "changes", onclick: () => this.changeAll("unprotect") }, "Unprotect"),
      h("button", { class: "changes", onclick: () => this.archive(this.chosen_rows) }, "Archive their time…"),
      h("button", { class: "danger changes", disabled: !open.length, onclick: () => this.removeAll() }, `Delete ${open.length}`), h("button", { onclick: () => this.choose([]) }, "Select none"));
  }

  async removeAll() {
    const rows = this.chosen_rows.filter((row) => !row.protected);
    if (await confirmed(`Delete ${rows.length} files, ${size(rows.reduce((sum, row) => sum + row.bytes, 0))}?`, "Delete for good")) this.changeAll("delete", rows);
  }

  async changeAll(word, rows = this.chosen_rows) {
    await this.page.act(async () => {
      let done = 0, problem;
      for (const row of rows) await post(`/library/${row.id}/${word}`).then(() => done++, (error) => { problem = error; }); // the others are wanted all the same
      const text = `${DONE[word]} ${done} of ${rows.length} files`;
      if (problem) throw new Error(`${text}; ${problem.message}`);
      return { text };
    }, undefined, `${word}: ${rows.length} files …`);
    this.load();
  }

  /** A dialog for an archive of a time span; that of some rows, or the last two hours. */
  archive(rows = []) {
    const name = h("input", { pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]{0,63}", maxlength: 64, required: true, placeholder: "trial_7", title: "letters, digits, _ and -, the first a letter or digit" });
    const times = rows.flatMap((row) => [new Date(row.started_utc).getTime(), new Date(row.started_utc).getTime() + row.duration_s * 1000]);
    const since = h("input", { value: rows.length ? new Date(Math.min(...times)).toISOString() : "2h", placeholder: "2h, or 2026-11-21T08:00" });
    const until = h("input", { value: rows.length ? new Date(Math.max(...times) + 1).toISOString() : "", placeholder: "now" });
    const problem = h("p", { class: "problem", role: "alert" });
    const go = h("button", { class: "primary" }, "Archive");
    const form = h("form", { class: "side form", onsubmit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      go.textContent = "Copying …";
      try {
        const answer = await post("/archives", { name: name.value, since: since.value, until: until.value });
        document.getElementById("dialog").close();
        toast(bare(answer.text));
        this.load();
      } catch (error) { problem.textContent = error.message; }
      go.disabled = false;
      go.textContent = "Archive";
    } }, h("h2", {}, "Copy a time span into an archive"), h("label", {}, "Name ", name), h("label", {}, "From ", since), h("label", {}, "Until ", until), problem, h("div", { class: "actions" }, go));
    show(form);
    name.focus();
  }
}
