// Digital zoom of the live picture: wheel, pinch, double click, buttons and keys; drag moves it. Unzoomed, a swipe changes the camera.

import { h } from "./dom.js";

const MOST = 12; // an eighth of a pixel more shows nothing new
const SWIPE_PX = 60;

export class Zoom {
  /** @param element holds the picture; @param swiped is called with 1 or -1 */
  constructor(element, swiped) {
    this.element = element;
    this.swiped = swiped;
    this.pointers = new Map();
    this.reset();
    const button = (text, label, step) => h("button", { class: "quiet", "aria-label": label, title: label, onclick: (event) => { event.stopPropagation(); step ? this.by(step) : this.reset(); } }, text);
    this.whole = button("⤢", "Whole picture (0)", 0);
    this.whole.hidden = true;
    element.append(h("div", { class: "zoom" }, button("+", "Zoom in (+)", 1.5), button("−", "Zoom out (-)", 1 / 1.5), this.whole));
    element.addEventListener("wheel", (event) => { event.preventDefault(); this.by(Math.exp(-event.deltaY / 400), event); }, { passive: false });
    element.addEventListener("dblclick", (event) => this.scale > 1 ? this.reset() : this.by(3, event));
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (event) => this.up(event));
  }

  reset() { this.scale = 1; this.x = this.y = 0; this.draw(); }

  /** Make it so many times larger, about a point of the screen; about its middle by default. */
  by(factor, at) {
    const box = this.element.getBoundingClientRect();
    const px = at ? at.clientX - box.left - box.width / 2 : 0, py = at ? at.clientY - box.top - box.height / 2 : 0;
    const scale = Math.max(1, Math.min(MOST, this.scale * factor));
    const ratio = scale / this.scale;
    this.scale = scale;
    this.x = px - (px - this.x) * ratio;
    this.y = py - (py - this.y) * ratio;
    this.draw();
  }

  pan(dx, dy) { this.x += dx; this.y += dy; this.draw(); }

  draw() {
    const limitX = ((this.scale - 1) * this.element.clientWidth) / 2, limitY = ((this.scale - 1) * this.element.clientHeight) / 2;
    this.x = Math.max(-limitX, Math.min(limitX, this.x));
    this.y = Math.max(-limitY, Math.min(limitY, this.y));
    for (const picture of this.element.querySelectorAll("video, img")) picture.style.transform = this.scale > 1 ? `translate(${this.x}px, ${this.y}px) scale(${this.scale})` : "";
    this.element.classList.toggle("zoomed", this.scale > 1);
    if (this.whole) this.whole.hidden = this.scale === 1;
  }

  down(event) {
    if (event.target.closest("button")) return;
    if (this.scale > 1) this.element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, x0: event.clientX, y0: event.clientY });
  }

  move(event) {
    if (!event.buttons) this.pointers.delete(event.pointerId); // released elsewhere
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const others = [...this.pointers.values()].filter((other) => other !== pointer);
    if (others.length === 1) { // pinch
      const far = (one) => Math.hypot(one.x - others[0].x, one.y - others[0].y);
      const before = far(pointer), now = far({ x: event.clientX, y: event.clientY });
      if (before > 10) this.by(now / before, { clientX: (event.clientX + others[0].x) / 2, clientY: (event.clientY + others[0].y) / 2 });
      pointer.pinched = others[0].pinched = true;
    } else if (this.scale > 1) this.pan(event.clientX - pointer.x, event.clientY - pointer.y);
    pointer.x = event.clientX;
    pointer.y = event.clientY;
  }

  up(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!pointer || pointer.pinched || this.scale > 1 || event.pointerType !== "touch") return;
    const dx = event.clientX - pointer.x0, dy = event.clientY - pointer.y0;
    if (Math.abs(dx) > SWIPE_PX && Math.abs(dx) > 2 * Math.abs(dy)) this.swiped(dx < 0 ? 1 : -1);
  }

  /** Arrow keys move what is zoomed. Returns whether the key meant something. */
  key(name) {
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[name];
    if (!step || this.scale === 1) return false;
    this.pan(...step);
    return true;
  }
}
