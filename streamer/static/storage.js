// What this browser remembers of the person's choices. One that blocks site data throws at every access: it forgets.

export function recall(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

export function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { /* blocked, or full */ }
}
