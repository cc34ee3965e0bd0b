// What the top of the page says: badges for how things are, banners for what to do.

import { byId, fill, h, length, size } from "./dom.js";

/** How bad it is that so little is free: retention keeps the reserve free, so a disk full up to there is no trouble. */
export const fullness = (disk) => (disk.free_bytes < disk.reserve_bytes / 2 ? "bad" : disk.free_bytes < disk.reserve_bytes * 0.9 ? "warn" : "plain");

const badge = (kind, text, title) => h("span", { class: `badge ${kind}`, title }, text);

export function cameraBadges(camera, over) {
  const night = over.nights[camera.name];
  const recording = over.recordings[camera.name];
  const found = [];
  if (camera.live) found.push(badge("good", `Live · ${camera.fps.toFixed(camera.fps < 10 ? 1 : 0)} fps`, `newest frame ${camera.frame?.frame_id}`));
  else if (camera.age_s === null) found.push(badge("bad", "No picture yet"));
  else found.push(badge("bad", `Stale · ${camera.age_s < 120 ? camera.age_s.toFixed(1) + " s" : length(camera.age_s)}`, "age of the newest frame"));
  if (recording?.state === "recording") found.push(badge("rec", `REC · ${recording.frames} frames`, recording.file));
  if (night) found.push(badge(night.night ? "warn" : "plain", `${night.night ? "Night" : "Day"} · ${night.level.toFixed(0)}`, `night below ${night.dark_threshold}, day above ${night.bright_threshold}`));
  if (night?.moving) found.push(badge("warn", "Motion"));
  const drops = camera.frame?.total_dropped ?? 0;
  if (drops) found.push(badge("warn", `${drops} dropped`, "frames the camera lost since it was opened"));
  return found;
}

export function showBadges(camera, over) {
  const disk = over.health.disk;
  fill(byId("badges"),
    ...cameraBadges(camera, over),
    badge(fullness(disk), `${size(disk.free_bytes)} free`, disk.path),
    badge(over.cpu_percent > 85 ? "warn" : "plain minor", `CPU ${Math.round(over.cpu_percent)} %`),
    badge("plain minor", `${over.viewers} watching`),
  );
}

// What went wrong → what a person can do about it.
const ADVICE = [
  [/disk/, "Delete clips in Library, or lower the limits of [library] in Settings"],
  [/: no picture yet/, "Is the camera plugged in? See Logs → capture, or type: shmcam doctor"],
  [/: last picture/, "The camera is being looked for; pictures come back by themselves. See Logs → capture"],
  [/^hub:/, "Buttons do nothing until it is back; pictures go on. Type: supervisorctl start hub"],
  [/FATAL|EXITED|BACKOFF|down/, "See Logs for the reason, then type: supervisorctl start NAME"],
  [/silent|missing/, "The watchdog restarts it; see Logs if it stays like this"],
];

// What is missing while somebody has stopped a program.
const WITHOUT = {
  capture: "No new pictures come", recorder: "Nothing can be recorded, and the live picture comes as MJPEG", exporter: "No picture can be saved",
  analyzer: "Nobody watches for night and motion", watchdog: "Nobody restarts what hangs",
};

/** What supervisorctl calls a program: those of each further camera are a group. */
function supervised(program, { cameras }) {
  const group = cameras.find(({ name }) => program.replace(/^[a-z]+-/, "") === name && name !== program);
  return group ? `${group.name}:${program}` : program;
}

function stopped({ program }, over) {
  return ["warn", `${program} is stopped`, `${WITHOUT[program.split("-")[0]] ?? "It does nothing"}. Type: supervisorctl start ${supervised(program, over)}`];
}

function toDo(reason, over) {
  const said = ADVICE.find(([pattern]) => pattern.test(reason))?.[1] ?? "See Logs";
  return ["bad", reason, said.replace("NAME", supervised(reason.split(":")[0], over))];
}

export function showBanners(over, problem) {
  const found = [];
  if (problem) {
    found.push(["bad", "The server does not answer", "Trying again every second. Type: supervisorctl status"]);
    fill(byId("badges"), badge("bad", "Offline", problem));
  } else {
    const away = over.health.processes.filter((one) => one.state === "STOPPED");
    const dark = away.filter(({ program }) => program.startsWith("capture")).map(({ program }) => program.slice(8) || over.cameras[0].name);
    found.push(...away.map((one) => stopped(one, over)), ...over.health.reasons.filter((reason) => !dark.some((name) => reason.startsWith(`${name}:`))).map((reason) => toDo(reason, over)));
    if (over.role === "viewer") found.push(["plain", "You may look, not change", over.role_reason]);
    if (over.throttle.share < 1) found.push(["warn", `Viewers are slowed to ${Math.round(over.throttle.share * 100)} %`, `${over.throttle.reason}. Recording comes first; it goes back by itself`]);
  }
  fill(byId("banners"), ...found.slice(0, 4).map(([kind, what, todo]) =>
    h("div", { class: `banner ${kind}`, role: "alert" }, h("span", { class: "what" }, what), h("span", { class: "todo" }, todo))));
}
