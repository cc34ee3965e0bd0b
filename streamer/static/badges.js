// What the top of the page says: badges for how things are, banners for what to do.

import { get, post } from "./api.js";
import { byId, fill, h, length, show, size } from "./dom.js";

/** How bad it is that so little is free: retention keeps the reserve free, so a disk full up to there is no trouble. */
export const fullness = (disk) => (disk.free_bytes < disk.reserve_bytes / 2 ? "bad" : disk.free_bytes < disk.reserve_bytes * 0.9 ? "warn" : "plain");

/** Free space in words; some file systems do not tell it. */
export const room = (disk) => (disk.total_bytes ? `${size(disk.free_bytes)} free` : "free space unknown");

const badge = (kind, text, title) => h("span", { class: `badge ${kind}`, title }, text);

export function cameraBadges(camera, page) {
  const night = page.over.nights[camera.name];
  const recorder = page.recorders.of(camera.name);
  const found = [];
  if (camera.live) found.push(badge("good", `Live · ${camera.fps.toFixed(camera.fps < 10 ? 1 : 0)} fps`, `newest frame ${camera.frame?.frame_id}`));
  else if (camera.age_s === null) found.push(badge("bad", "No picture yet"));
  else found.push(badge("bad", `Stale · ${camera.age_s < 120 ? camera.age_s.toFixed(1) + " s" : length(camera.age_s)}`, "age of the newest frame"));
  if (recorder.badge) found.push(badge({ recording: "rec", armed: "plain" }[recorder.state] ?? "warn", recorder.badge, recorder.note));
  if (night) found.push(badge(night.night ? "warn" : "plain", night.night ? "Night" : "Day", `scene brightness ${night.level.toFixed(0)}: night below ${night.dark_threshold}, day above ${night.bright_threshold}`));
  if (night?.moving) found.push(badge("warn", "Motion"));
  const drops = camera.frame?.total_dropped ?? 0;
  if (drops) found.push(badge("warn", `${drops} dropped`, "frames the camera lost since it was opened"));
  return found;
}

export function showBadges(camera, page) {
  const { over } = page, { disk } = over.health;
  fill(byId("badges"),
    ...cameraBadges(camera, page),
    badge(fullness(disk), room(disk), disk.path),
    badge(over.cpu_percent > 85 ? "warn" : "plain minor", `CPU ${Math.round(over.cpu_percent)} %`),
    badge("plain minor", `${over.viewers} watching`),
  );
}

// What went wrong → what it means, and the buttons that help. A button names its program, tab or dialog.
const ADVICE = [
  [/^disk .* free/, "Files of other programs fill the disk", () => [go("Delete in Library", "library"), go("Limits of the library", "settings", "library.")]],
  [/^disk /, "Nothing is saved there until it answers; then it goes on by itself", () => [go("Logs", "logs", "")]],
  [/no picture yet|last picture/, "It is tried again by itself", (program) => [go("Log", "logs", program), start("Restart", program, "restart"), { text: "Find cameras", run: findCameras }]],
  [/^hub:/, "Nothing can be saved or changed until it is back; pictures go on", () => [start("Start the hub", "hub")]],
  [/is missing: the disk|not mounted/, "Nothing is saved there until the disk is back; then it goes on by itself", (program) => [go("Log", "logs", program)]],
  [/waiting/, "It goes on by itself when this is over", (program) => [go("Log", "logs", program)]],
  [/FATAL|EXITED|BACKOFF|down/, "Its log tells the reason", (program) => [start(`Start ${program}`, program), go("Log", "logs", program)]],
  [/silent|missing/, "The watchdog restarts it", (program) => [start(`Restart ${program}`, program, "restart"), go("Log", "logs", program)]],
];

// What is missing while somebody has stopped a program.
const WITHOUT = {
  capture: "No new pictures come", recorder: "Nothing can be recorded, and the live picture comes as MJPEG", exporter: "No picture can be saved",
  analyzer: "Nothing watches for night and motion", watchdog: "Nothing restarts what hangs",
};

const go = (text, tab, about) => ({ text, run: (page) => page.open(tab, about) });
const start = (text, program, word = "start") => ({ text, change: true, run: (page) => page.act(() => post(`/programs/${program}/${word}`), undefined, `${text} …`) });

/** The cameras of this machine, as `shmcam cameras` finds them. */
async function findCameras(page) {
  const answer = await page.act(() => get(`/detect/${page.camera}`), "Looked for cameras", "Looking for cameras …");
  if (!answer) return;
  const found = answer.data.found ?? answer.data.cameras ?? [];
  show(h("h2", {}, "Cameras of this machine"), found.length ? h("ul", {}, found.map((one) => h("li", {}, `${one.source} ${one.index}: ${one.model} (${one.device_id})${one.busy ? ` ${one.busy}` : ""}`))) : h("p", {}, "None is connected."));
}

function toDo(reason, over) {
  const [, means, buttons] = ADVICE.find(([pattern]) => pattern.test(reason)) ?? [null, "", () => [go("Logs", "logs", "")]];
  const name = reason.split(":")[0];
  const camera = over.cameras.findIndex((one) => one.name === name);
  return ["bad", reason.replace(/last picture [\d.]+ s ago/, "no new picture"), means, buttons(camera < 0 ? name : camera ? `capture-${name}` : "capture")];
}

export function showBanners(page, problem) {
  const { over } = page, found = [];
  if (problem) {
    const command = over?.config ? ` Type: shmcam --config ${over.config} restart streamer` : "";
    found.push(["bad", "The server does not answer", `Trying again every second.${command}`, []]);
    fill(byId("badges"), badge("bad", "Offline", problem));
  } else {
    const away = over.health.processes.filter((one) => one.state === "STOPPED");
    const dark = away.filter(({ program }) => program.startsWith("capture")).map(({ program }) => program.slice(8) || over.cameras[0].name);
    found.push(...away.map(({ program }) => ["warn", `${program} is stopped`, WITHOUT[program.split("-")[0]] ?? "It does nothing", [start(`Start ${program}`, program)]]));
    found.push(...over.health.reasons.filter((reason) => !dark.some((name) => reason.startsWith(`${name}:`))).map((reason) => toDo(reason, over)));
    if (over.throttle.share < 1) found.push(["warn", `Viewers are slowed to ${Math.round(over.throttle.share * 100)} %`, `${over.throttle.reason}. Recording comes first; it goes back by itself`, []]);
    if (over.role === "viewer") found.push(["plain", "You may look, not change", over.role_reason, []]);
  }
  draw(found.slice(0, 4), page);
}

let drawn = "";
/** Draw the banners; where only figures have changed the buttons stay, else a click could miss them. */
function draw(found, page) {
  const same = JSON.stringify(found.map(([kind, what, , buttons]) => [kind, what.replace(/[\d.]+/g, "#"), buttons.map(({ text }) => text)]));
  const now = found.map(([kind, what, means, buttons]) =>
    h("div", { class: `banner ${kind}` }, h("span", { class: "what" }, what), h("span", { class: "todo" }, means),
      buttons.map(({ text, run, change }) => h("button", { class: change ? "changes" : "", onclick: () => run(page) }, text))));
  const before = byId("banners").children;
  if (same !== drawn) byId("banners").replaceChildren(...now);
  else now.forEach((banner, at) => [0, 1].forEach((part) => { if (before[at].children[part].textContent !== banner.children[part].textContent) before[at].children[part].textContent = banner.children[part].textContent; }));
  drawn = same;
}
