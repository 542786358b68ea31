// Waveform, playback and zoom of a recording: wavesurfer.js on samples that were decoded before.
//
// Events: "time" (detail: position in seconds), "view" (what is visible changed), "state" (started or paused), "failed"
// (the browser cannot play the file).

import WaveSurfer from "./vendor/wavesurfer.esm.js";

const MOST_PX_PER_S = 400;
const SILENT = [new Float32Array(2)];

export class Player extends EventTarget {
  constructor(container, scrollbar) {
    super();
    Object.assign(this, { container, scrollbar, surfer: null, address: null, timeS: 0, durationS: 0 });
    scrollbar.addEventListener("scroll", () => this.surfer?.setScroll(scrollbar.scrollLeft));
    new ResizeObserver(() => this.announceView()).observe(container);
  }

  // peaks: Float32Array, or null for a recording that the browser cannot decode.
  async load(file, peaks, durationS, colours) {
    this.unload();
    this.address = URL.createObjectURL(file);
    this.durationS = durationS;
    const bars = { barWidth: 2, barGap: 1, barRadius: 2, height: "auto", normalize: true };
    const following = { autoScroll: true, autoCenter: false, hideScrollbar: true, cursorWidth: 0 };
    const surfer = WaveSurfer.create({ container: this.container, ...bars, ...following, ...colours, dragToSeek: true });
    this.surfer = surfer;
    surfer.on("timeupdate", (timeS) => this.announceTime(timeS));
    surfer.on("seeking", (timeS) => this.announceTime(timeS));
    for (const name of ["play", "pause", "finish"]) surfer.on(name, () => this.dispatchEvent(new Event("state")));
    for (const name of ["scroll", "zoom", "redraw"]) surfer.on(name, () => this.announceView());
    surfer.on("error", () => this.surfer === surfer && this.dispatchEvent(new Event("failed")));
    await surfer.load(this.address, peaks ? [peaks] : SILENT, durationS).catch(() => {}); // "error" said so
    this.announceView();
  }

  unload() {
    this.surfer?.destroy();
    if (this.address) URL.revokeObjectURL(this.address);
    Object.assign(this, { surfer: null, address: null, timeS: 0, durationS: 0 });
  }

  get isPlaying() {
    return this.surfer?.isPlaying() ?? false;
  }

  // Plays from a position, or from where it is, up to an end if there is one.
  play(startS, endS) {
    return this.surfer?.play(startS, endS).catch(() => this.dispatchEvent(new Event("failed")));
  }

  pause() {
    this.surfer?.pause();
  }

  toggle() {
    return this.isPlaying ? this.pause() : this.play();
  }

  seek(timeS) {
    this.surfer?.setTime(Math.max(0, Math.min(this.durationS, timeS)));
    this.reveal(timeS);
  }

  // Scrolls so that a position is visible.
  reveal(timeS) {
    const view = this.view();
    if (view && (timeS < view.startS || timeS > view.endS)) this.surfer.setScrollTime(timeS - 0.1 * (view.endS - view.startS));
  }

  // Zooms by a factor around the middle, or the given position; never further out than the whole recording.
  zoom(factor, aroundS) {
    const view = this.view();
    if (!view) return;
    const fit = view.widthPx / this.durationS;
    const pxPerS = Math.min(Math.max(fit, view.pxPerS * factor), Math.max(fit, MOST_PX_PER_S));
    const centreS = aroundS ?? (view.startS + view.endS) / 2;
    const share = (centreS - view.startS) / (view.endS - view.startS);
    this.surfer.zoom(pxPerS <= fit * 1.001 ? 0 : pxPerS);
    this.surfer.setScroll(centreS * pxPerS - share * view.widthPx);
    this.announceView();
  }

  scrollBy(px) {
    this.surfer?.setScroll(this.surfer.getScroll() + px);
  }

  recolour(colours) {
    this.surfer?.setOptions(colours);
  }

  // What is visible: {startS, endS, pxPerS, scrollPx, widthPx, totalPx}.
  view() {
    const widthPx = this.surfer?.getWidth();
    if (!widthPx || !this.durationS) return null;
    const totalPx = Math.max(widthPx, this.surfer.getWrapper().clientWidth);
    const scrollPx = this.surfer.getScroll();
    const pxPerS = totalPx / this.durationS;
    return { startS: scrollPx / pxPerS, endS: (scrollPx + widthPx) / pxPerS, pxPerS, scrollPx, widthPx, totalPx };
  }

  announceTime(timeS) {
    this.timeS = timeS;
    this.dispatchEvent(new CustomEvent("time", { detail: timeS }));
  }

  announceView() {
    const view = this.view();
    if (!view) return;
    this.scrollbar.firstElementChild.style.width = `${view.totalPx}px`;
    this.scrollbar.hidden = view.totalPx <= view.widthPx + 1;
    if (Math.abs(this.scrollbar.scrollLeft - view.scrollPx) > 1) this.scrollbar.scrollLeft = view.scrollPx;
    this.dispatchEvent(new CustomEvent("view", { detail: view }));
  }
}
