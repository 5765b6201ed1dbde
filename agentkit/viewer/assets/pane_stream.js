// @ts-check
/** The answer as it came, piece by piece, to be played again. */

import { button, fill, h, section } from './dom.js';
import { counted, duration, visible } from './format.js';
import { block } from './text.js';

/** @type {import('./panes.js').Pane['show']} */
export function streamPane(app, effect) {
  const deltas = effect.deltas ?? [];
  if (effect.progress) return [section('Progress', ...effect.progress.slice(-200).map((one) => block(app, one)))];
  if (!deltas.length) return [h('p', { class: 'note' }, effect.start?.stream ? 'No piece of the answer was recorded.' : 'The answer came in one piece: it was not streamed.')];
  return [new Player(effect.began ?? deltas[0][0], deltas).element];
}

/** Plays the pieces of an answer at the speed at which they came, or another. */
class Player {
  /**
   * @param {number} began
   * @param {[number, any][]} deltas
   */
  constructor(began, deltas) {
    this.deltas = deltas;
    this.began = began;
    this.whole = deltas[deltas.length - 1][0] - began;
    this.now = this.whole;
    this.speed = 1;
    this.last = 0;
    this.playing = false;
    this.out = h('div', { class: 'streamed', 'aria-live': 'off' });
    this.clock = h('span', { class: 'num' });
    this.play = button('Play', () => this.toggle(), { class: 'play', title: 'Play or pause (space)' });
    this.slider = /** @type {HTMLInputElement} */ (h('input', { type: 'range', min: 0, max: this.whole, step: 1, 'aria-label': 'Time since the call began', oninput: () => this.seek(Number(this.slider.value)) }));
    const speeds = h('select', { 'aria-label': 'Speed', onchange: (/** @type {Event} */ event) => { this.speed = Number(/** @type {HTMLSelectElement} */ (event.target).value); } },
      ...[0.1, 0.25, 0.5, 1, 2, 5, 20].map((one) => h('option', { value: one, selected: one === 1 }, `${one}×`)));
    this.element = h('div', { class: 'player' }, h('div', { class: 'player-bar' }, this.play, this.slider, this.clock, speeds),
      h('p', { class: 'note' }, `${counted(deltas.length, 'piece')}, the first after ${duration(deltas[0][0] - began)}, the last after ${duration(this.whole)}`), this.out);
    this.draw();
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.now >= this.whole) this.now = 0;
    this.last = performance.now();
    this.play.textContent = this.playing ? 'Pause' : 'Play';
    if (this.playing) requestAnimationFrame((time) => this.tick(time));
  }

  /** @param {number} time */
  tick(time) {
    if (!this.playing || !this.element.isConnected) return;
    this.now = Math.min(this.whole, this.now + Math.max(0, time - this.last) * 1000 * this.speed);
    this.last = time;
    this.draw();
    if (this.now >= this.whole) this.toggle();
    else requestAnimationFrame((next) => this.tick(next));
  }

  /** @param {number} now */
  seek(now) {
    this.now = now;
    this.draw();
  }

  draw() {
    this.slider.value = String(this.now);
    this.clock.textContent = duration(this.now);
    /** @type {{kind: string, name: string, text: string}[]} */
    let parts = [];
    for (const [t, item] of this.deltas) {
      if (t - this.began > this.now) break;
      const [kind, name, text] = typeof item === 'string' ? ['text', '', item] : 'reasoning' in item ? ['reasoning', '', item.reasoning] : 'tool' in item ? ['call', `→ ${item.tool}`, item.arguments] : ['restarted', '', ''];
      if (kind === 'restarted') parts = [{ kind, name: `The answer began anew: ${item.restarted}`, text: '' }];
      else {
        const end = parts[parts.length - 1];
        if (end && end.kind === kind && (kind !== 'call' || item.at === end.name || !item.at)) end.text += text;
        else parts.push({ kind, name: kind === 'call' ? item.at ?? name : name, text });
      }
    }
    fill(this.out, parts.map((part) => h('div', { class: `piece is-${part.kind}` }, part.name && h('div', { class: 'call-name' }, visible(part.name)), h('pre', { class: part.kind === 'text' ? 'text prose' : 'text' }, visible(part.text.slice(-20_000))))));
  }
}
