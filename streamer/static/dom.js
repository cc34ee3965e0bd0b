// Building the page: elements from plain values, never from markup, so that no name or log line can become a script.

/** Make an element: h("button", {class: "primary", onclick: save}, "Save"). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "muted") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const filled = new WeakMap();

/** Replace what an element holds, only if it differs: screen readers, focus and transitions are left alone otherwise. */
export function fill(element, ...children) {
  const next = h("div", {}, ...children);
  const markup = next.innerHTML;
  if (filled.get(element) === markup) return;
  filled.set(element, markup);
  element.replaceChildren(...next.childNodes);
}

export const byId = (id) => document.getElementById(id);

/** Say something for a few seconds; `note`: in place of what was said before. */
export function toast(text, bad = false, note = h("div")) {
  clearTimeout(note.timer);
  note.className = bad ? "toast bad" : "toast";
  note.textContent = text;
  if (!note.isConnected) byId("toasts").append(note);
  note.timer = setTimeout(() => note.remove(), bad ? 9000 : 5000);
  return note;
}

/** Show something in front of everything; Escape closes it. */
export function show(...children) {
  const dialog = byId("dialog");
  const close = h("button", { class: "quiet close", "aria-label": "Close", onclick: () => dialog.close() }, "✕");
  dialog.replaceChildren(close, ...children.filter(Boolean));
  const title = dialog.querySelector("h2");
  if (title) title.id = "dialog-title";
  if (dialog.open) { dialog.tabIndex = -1; dialog.focus(); } else dialog.showModal(); // what had the focus may be gone
  return dialog;
}

// Handlers are added, never assigned to `onclick`: there a returned false would cancel what was clicked.
byId("dialog").addEventListener("close", () => byId("dialog").replaceChildren()); // a video must not go on playing
byId("dialog").addEventListener("click", ({ target, clientX, clientY }) => {
  const { left, right, top, bottom } = byId("dialog").getBoundingClientRect();
  if (target === byId("dialog") && (clientX < left || clientX > right || clientY < top || clientY > bottom)) target.close();
});

/** Ask before something that cannot be undone. */
export function confirmed(question, verb) {
  return new Promise((resolve) => {
    const answer = (value) => { resolve(value); byId("dialog").close(); };
    show(
      h("h2", {}, question),
      h("div", { class: "actions" },
        h("button", { class: "danger", onclick: () => answer(true) }, verb),
        h("button", { onclick: () => answer(false), autofocus: true }, "Cancel")),
    );
    byId("dialog").addEventListener("close", () => resolve(false), { once: true });
  });
}

export const size = (bytes) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) { bytes /= 1000; step += 1; }
  return `${bytes >= 100 || step === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[step]}`;
};

export const length = (seconds) => {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.slice(parts[0] ? 0 : 1).map((part) => String(part).padStart(2, "0")).join(":");
};

export const clock = (utc) => new Date(utc).toLocaleTimeString([], { hour12: false });
export const day = (utc) => new Date(utc).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
