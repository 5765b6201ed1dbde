// @ts-check
/** The strip of time: a lane for each call that ran at the same time as others. */

import { button, fill, h } from './dom.js';
import { counted, duration } from './format.js';

/** @typedef {import('./store.js').Effect} Effect */
/** @typedef {{effect: Effect, from: number, to: number, lane: number}} Bar */

const AXIS = 18;
const MOST = 108;

export class Strip {
  /** @param {import('./state.js').App} app */
  constructor(app) {
    this.app = app;
    /** @type {[number, number]} the time that is in view */
    this.view = [0, 1];
    this.whole = 1;
    /** @type {Bar[]} */
    this.bars = [];
    this.lanes = 0;
    /** @type {[number, number] | null} */
    this.drag = null;
    this.canvas = /** @type {HTMLCanvasElement} */ (h('canvas', { tabindex: 0, role: 'group', class: 'canvas' }));
    this.chip = h('span', { class: 'chip-place' });
    this.tip = h('div', { class: 'tip', role: 'presentation' });
    this.element = h('div', { class: 'strip', role: 'region', 'aria-label': 'Time' }, this.canvas, this.tip,
      h('div', { class: 'zoom', role: 'toolbar', 'aria-label': 'Zoom' }, this.chip,
        button('−', () => this.zoom(1.6), { 'aria-label': 'Zoom out', title: 'Zoom out (−)' }),
        button('+', () => this.zoom(1 / 1.6), { 'aria-label': 'Zoom in', title: 'Zoom in (+)' }),
        button('Fit', () => this.fit(), { title: 'Show all (0)' })));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.element);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  /** Lay out what ran when; the lanes of a second run stand below those of the first. */
  layout() {
    const { store } = this.app;
    const all = this.view[0] === 0 && this.view[1] === this.whole;
    this.bars = [];
    this.lanes = 0;
    this.whole = 1;
    this.divided = 0;
    for (const run of store.two ? [store.runs.a, store.runs.b] : [store.runs.a]) {
      const first = this.lanes;
      if (run.side === 'b') this.divided = first;
      this.whole = Math.max(this.whole, run.end);
      /** @type {number[]} */
      const free = [];
      const timed = [...run.effects.values()].filter((one) => one.began !== undefined && one.kind !== 'agent');
      timed.sort((a, b) => Number(a.began) - Number(b.began));
      for (const effect of timed) {
        const from = Number(effect.began), to = Math.max(from, effect.ended ?? run.end);
        let lane = free.findIndex((until) => until <= from);
        if (lane < 0) lane = free.push(0) - 1;
        free[lane] = to;
        this.bars.push({ effect, from, to, lane: first + lane });
      }
      this.lanes += Math.max(1, free.length);
    }
    if (all || this.view[1] > this.whole) this.view = [0, this.whole];
    const failed = this.bars.filter((bar) => store.failed(bar.effect)).length;
    this.canvas.setAttribute('aria-label', `${counted(this.bars.length, 'call')} in ${duration(this.whole)}, ${counted(this.lanes, 'lane')}${failed ? `, ${failed} failed` : ''}. Arrow keys move, plus and minus zoom, Enter shows only what is in view, Escape shows all.`);
    this.draw();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = [event.offsetX, event.offsetX];
    });
    canvas.addEventListener('pointermove', (event) => {
      if (this.drag) this.drag[1] = event.offsetX;
      this.hover(event);
      if (this.drag) this.draw();
    });
    canvas.addEventListener('pointerleave', () => this.tip.classList.remove('on'));
    canvas.addEventListener('pointerup', (event) => this.release(event));
    canvas.addEventListener('pointercancel', () => { this.drag = null; });
    canvas.addEventListener('dblclick', () => {
      if (this.app.state.range) this.look(...this.app.state.range);
    });
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      const [from, to] = this.view;
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        const by = ((event.deltaX || event.deltaY) / canvas.clientWidth) * (to - from);
        this.look(from + by, to + by);
      } else this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.time(event.offsetX));
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => this.key(event));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const [from, to] = this.view, by = (to - from) / 8;
    const done = () => { event.preventDefault(); event.stopPropagation(); };
    if (event.key === 'ArrowLeft') this.look(from - by, to - by), done();
    else if (event.key === 'ArrowRight') this.look(from + by, to + by), done();
    else if (event.key === 'Enter') this.app.state.set({ range: [from, to] }), done();
  }

  /** @param {PointerEvent} event */
  release(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    const [one, other] = drag.map((x) => this.time(x));
    if (Math.abs(drag[0] - drag[1]) > 4) this.app.state.set({ range: [Math.min(one, other), Math.max(one, other)] });
    else {
      const bar = this.at(event.offsetX, event.offsetY);
      if (bar) this.app.state.go(this.app.store.shown, bar.effect.at, { side: bar.effect.side });
      else if (this.app.state.range) this.app.state.set({ range: null });
    }
    this.draw();
  }

  /** @param {PointerEvent} event */
  hover(event) {
    const bar = this.drag ? null : this.at(event.offsetX, event.offsetY);
    this.canvas.classList.toggle('over', bar !== null);
    this.tip.classList.toggle('on', bar !== null);
    if (!bar) return;
    const { mark } = this.app.store;
    fill(this.tip, h('b', {}, bar.effect.name), ` ${duration(bar.to - bar.from)} `, h('span', {}, mark.call(this.app.store, bar.effect.status).word), h('div', { class: 'tip-at' }, bar.effect.at));
    this.tip.style.left = `${Math.min(event.offsetX + 12, this.canvas.clientWidth - 240)}px`;
  }

  /** @param {number} x */
  time(x) {
    const [from, to] = this.view;
    return Math.max(0, Math.min(this.whole, from + (x / Math.max(1, this.canvas.clientWidth)) * (to - from)));
  }

  /**
   * Return the bar at a place, or right beside it.
   * @param {number} x
   * @param {number} y
   * @returns {Bar | null}
   */
  at(x, y) {
    const lane = Math.floor((y - AXIS) / this.step), near = this.time(x + 3) - this.time(x);
    const time = this.time(x);
    let best = null, distance = near;
    for (const bar of this.bars) {
      if (bar.lane !== lane) continue;
      const away = time < bar.from ? bar.from - time : time > bar.to ? time - bar.to : 0;
      if (away <= distance) [best, distance] = [bar, away];
    }
    return best;
  }

  get step() {
    return Math.max(3, Math.min(14, (MOST - AXIS) / Math.max(1, this.lanes)));
  }

  /**
   * @param {number} by
   * @param {number} [around]
   */
  zoom(by, around = (this.view[0] + this.view[1]) / 2) {
    const [from, to] = this.view;
    this.look(around - (around - from) * by, around + (to - around) * by);
  }

  fit() {
    this.look(0, this.whole);
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  look(from, to) {
    const width = Math.max(20, Math.min(this.whole, to - from));
    const start = Math.max(0, Math.min(this.whole - width, from));
    this.view = [start, start + width];
    this.draw();
  }

  draw() {
    const { canvas, app } = this;
    const width = this.element.clientWidth, height = Math.ceil(AXIS + this.lanes * this.step + 6);
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const paint = canvas.getContext('2d');
    if (!paint) return;
    paint.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
    const [from, to] = this.view, x = (/** @type {number} */ t) => ((t - from) / (to - from)) * width;
    this.axis(paint, width, height, colour);
    const high = Math.max(2, this.step - 4);
    for (const bar of this.bars) {
      if (bar.to < from || bar.from > to) continue;
      const left = x(bar.from), wide = Math.max(1.5, x(bar.to) - left), top = AXIS + bar.lane * this.step + 2;
      const failed = app.store.failed(bar.effect), selected = bar.effect.at === app.state.at;
      paint.globalAlpha = app.state.range && (bar.to < app.state.range[0] || bar.from > app.state.range[1]) ? 0.25 : 1;
      paint.fillStyle = colour(failed ? 'red' : bar.effect.kind);
      round(paint, left, top, wide, high, Math.min(3, high / 2, wide / 2));
      if (failed) {
        paint.beginPath();
        paint.moveTo(left - 4, AXIS - 6);
        paint.lineTo(left + 4, AXIS - 6);
        paint.lineTo(left, AXIS);
        paint.fill();
      }
      if (selected) {
        paint.strokeStyle = colour('text');
        paint.lineWidth = 1.5;
        paint.strokeRect(left - 1, top - 1.5, wide + 2, high + 3);
      }
    }
    paint.globalAlpha = 1;
    this.chosen(paint, height, x, colour);
  }

  /**
   * @param {CanvasRenderingContext2D} paint
   * @param {number} height
   * @param {(t: number) => number} x
   * @param {(name: string) => string} colour
   */
  chosen(paint, height, x, colour) {
    const range = this.drag ? /** @type {[number, number]} */ (this.drag.map((one) => this.time(one))) : this.app.state.range;
    if (range) {
      const left = x(Math.min(...range)), right = x(Math.max(...range));
      paint.fillStyle = colour('accent');
      paint.globalAlpha = 0.12;
      paint.fillRect(left, 0, right - left, height);
      paint.globalAlpha = 1;
      paint.fillRect(left - 0.5, 0, 1, height);
      paint.fillRect(right - 0.5, 0, 1, height);
    }
    if (this.drag) return;
    fill(this.chip, range && button(`${duration(range[0])} – ${duration(range[1])}  ✕`, () => this.app.state.set({ range: null }), { class: 'chip', 'aria-label': 'Show all of the time again', title: 'Show all of the time again (Esc)' }));
  }

  /**
   * @param {CanvasRenderingContext2D} paint
   * @param {number} width
   * @param {number} height
   * @param {(name: string) => string} colour
   */
  axis(paint, width, height, colour) {
    const [from, to] = this.view;
    const about = (to - from) / Math.max(2, width / 110), power = 10 ** Math.floor(Math.log10(about));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= about) ?? about;
    paint.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      const x = ((t - from) / (to - from)) * width;
      paint.fillStyle = colour('line');
      paint.fillRect(Math.round(x), AXIS - 4, 1, height);
      paint.fillStyle = colour('dim');
      paint.fillText(t === 0 ? '0' : duration(t), Math.round(x) + 4, 11);
    }
    if (this.divided) {
      paint.fillStyle = colour('dim');
      paint.fillRect(0, AXIS + this.divided * this.step, width, 1);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} paint
 * @param {number} left
 * @param {number} top
 * @param {number} wide
 * @param {number} high
 * @param {number} radius
 */
function round(paint, left, top, wide, high, radius) {
  paint.beginPath();
  paint.roundRect(left, top, wide, high, radius);
  paint.fill();
}
