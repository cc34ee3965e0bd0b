// The page: one camera in front, six tabs, one look a second at how things are.

import { get, post } from "./api.js";
import { showBadges, showBanners } from "./badges.js";
import { byId, fill, h, show, toast } from "./dom.js";
import { LibraryTab } from "./library.js";
import { LiveTab } from "./live.js";
import { LogsTab } from "./logs.js";
import { NightTab } from "./night.js";
import { SessionsTab } from "./sessions.js";
import { SettingsTab } from "./settings.js";

const TABS = { live: ["Live", LiveTab], sessions: ["Sessions", SessionsTab], library: ["Library", LibraryTab], night: ["Night", NightTab], settings: ["Settings", SettingsTab], logs: ["Logs", LogsTab] };

const page = {
  camera: "", // the one in front
  over: null, // newest overview
  tab: null,
  name: "",
  /** Do something the server is asked for; say how it went. */
  async act(work, said) {
    try {
      const answer = await work();
      const text = said ?? answer?.text?.replace(/\/\S*\/(?=\S)/g, "") ?? "Done"; // file names without their folders
      toast(text.length > 200 ? `${text.slice(0, 100)}…` : text);
      return answer;
    } catch (error) {
      toast(error.message, true);
      return null;
    } finally {
      look();
    }
  },
  choose(camera) {
    this.camera = camera;
    localStorage.setItem("camera", camera);
    showCameras();
    this.tab?.chosen?.();
    if (this.over) show1();
  },
  open,
};

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
  showBadges(camera, page.over);
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
    showBanners(page.over);
    document.documentElement.dataset.role = page.over.role; // the style takes back what only an owner may do
    byId("logout").hidden = !page.over.login;
    show1();
  } catch (error) {
    showBanners(page.over, error.message);
    page.tab?.offline?.();
  } finally {
    looking = false;
  }
}

function open(name) {
  if (!TABS[name]) name = "live";
  if (name === page.name) return;
  page.tab?.close?.();
  page.name = name;
  page.tab = new TABS[name][1](page);
  byId("main").replaceChildren(page.tab.element);
  for (const button of byId("tabs").children) button.setAttribute("aria-selected", String(button.dataset.tab === name));
  history.replaceState(null, "", `#${name}`);
  page.tab.open?.();
  if (page.over) show1();
}

fill(byId("tabs"), ...Object.entries(TABS).map(([name, [title]]) => h("button", { role: "tab", "data-tab": name, "aria-selected": "false", "aria-controls": "main" }, title)));
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
  ["r", "Record: start or stop", () => { open("live"); page.tab.record(); }],
  ["s", "Save a picture", () => page.act(() => post(`/cameras/${page.camera}/save`))],
  ["p", "Past stack: the seconds around now, saved or stacked", () => page.act(() => post(`/cameras/${page.camera}/stack`))],
  ["a", "Snapshot of all cameras at one instant", () => page.act(() => post("/snapshot"))],
  ["q", "Quit watching, or watch again", () => { open("live"); page.tab.quit(); }],
  ["x", "Long exposure: the last seconds as one picture, or single frames again", () => { open("live"); page.tab.toggleLong(); }],
  ["g", "Grid of all cameras", () => { open("live"); page.tab.grid(); }],
  ["f", "Full screen", () => { open("live"); page.tab.full(); }],
  ["m", "H.264, MJPEG, or by itself", () => { open("live"); page.tab.nextMode(); }],
  ["t", "Light or dark", () => theme(true)],
  ["1–9", "Choose a camera", null],
  ["l e b n o i", "Tabs: Live, sEssions, liBrary, Night, lOgs, settIngs", null],
  ["?", "This list", help],
  ["Esc", "Close what is in front", null],
];
const TAB_KEYS = { l: "live", e: "sessions", b: "library", n: "night", o: "logs", i: "settings" };

function help() {
  show(h("h2", {}, "Keys"), h("dl", { class: "keys" }, KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea") || byId("dialog").open) return;
  const camera = page.over?.cameras[Number(event.key) - 1];
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
  let wanted = localStorage.getItem("theme") ?? system;
  if (change) {
    wanted = wanted === "light" ? "dark" : "light";
    localStorage.setItem("theme", wanted);
  }
  document.documentElement.dataset.theme = wanted;
}

byId("theme").addEventListener("click", () => theme(true));
byId("help").addEventListener("click", help);
byId("logout").addEventListener("click", async () => { await post("/logout"); location.replace("login"); });

theme();
page.camera = localStorage.getItem("camera") ?? "";
await look();
open(location.hash.slice(1) || "live");
addEventListener("hashchange", () => open(location.hash.slice(1)));
setInterval(() => document.hidden || look(), 1000);
document.addEventListener("visibilitychange", () => document.hidden || look());
