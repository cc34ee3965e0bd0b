// The page: one camera in front, seven tabs, one look a second at how things are.

import { get, post } from "./api.js";
import { showBadges, showBanners } from "./badges.js";
import { byId, fill, h, show, toast } from "./dom.js";
import { LibraryTab } from "./library.js";
import { LiveTab } from "./live.js";
import { LogsTab } from "./logs.js";
import { NightTab } from "./night.js";
import { Recorders } from "./recording.js";
import { SettingsTab } from "./settings.js";
import { recall, remember } from "./storage.js";
import { TimelineTab } from "./timeline.js";
import { ViewersTab } from "./viewers.js";

const TABS = { live: ["Live", LiveTab], timeline: ["Timeline", TimelineTab], library: ["Library", LibraryTab], viewers: ["Viewers", ViewersTab], night: ["Night", NightTab], settings: ["Settings", SettingsTab], logs: ["Logs", LogsTab] };

const page = {
  camera: "", // the one in front
  over: null, // newest overview
  tab: null,
  name: "",
  /** Do something the server is asked for: say at once what is being done, then how it went. */
  async act(work, said, doing = "Working …") {
    const button = document.activeElement?.closest("button");
    const note = toast(doing);
    button?.setAttribute("aria-busy", "true");
    try {
      const answer = await work();
      const text = said ?? answer?.text?.replace(/\/\S*\/(?=\S)/g, "") ?? "Done"; // file names without their folders
      toast(text.length > 200 ? `${text.slice(0, 100)}…` : text, false, note);
      return answer;
    } catch (error) {
      toast(error.message, true, note);
      return null;
    } finally {
      button?.removeAttribute("aria-busy");
      look();
    }
  },
  save() { return this.act(() => post(`/cameras/${this.camera}/save`), undefined, "Saving …"); },
  stack() { return this.act(() => post(`/cameras/${this.camera}/stack`), undefined, "Stacking …"); },
  snapshot() { return this.act(() => post("/snapshot"), undefined, "Saving a picture of each camera …"); },
  /** The camera before or after the one in front. */
  turn(step) {
    const names = this.over?.cameras.map(({ name }) => name) ?? [];
    if (names.length > 1) this.choose(names.at((names.indexOf(this.camera) + step) % names.length));
  },
  choose(camera) {
    this.camera = camera;
    remember("camera", camera);
    showCameras();
    this.tab?.chosen?.();
    if (this.over) show1();
  },
  open,
};
page.recorders = new Recorders(page);
page.redraw = () => { if (page.over) show1(); };

function showCameras() {
  const names = page.over?.cameras.map((camera) => camera.name) ?? [];
  fill(byId("cameras"), ...(names.length > 1 ? names.map((name, at) =>
    h("button", { class: "pill", "aria-pressed": String(name === page.camera), "data-camera": name, title: `Key ${at + 1}` }, name)) : []));
}

byId("cameras").addEventListener("click", (event) => {
  const name = event.target.closest("[data-camera]")?.dataset.camera;
  if (name) page.choose(name);
});

function show1() {
  const camera = page.over.cameras.find((one) => one.name === page.camera) ?? page.over.cameras[0];
  page.recorders.update(page.over);
  showBadges(camera, page);
  document.title = `${camera.live ? "" : "⚠ "}${camera.name} · shmcam`;
  page.tab?.update?.(page.over, camera);
}

let looking = false;
async function look() {
  if (looking) return;
  looking = true;
  try {
    page.over = await get("/overview");
    if (!page.over.cameras.some((camera) => camera.name === page.camera)) page.camera = page.over.cameras[0].name;
    showCameras();
    showBanners(page);
    document.documentElement.dataset.role = page.over.role; // the style takes back what only an owner may do
    byId("logout").hidden = !page.over.login;
    show1();
  } catch (error) {
    showBanners(page, error.message);
    page.tab?.offline?.();
  } finally {
    looking = false;
  }
}

function open(name, about) {
  if (!TABS[name]) name = "live";
  if (name === page.name && !about) return;
  page.tab?.close?.();
  page.name = name;
  page.tab = new TABS[name][1](page, about);
  page.tab.element.setAttribute("role", "tabpanel");
  page.tab.element.setAttribute("aria-labelledby", `tab-${name}`);
  byId("main").replaceChildren(page.tab.element);
  for (const button of byId("tabs").children) {
    const chosen = button.dataset.tab === name;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1; // arrows move between tabs
    if (chosen) { button.scrollIntoView?.({ block: "nearest", inline: "nearest" }); }
  }
  history.replaceState(null, "", `#${name}`);
  page.tab.open?.();
  if (page.over) show1();
}

fill(byId("tabs"), ...Object.entries(TABS).map(([name, [title]]) => h("button", { role: "tab", id: `tab-${name}`, "data-tab": name, "aria-selected": "false", "aria-controls": "main" }, title)));
byId("tabs").addEventListener("click", (event) => event.target.dataset.tab && open(event.target.dataset.tab));
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const buttons = [...byId("tabs").children];
  const next = buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length);
  next.focus();
  open(next.dataset.tab);
});

// ---- keys

const KEYS = [
  ["r", "Record all cameras: start or stop", () => { open("live"); page.recorders.toggleAll(); }],
  ["R", "Record this camera: start or stop", () => { open("live"); page.tab.record(); }],
  ["s", "Snapshot of all cameras at one instant", () => page.snapshot()],
  ["S", "Save a picture of this camera", () => page.save()],
  ["p", "Past stack: the seconds around now, saved or stacked", () => page.stack()],
  ["q", "Stop watching, or watch again", () => { open("live"); page.tab.quit(); }],
  ["x", "Long exposure: the last seconds as one picture, or single frames again", () => { open("live"); page.tab.toggleLong(); }],
  ["g", "Grid of all cameras", () => { open("live"); page.tab.grid(); }],
  ["f", "Full screen", () => { open("live"); page.tab.full(); }],
  ["m", "WebRTC, H.264, MJPEG, or by itself", () => { open("live"); page.tab.nextMode(); }],
  ["+", "Zoom in", () => { open("live"); page.tab.zoom(1.5); }],
  ["-", "Zoom out", () => { open("live"); page.tab.zoom(1 / 1.5); }],
  ["0", "The whole picture", () => { open("live"); page.tab.zoom(0); }],
  ["← → ↑ ↓", "Move the zoomed picture; in Timeline: step", null],
  ["t", "Light or dark", () => theme(true)],
  ["1–9", "Choose a camera", null],
  ["l c b e n i o", "Tabs: Live, timeline (Clock), liBrary, viEwers, Night, settIngs, lOgs", null],
  ["?", "This list", help],
  ["Esc", "Close what is in front", null],
];
const TAB_KEYS = { l: "live", c: "timeline", e: "viewers", b: "library", n: "night", o: "logs", i: "settings" };

function help() {
  show(h("h2", {}, "Keys"), h("dl", { class: "keys" }, KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea") || byId("dialog").open) return;
  if (page.tab?.key?.(event.key)) return event.preventDefault();
  const camera = page.over?.cameras[Number(event.key || 0) - 1];
  const found = KEYS.find(([key]) => key === event.key);
  if (camera) page.choose(camera.name);
  else if (TAB_KEYS[event.key]) open(TAB_KEYS[event.key]);
  else if (found?.[2]) found[2]();
  else return;
  event.preventDefault();
});

// ---- light and dark

function theme(change = false) {
  const system = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  let wanted = document.documentElement.dataset.theme ?? recall("theme") ?? system;
  if (change) {
    wanted = wanted === "light" ? "dark" : "light";
    remember("theme", wanted);
  }
  document.documentElement.dataset.theme = wanted;
}

byId("theme").addEventListener("click", () => theme(true));
byId("help").addEventListener("click", help);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); }); // the part after # names the tab
byId("logout").addEventListener("click", async () => { await post("/logout"); location.replace("login"); });

theme();
page.camera = recall("camera") ?? "";
await look();
open(location.hash.slice(1) || "live");
addEventListener("hashchange", () => open(location.hash.slice(1)));
setInterval(() => document.hidden || look(), 1000);
document.addEventListener("visibilitychange", () => document.hidden || look());
