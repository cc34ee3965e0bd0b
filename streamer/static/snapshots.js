// Snapshots in turn, for a grid of many cameras: a browser opens six connections to one server, and MJPEG would keep one of them for each tile.

const AT_ONCE = 3; // of the six: the page itself needs some, and so does a second tab
const PAUSE_MS = 100; // between two requests of one turn
const REFUSED_MS = 2000; // a camera that is away is asked this often

export class Snapshots {
  constructor() {
    this.tiles = [];
    this.turns = 0;
  }

  /** Shows the newest picture of an address in an image, again and again until `remove`. */
  add(image, address) {
    this.remove(image);
    this.tiles.unshift({ image, address, due: 0 }); // a new tile is next
    if (this.turns < AT_ONCE) this.turn();
  }

  remove(image) { this.tiles = this.tiles.filter((tile) => tile.image !== image); }

  async turn() {
    this.turns += 1;
    while (this.tiles.length >= this.turns) {
      const tile = this.tiles.find((one) => !one.loading && one.due <= Date.now());
      if (tile) await this.load(tile);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.turns -= 1;
  }

  async load(tile) {
    this.tiles.push(...this.tiles.splice(this.tiles.indexOf(tile), 1)); // to the end of the queue
    tile.loading = true;
    try {
      const answer = await fetch(tile.address, { headers: { "X-Shmcam": "1" } });
      if (!answer.ok) throw new Error(answer.status);
      const picture = URL.createObjectURL(await answer.blob());
      if (this.tiles.includes(tile)) tile.image.src = picture;
      await tile.image.decode().catch(() => {});
      URL.revokeObjectURL(picture);
    } catch {
      tile.due = Date.now() + REFUSED_MS;
    } finally {
      tile.loading = false;
    }
  }
}
